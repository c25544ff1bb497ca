"""StegaStamp: messages hidden in photographs."""

from fastgan.training.registration import Registration

# `fastgan demo` trains the demo preset, not `fastgan bench demos`.
RECIPE = Registration(
    "fastgan.recipes.stegastamp.recipe:StegaStamp",
    "messages hidden in photographs",
    commands={
        "stegastamp": (
            "hide messages in photographs, and find them again",
            "fastgan.recipes.stegastamp.commands:main",
        ),
        "demo": (
            "train a small StegaStamp, hide a message, find it through a real JPEG",
            "fastgan.recipes.stegastamp.demo:main",
        ),
    },
    model="fastgan.recipes.stegastamp.model:StegaStampModel",
)
__getattr__ = RECIPE.lazy_class(__name__)
