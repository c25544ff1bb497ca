"""EnhanceNet: photographs made larger."""

from fastgan.training.registration import Registration

RECIPE = Registration(
    "fastgan.recipes.enhancenet.recipe:EnhanceNet",
    "photographs made larger",
    commands={
        "upscale": (
            "a photograph made larger, by a trained enhancenet",
            "fastgan.recipes.enhancenet.commands:upscale",
        )
    },
    demos=("demo",),
    model="fastgan.recipes.enhancenet.model:EnhanceNetModel",
)
__getattr__ = RECIPE.lazy_class(__name__)
