"""StarGAN v2: images or latents of one domain in the style of another."""

from fastgan.training.registration import Registration

RECIPE = Registration(
    "fastgan.recipes.starganv2.recipe:StarGANv2",
    "images or latents of one domain in the style of another",
    commands={
        "sample starganv2": ("images in the style of a domain", "fastgan.recipes.starganv2.commands:sample"),
        "data encode-latents": (
            "for starganv2, images encoded by a VAE",
            "fastgan.recipes.starganv2.latents:main",
        ),
    },
    built_in_data={"domains": "fastgan.recipes.starganv2.drawn_domains:write_domains"},
    demos=("demo",),
    model="fastgan.recipes.starganv2.model:StarGANv2Model",
)
__getattr__ = RECIPE.lazy_class(__name__)
