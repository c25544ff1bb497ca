"""kornia"""

from fastgan.patching._declare import Kept, Target

TARGET = Target(
    "kornia",
    (),
    (
        Kept(
            "kornia.enhance.jpeg_codec_differentiable",
            "fastgan.compat.kornia's resamples chroma by averages of 2 x 2, kornia bilinearly; "
            "import that in its place",
        ),
        Kept("kornia.*", "fastgan has no other equal"),
    ),
)
