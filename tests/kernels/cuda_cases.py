"""The launches of the calls of CUDA C++ ops in docs/gpu-budgets.md: csrc/cuda/*.cu in numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from tests.kernels import cuda_code
from tests.kernels.cuda_ways import Times, executed, of_step

IMAGES, HEIGHT, WIDTH = 8, 1080, 1920
PIXELS = IMAGES * HEIGHT * WIDTH
PARAMETERS = 1 << 24


@dataclass(frozen=True)
class CudaLaunch:
    programs: int
    threads: int
    """Threads of a program."""
    instructions: float
    """Instructions that a thread executes."""
    bytes: int


@dataclass(frozen=True)
class CudaCase:
    op: str
    variant: str
    direction: str
    elements: int
    floor: int
    """Bytes that must move."""
    launches: Callable[[], list[CudaLaunch]]
    others: str
    """Other launches, which move almost no bytes."""


# --- JPEG: csrc/cuda/jpeg.cu ------------------------------------------------------------------------

ENCODE: Times = {
    "over STG 2x8": 0,  # steps that are none
    "over FRND 12x32": 0,  # levels that are rounded down
    "over STG 4x8": 0,  # masks of odd widths
    "loop ": 3,  # columns of three blocks
}
MERGE: Times = {
    "over STG 3x128 12x32": 0,  # channels_last and other layouts
    "over LDG 4x8": 0,  # masks of odd widths
    "over STG 4x8": 0,
}
GRADIENT: Times = {
    "over LDG 3x128 12x32": 0,
    "over STG 3x128 12x32": 0,
    "over LDG 4x8": 0,
}


@dataclass(frozen=True)
class Jpeg:
    subsampling: str
    pixels: int
    """Pixels per chroma sample, both across and down."""
    form: str
    encode: Times
    merge: Times
    gradient: Times

    @property
    def planes(self) -> tuple[int, int, int]:
        """Bytes of decoded luma and of chroma, padded to whole MCUs, and the number of MCUs."""
        side = 8 * self.pixels
        across, down = -(-WIDTH // side), -(-HEIGHT // side)
        mcus = IMAGES * across * down
        return mcus * side**2, mcus * 2 * 64, mcus

    @property
    def masks(self) -> int:
        """Bytes of the masks, one for each pixel and one for each chroma sample."""
        return PIXELS + PIXELS // self.pixels**2

    def forward(self) -> list[CudaLaunch]:
        luma, chroma, mcus = self.planes
        encode = f"encode_kernel<0, Form<{self.pixels}, {self.pixels}, false>, int, float>"
        tiles = IMAGES * -(-HEIGHT // (8 * self.pixels)) * -(-WIDTH // 64)
        count = executed(cuda_code.kernels()[encode], ENCODE | self.encode)
        if self.pixels == 1:  # one launch does all
            return [CudaLaunch(tiles, 64, count, 24 * PIXELS + self.masks + 2 * mcus)]
        merge = f"merge_kernel<Form<{self.form}>, int, float>"
        read = PIXELS + 2 * PIXELS // self.pixels**2
        return [
            CudaLaunch(tiles, 64, count, 12 * PIXELS + luma + chroma + self.masks + 2 * mcus),
            CudaLaunch(-(-PIXELS // 4 // 256), 256, executed(cuda_code.kernels()[merge], MERGE | self.merge),
                       12 * PIXELS + read + 2 * PIXELS),
        ]  # fmt: skip

    def backward(self) -> list[CudaLaunch]:
        name = f"gradient_kernel<Form<{self.form}>, float>"
        tiles = IMAGES * -(-HEIGHT // 32) * -(-WIDTH // 64)
        count = executed(cuda_code.kernels()[name], GRADIENT | self.gradient)
        return [CudaLaunch(tiles, 256, count, 24 * PIXELS + self.masks)]


# Average passes of a thread through each loop; `gradient_kernel` has 256 threads.
JPEGS = (
    Jpeg(
        "4:2:0", 2, "2, 2, true",
        encode={"over LDG 4x32 STG 2x8": 0},  # NaN
        merge={"over LDG 9x8": 0},  # NaN
        gradient={
            "loop LDG 6x128 13x32 4x8": Fraction(34 * 16, 256),
            "over LDG 9x32 3x8": Fraction(3 * 32, 256),  # 68 pixels beside the tile
            "over LDG 6x32 2x8": 0,
            "loop LDG 1x8 STG 2x32": Fraction(16 * 32, 256),
            "loop LDG 1x32 4x8 STG 5x128 16x32": Fraction(32 * 16, 256),
        },
    ),
    Jpeg(
        "4:4:4", 1, "1, 1, false",
        encode={
            "over LDG 2x32 STG 2x8": 0,  # NaN
            "over STG 3x128 12x32": 0,  # channels_last and other layouts
        },
        merge={},
        gradient={
            "loop LDG 6x128 13x32 4x8": Fraction(32 * 16, 256),
            "over LDG 9x32 3x8": 0,
            "loop LDG 1x8 STG 2x32": Fraction(32 * 64, 256),
            "loop LDG 1x32 4x8 STG 5x128 16x32": Fraction(32 * 16, 256),
        },
    ),
)  # fmt: skip


# --- the optimizers' step: csrc/cuda/optimizer.cu --------------------------------------------------

BLOCKS, STEP_THREADS = 1024, 256


def adamw(halves: bool, rounds_at_random: bool) -> list[CudaLaunch]:
    """The launch for PARAMETERS elements; the averages are float32."""
    code = cuda_code.kernels()[f"step_kernel<Job<32, {str(halves).lower()}>>"]
    vectors = PARAMETERS // (4 * BLOCKS * STEP_THREADS)
    bytes_ = PARAMETERS * adamw_bytes(halves)
    return [CudaLaunch(BLOCKS, STEP_THREADS, of_step(code, vectors, rounds_at_random), bytes_)]


def adamw_bytes(halves: bool) -> int:
    """Bytes per element: reads parameter, gradient and two averages, and writes all but the gradient."""
    return (2 + 1) * (2 if halves else 4) + 4 * 4


CASES = (
    *(
        CudaCase("jpeg_round_trip", f"{jpeg.subsampling}, float32", direction, 3 * PIXELS, 24 * PIXELS,
                 launches, "memset" if direction == "forward" else "-")
        for jpeg in JPEGS
        for direction, launches in (("forward", jpeg.forward), ("backward", jpeg.backward))
    ),
    *(
        CudaCase("optimizer_step", f"AdamW, {variant}", "step", PARAMETERS,
                 adamw_bytes(halves) * PARAMETERS, partial(adamw, halves, random), "memset")
        for variant, halves, random in (
            ("float32", False, False), ("bfloat16", True, False), ("bfloat16, rounded at random", True, True),
        )
    ),
)  # fmt: skip
