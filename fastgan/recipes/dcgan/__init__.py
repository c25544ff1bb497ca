"""DCGAN: images from noise."""

from fastgan.training.registration import Registration

RECIPE = Registration(
    "fastgan.recipes.dcgan.recipe:DCGAN",
    "images from noise",
    commands={"sample dcgan": ("images from noise, or between two", "fastgan.recipes.dcgan.commands:sample")},
    demos=("demo", "unstable"),
    model="fastgan.recipes.dcgan.model:DCGANModel",
)
__getattr__ = RECIPE.lazy_class(__name__)
