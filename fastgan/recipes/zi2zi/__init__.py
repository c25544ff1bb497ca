"""zi2zi: glyphs of one font in the style of others."""

from fastgan.training.registration import Registration

RECIPE = Registration(
    "fastgan.recipes.zi2zi.recipe:Zi2Zi",
    "glyphs of one font in the style of others",
    commands={
        "sample zi2zi": ("glyphs in a font's style", "fastgan.recipes.zi2zi.commands:sample"),
        "data glyphs": ("for zi2zi, rendered from fonts", "fastgan.recipes.zi2zi.glyphs:main"),
    },
    built_in_data={"glyphs": "fastgan.recipes.zi2zi.glyphs:write_demo_glyphs"},
    demos=("demo",),
    model="fastgan.recipes.zi2zi.model:Zi2ZiModel",
)
__getattr__ = RECIPE.lazy_class(__name__)
