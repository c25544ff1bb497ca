"""Every Triton kernel compiles for each architecture without a GPU, and without spilling registers."""

from __future__ import annotations

import pytest

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402
from triton._C.libtriton import ir  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource, make_backend  # noqa: E402

from fastgan.kernels import (  # noqa: E402
    adversarial,
    bias_act,
    bias_leaky_relu,
    blur,
    feature_distance,
    feature_matching,
    feature_moments,
    frequency_distance,
    gradient_budget,
    perspective_warp,
    photometric,
    pixel_loss,
    side_losses,
    squared_norm,
    ssim,
    upfirdn2d,
    yuv_l2,
)
from fastgan.ops.feature_matching import SEGMENT  # noqa: E402
from tests.kernels.machine_code import MachineCode, dumped  # noqa: E402

FLOATS = ["fp32", "bf16", "fp16"]


RUN = {"fp32": 4, "bf16": 8, "fp16": 8}  # pixels of a thread, in vectors


def access(lines: tuple[str, ...], images: tuple[str, ...], kind: str, run: int) -> dict[str, int]:
    """Constants for images of any strides, or in vectors, contiguous ("rows") or channels_last ("lines")."""
    constants: dict[str, int] = {"FLAT": kind != ""} | dict.fromkeys(lines, run if kind == " lines" else 0)
    return constants | {f"{image}stride_w": 1 for image in images if kind == " rows"}


def sweep_signature(dtype: str) -> dict[str, str]:
    pointers = {"x": dtype, "y": dtype, "direction": dtype, "partial_sums": "fp32", "edge_gain": "fp32"}
    signature = dict.fromkeys(yuv_l2.sweep.arg_names, "i32")
    signature |= {name: f"*{kind}" for name, kind in pointers.items()}
    numbers = ["edge_gain_number", "scale_y", "scale_u", "scale_v", "direction_factor"]
    signature |= dict.fromkeys(numbers, "fp32")
    return signature


FLOAT32 = {
    "partial_sums", "norms", "grad", "bias", "sums", "loss", "statistics", "slopes", "weight", "results",
    "weights", "gram", "map0", "map1", "map2", "map3", "moments", "rests", "tangent_bias", "b", "f",
    "spectrum", "matrix", "vectors", "largest", "totals", "maxima",
}  # fmt: skip
NUMBERS = {
    "slope", "gain", "clamp", "act_gain", "limit", "sign", "threshold", "real_label", "fake_label", "eps",
    "factor", "weight_number", "half_c1", "half_c2", "luminance", "loss_factor", "absolute_factor",
    "exponent", "scale", *(f"w{i}" for i in range(feature_matching.MOST)),
}  # fmt: skip
FEATURES = [
    *((dtype, channels, 2, True, "stride_pixel", directions)
      for dtype, channels, directions in (  # of AlexNet and VGG
          ("fp32", 64, 1), ("fp32", 128, 2), ("fp32", 192, 2), ("fp32", 256, 2), ("fp32", 384, 2),
          ("fp32", 512, 1), ("fp32", 512, 2), ("bf16", 64, 2), ("bf16", 256, 1), ("bf16", 256, 2),
          ("bf16", 512, 2), ("fp16", 512, 2),
      )),
    ("fp32", 256, 2, True, "stride_channel", 1), ("bf16", 64, 2, True, "stride_channel", 1),
    ("fp16", 512, 2, True, "stride_channel", 1), ("fp16", 256, 1, False, "stride_pixel", 2),
    ("fp32", 4096, 1, True, "stride_pixel", 2), ("bf16", 4096, 1, True, "stride_channel", 1),
]  # fmt: skip


def pixel_kernel(kernel, dtype: str, kind: str, run: int, threads: int = 0, **constants):
    """Of pixel_loss, whose `parts` are programs in one kernel and results in another."""
    pointers = dict.fromkeys(("x", "y", "weight", "direction"), f"*{dtype}")
    pointers |= dict.fromkeys(("slopes", "partial_sums", "edge_gain", "weight_means", "loss"), "*fp32")
    numbers = (
        "edge_gain_number", "threshold", "tv_threshold", "scale_y", "scale_u", "scale_v", "factor",
        "factor_down", "factor_right", "share", "share_down", "share_right", "sobel_weight", "tv_weight",
        "loss_weight",
    )  # fmt: skip
    kinds = pointers | dict.fromkeys(numbers, "fp32")
    if kernel is pixel_loss.finish:
        kinds["parts"] = "*fp32"
    signature = {name: kinds.get(name, "i32") for name in kernel.arg_names}
    constants |= {"BLOCK": threads * run if run else pixel_loss.BLOCK}
    constants |= access(("X_LINE", "Y_LINE", "D_LINE"), ("x_", "y_", "d_"), kind, run)
    return kernel, signature, {name: value for name, value in constants.items() if name in signature}


def described(kernel, dtype: str, data: tuple[str, ...], reals: str = "fp32", **constants):
    """The kernel, its signature with `data` of the dtype, and those of the constants that it takes."""
    signature = dict.fromkeys(kernel.arg_names, "i32")
    kinds = (
        dict.fromkeys(FLOAT32, "*fp32") | dict.fromkeys(NUMBERS, "fp32") | {"codes": "*u8", "signs": "*i8"}
    )
    kinds |= dict.fromkeys((f"r{i}" for i in range(feature_matching.MOST)), f"*{reals}")
    kinds |= dict.fromkeys(data, f"*{dtype}")
    signature |= {name: kind for name, kind in kinds.items() if name in signature}
    return kernel, signature, {name: value for name, value in constants.items() if name in signature}


KERNELS = {
    **{
        f"sweep {dtype} direction={direction} {index}{kind}": (
            yuv_l2.sweep,
            sweep_signature(dtype),
            {"HAS_GAIN": True, "HAS_DIRECTION": direction, "INDEX": index, "BLOCK": yuv_l2.THREADS * run,
             **access(("X_LINE", "Y_LINE", "D_LINE"), ("x_", "y_", "d_"), kind, run)},
        )
        for dtype in FLOATS
        for direction, index, kind, run in (
            (True, tl.int32, "", 4), (False, tl.int32, "", 4), (True, tl.int64, "", 4),
            (True, tl.int32, " rows", RUN[dtype]), (True, tl.int32, " lines", RUN[dtype]),
        )
    },
    **{
        f"pixel_loss sweep {dtype} kind={kind} color={color} {terms} {index}{layout}": pixel_kernel(
            pixel_loss.sweep, dtype, layout, run, threads, KIND=kind, TV_KIND=kind, COLOR=color, HAS_Y=terms
            != "tv", GAIN=2 if terms == "all" else 0, HAS_TV=terms != "alone", HAS_WEIGHT=terms == "all",
            HAS_MEANS=terms == "all", HAS_SLOPES=terms == "all", HAS_DIRECTION=True, INDEX=index,
        )
        for dtype in FLOATS
        for kind, color, terms, index, layout, run, threads in (
            (2, 0, "alone", tl.int32, " rows", RUN[dtype], pixel_loss.ALONE),
            (1, 2, "alone", tl.int32, " lines", RUN[dtype], pixel_loss.THREADS),
            (0, 1, "alone", tl.int32, "", 4, pixel_loss.THREADS),
            (3, 2, "all", tl.int32, "", 4, pixel_loss.NEIGHBOURS),
            (2, 0, "all", tl.int64, "", 4, pixel_loss.NEIGHBOURS),
            (2, 0, "tv", tl.int32, " rows", RUN[dtype], pixel_loss.THREADS),
        )
    },
    **{
        f"pixel_loss sobel {dtype} kind={kind} color={color} {index}": pixel_kernel(
            pixel_loss.sobel, dtype, "", 4, pixel_loss.NEIGHBOURS, KIND=kind, COLOR=color, GAIN=2,
            HAS_WEIGHT=True, HAS_MEANS=True, HAS_DIRECTION=True, INDEX=index,
        )
        for dtype in FLOATS
        for kind, color, index in ((0, 0, tl.int32), (2, 2, tl.int32), (3, 1, tl.int64))
    },
    "pixel_loss finish": pixel_kernel(
        pixel_loss.finish, "fp32", "", 0, HAS_MEANS=True, HAS_SOBEL=True, HAS_TV=True
    ),
    "finish": (
        yuv_l2.finish,
        dict.fromkeys(["partial_sums", "channels", "loss"], "*fp32")
        | dict.fromkeys(["scale_y", "scale_u", "scale_v"], "fp32")
        | dict.fromkeys(["programs", "pixels"], "i32"),
        {"BLOCK": yuv_l2.BLOCK},
    ),
    **{
        f"scale {dtype} in_place={in_place}": (
            yuv_l2.scale,
            {"source": f"*{dtype}", "target": f"*{dtype}", "grad_loss": "*fp32", "factor": "fp32",
             "count": "i32"},
            {"IN_PLACE": in_place, "INDEX": tl.int32, "BLOCK": yuv_l2.BLOCK},
        )
        for dtype in FLOATS
        for in_place in (False, True)
    },
    **{
        f"photometric forward {dtype} masks={masks} {index}{kind}": (
            photometric.forward,
            {name: "i32" for name in photometric.forward.arg_names}
            | {"image": f"*{dtype}", "distorted": f"*{dtype}", "masks": "*u8", "parameters": "*fp32",
               "seed": "*i64"},
            {"HAS_MASKS": masks, "WHOLE_QUADS": kind != "", "INDEX": index, "RUN": run,
             "BLOCK": photometric.THREADS * run,
             **access(("IMAGE_LINE", "OUT_LINE"), ("image_", "out_"), kind, run)},
        )
        for dtype in FLOATS
        for masks, index, kind, run in (
            (True, tl.int32, "", 4), (False, tl.int32, "", 4), (True, tl.int64, "", 4),
            (True, tl.int32, " rows", RUN[dtype]), (True, tl.int32, " lines", RUN[dtype]),
        )
    },
    **{
        f"photometric backward {dtype}{kind}": (
            photometric.backward,
            {name: "i32" for name in photometric.backward.arg_names}
            | {"grad": f"*{dtype}", "result": f"*{dtype}", "masks": "*u8", "parameters": "*fp32"},
            {"INDEX": tl.int32, "BLOCK": photometric.THREADS * run,
             **access(("GRAD_LINE", "OUT_LINE"), ("grad_", "out_"), kind, run)},
        )
        for dtype in FLOATS
        for kind, run in (("", 4), (" rows", RUN[dtype]), (" lines", RUN[dtype]))
    },
    **{
        f"blur {dtype} {size} strided={strided}": (
            blur.convolve,
            {name: "i32" for name in blur.convolve.arg_names}
            | {"image": f"*{dtype}", "blurred": f"*{dtype}", "kernels": "*fp32"},
            {"SIZE": size, "STEP": -1 if strided else 1, "INDEX": tl.int32, "OFFSET": offset,
             "FEW_TAPS": blur.FEW_TAPS, "DENSE": size <= blur.LARGEST_DENSE and offset == tl.int32,
             "QUADS": blur.QUADS, "ROWS": blur.LONE_ROWS,
             **({} if strided else {"image_stride_w": 1, "out_stride_w": 1})},
        )
        for dtype, size, offset, strided in (
            ("fp32", 7, tl.int32, True), ("bf16", 7, tl.int64, True), ("fp16", 3, tl.int32, True),
            ("fp32", 17, tl.int32, True), ("fp32", 7, tl.int32, False), ("bf16", 7, tl.int32, False),
            ("fp16", 3, tl.int32, False), ("bf16", 17, tl.int64, False),
        )
    },
    **{
        f"warp forward {dtype} fill={fill}": (
            perspective_warp.forward,
            {name: "i32" for name in perspective_warp.forward.arg_names}
            | {"image": f"*{dtype}", "warped": f"*{dtype}", "fill": f"*{dtype}", "matrix": f"*{matrix}"},
            {
                "HAS_FILL": fill, "OFFSET": tl.int64 if fill else tl.int32, "GROUP": 2 if fill else 4,
                "TILE_ROWS": perspective_warp.TILE_ROWS, "TILE_COLUMNS": perspective_warp.TILE_COLUMNS,
                "STEPS": perspective_warp.STEPS,
            },
        )
        for dtype, matrix in zip(FLOATS, ("fp64", "fp32", "fp16"), strict=True)
        for fill in (False, True)
    },
    **{
        f"warp backward {dtype} {group} {index}": (
            perspective_warp.backward,
            {name: "i32" for name in perspective_warp.backward.arg_names}
            | {"grad": f"*{dtype}", "result": f"*{dtype}", "matrix": f"*{matrix}"},
            {
                "GROUP": group, "INDEX": index, "OFFSET": index, "ROWS": perspective_warp.ROWS,
                "COLUMNS": perspective_warp.COLUMNS,
            },
        )
        for dtype, matrix in zip(FLOATS, ("fp64", "fp32", "fp16"), strict=True)
        for group, index in ((1, tl.int32), (3, tl.int32), (4, tl.int64))
    },
    **{
        f"squared_norm {kernel.__name__} {dtype}": described(
            kernel, dtype, ("x", "result"), BLOCK=squared_norm.BLOCK, PASSES=squared_norm.PASSES,
            IN_PLACE=True,
        )
        for kernel in (squared_norm.sum_squares, squared_norm.finish, squared_norm.scale)
        for dtype in FLOATS
    },
    **{
        f"ssim {kernel.__name__} {dtype} {size} {sigma} padding={padding} slopes={slopes} {index}": described(
            kernel, dtype, ("x", "y", "direction_x", "direction_y"), TAPS=ssim.taps_of(size, sigma),
            ROW_WEIGHTS=ssim.row_weights_of(ssim.taps_of(size, sigma)),
            ROWS_PER_SHIFT=ssim.rows_per_shift(ssim.taps_of(size, sigma)), EXPONENT=-0.2, PADDING=padding,
            SLOPES=slopes, HAS_L1=slopes > 1, INDEX=index, COLUMNS=ssim.COLUMNS,
        )
        for kernel in (ssim.sweep, ssim.gather)
        for dtype, size, sigma, padding, slopes, index in (
            ("fp32", 11, 1.5, 0, 1, tl.int32), ("bf16", 11, 1.5, 1, 3, tl.int32),
            ("fp16", 7, 1.5, 2, 2, tl.int64), ("fp32", 11, 0.3, 0, 3, tl.int32),
        )
    },
    **{
        f"ssim scale {dtype}": described(
            ssim.scale, dtype, ("source", "target"), IN_PLACE=True, INDEX=tl.int32, BLOCK=ssim.BLOCK
        )
        for dtype in FLOATS
    },
    **{
        f"bias_act activate {act} {dtype}": described(
            bias_act.activate, dtype, ("x", "y"), ACT=act, HAS_BIAS=True, INDEX=tl.int32, BLOCK=bias_act.BLOCK
        )
        for act, dtype in (*((act, "fp32") for act in range(7)), (6, "bf16"), (6, "fp16"))
    },
    **{
        f"bias_act {kernel.__name__} {act} tangent={tangent} {dtype}": described(
            kernel, dtype, ("grad", "tangent", "saved", "target", "grad_saved"), ACT=act,
            HAS_BIAS=act in (4, 6), HAS_CLAMP=act in (4, 6), HAS_TANGENT=tangent, HAS_TANGENT_BIAS=tangent,
            HAS_GRAD_SAVED=tangent and act > 0, INDEX=tl.int32, BLOCK=bias_act.BLOCK,
            ROWS=bias_act.TILE_ROWS, CHANNELS=bias_act.TILE_CHANNELS, SAMPLES=1, LENGTH=bias_act.BLOCK,
        )
        for kernel, act, tangent, dtype in (
            *((bias_act.multiply, act, True, "fp32") for act in (0, 1, 4, 6, 8)),
            *((kernel, 6, True, dtype)
              for kernel in (bias_act.multiply_rows, bias_act.multiply_columns) for dtype in FLOATS),
            (bias_act.multiply_rows, 0, False, "fp32"), (bias_act.multiply_columns, 5, False, "fp32"),
        )
    },
    **{
        f"leaky {kernel.__name__} {dtype}": described(
            kernel, dtype, ("x", "y", "source", "target"), HAS_BIAS=True, HAS_CODES=True, INDEX=tl.int32,
            BLOCK=bias_leaky_relu.BLOCK, ROWS=bias_leaky_relu.TILE_ROWS,
            CHANNELS=bias_leaky_relu.TILE_CHANNELS, SAMPLES=1, LENGTH=bias_leaky_relu.BLOCK,
        )
        for kernel in (
            bias_leaky_relu.activate, bias_leaky_relu.multiply, bias_leaky_relu.multiply_rows,
            bias_leaky_relu.multiply_columns,
        )
        for dtype in FLOATS
    },
    **{
        f"adversarial {kernel.__name__} {game} {dtype} {index}": described(
            kernel, dtype, ("real", "fake", "raised", "lowered"), HAS_SLOPES=True,
            GAME=3 if game == 4 else game, RELATIVISTIC=game == 4, PARTIAL=True, INDEX=index,
            BLOCK=adversarial.BLOCK,
        )
        for kernel, games in (
            (adversarial.discriminator, range(5)), (adversarial.generator, (0, 1, 3)),
            (adversarial.pairs, [4]), (adversarial.finish_discriminator, [4]),
        )
        for game in games
        for dtype, index in (
            *((dtype, tl.int32) for dtype in (FLOATS if game in (0, 4) else FLOATS[:1])), ("fp32", tl.int64)
        )
    },
    **{
        f"sides of {scales} {dtype} game={game} each={each} partial={partial} {index}": described(
            side_losses.sides, dtype, tuple(f"l{i}" for i in range(side_losses.MOST)), COUNT=scales,
            REALS=1, GAME=game, MEAN=not each, EACH=each, WITH_STATISTICS=True, HAS_SLOPES=True,
            PARTIAL=partial, INDEX=index, BLOCK=side_losses.BLOCK,
        )
        for scales, dtype, game, each, partial, index in (
            *((3, dtype, 0, False, partial, tl.int32) for dtype in FLOATS for partial in (False, True)),
            *((2, "fp32", game, True, True, tl.int64) for game in range(4)),
            (side_losses.MOST, "fp32", 0, False, False, tl.int32),
        )
    },
    **{
        f"finish_sides of {scales} each={each}": described(
            side_losses.finish_sides, "fp32", (), COUNT=scales, MEAN=True, EACH=each, WITH_STATISTICS=True,
            BLOCK=side_losses.BLOCK,
        )
        for scales, each in ((3, False), (side_losses.MOST, True))
    },
    **{
        f"features {dtype} {channels} p={power} normalize={normalize} {last} {directions}": described(
            feature_distance.sweep, dtype, ("x", "y", "direction_x", "direction_y"), POWER=power,
            HAS_WEIGHT=normalize, NORMALIZE=normalize, RELU_X=True, WITH_X=True, WITH_Y=directions == 2,
            **{last: 1}, **feature_distance.tiling(channels),
        )
        for dtype, channels, power, normalize, last, directions in FEATURES
    },
    **{
        f"moments {kernel.__name__} {dtype} {channels} of {pixels} {last}": described(
            kernel, dtype, ("x", "y", "grad_x", "grad_y"), WITH_X=True, WITH_Y=True, **{last: 1},
            INDEX=tl.int32 if dtype == "fp32" else tl.int64,
            **feature_moments.tiling(channels, pixels, last == "stride_channel", longest),
        )
        for kernel, longest in (
            (feature_moments.sweep, feature_moments.LONG_TILE),
            (feature_moments.differentiate, feature_moments.TILE),
        )
        for dtype, channels, pixels, last in (
            ("fp32", 64, 65536, "stride_pixel"), ("bf16", 512, 256, "stride_pixel"),
            ("fp16", 5, 30, "stride_pixel"), ("fp32", 256, 4096, "stride_channel"),
            ("bf16", 3, 4096, "stride_channel"),
        )
    },
    "moments finish": described(
        feature_moments.finish, "fp32", (), PIXELS=feature_moments.LONG_TILE, PARTS=feature_moments.PARTS
    ),
    **{
        f"matching of {count} {fake} {real} signs={signs}": described(
            feature_matching.sweep, fake, tuple(f"f{i}" for i in range(feature_matching.MOST)), COUNT=count,
            SEGMENT=SEGMENT, WITH_SIGNS=signs, BLOCK=feature_matching.BLOCK,
            reals=real,
        )
        for count, fake, real, signs in (
            (1, "fp32", "fp32", True), (4, "fp32", "fp32", False), (12, "fp32", "fp32", True),
            (feature_matching.MOST, "bf16", "bf16", True), (feature_matching.MOST, "fp16", "fp32", True),
        )
    },
    **{
        f"matching signs {dtype}": described(
            feature_matching.apply_signs, dtype, ("result",), SEGMENT=SEGMENT, BLOCK=feature_matching.BLOCK
        )
        for dtype in FLOATS
    },
    **{
        f"frequency_distance {kernel.__name__} root={root} log={log} matrix={matrix}": described(
            kernel, "fp32", ("result",), IS_EVEN=True, IS_ROOT=root, LOG=log, HAS_MATRIX=matrix, OF_BATCH=log,
            SAME=not log, BLOCK=frequency_distance.BLOCK,
        )
        for kernel in (frequency_distance.sweep, frequency_distance.differentiate)
        for root, log, matrix in ((True, False, False), (False, True, False), (True, False, True))
    },
    "frequency_distance join": described(
        frequency_distance.join, "fp32", (), BLOCK=frequency_distance.SUMS
    ),
    **{
        f"gradient_budget {dtype} {count} run={run} within={within} between={between}": described(
            gradient_budget.sweep, dtype, (*(f"g{i}" for i in range(gradient_budget.MOST)), "total"),
            COUNT=count, HAS_WEIGHTS=True, WITHIN=within, BETWEEN=between, INDEX=tl.int32, RUN=run,
            PASSES=gradient_budget.PASSES, BLOCK=gradient_budget.THREADS * run,
        )
        for dtype, count, run, within, between in (
            ("fp32", 4, 4, True, True), ("fp32", 4, 1, True, True), ("fp32", 12, 2, True, True),
            ("bf16", 8, 8, True, True), ("bf16", 17, 2, True, False), ("fp16", 17, 2, False, True),
        )
    },
    **{
        f"upfirdn2d {dtype} {taps} up={up} down={down} {separable} mode={mode} {index}": described(
            upfirdn2d.plan(up, down, taps, -(-taps // up), up - 1, separable)[0], dtype, ("x", "y"),
            UP_X=up, UP_Y=up, DOWN_X=down, DOWN_Y=down, TAPS_X=taps, TAPS_Y=taps, PHASE=up - 1,
            TURNED=True, MODE=mode, HAS_BIAS=mode == 1, HAS_CODES=mode > 0, INDEX=index,
            **upfirdn2d.plan(up, down, taps, -(-taps // up), up - 1, separable)[1],
        )
        for dtype, taps, up, down, separable, mode, index in (
            ("fp32", 12, 2, 1, True, 1, tl.int32), ("fp32", 12, 1, 2, True, 2, tl.int32),
            ("fp32", 24, 4, 1, True, 1, tl.int64), ("fp32", 24, 1, 4, True, 0, tl.int32),
            ("fp32", 4, 2, 1, False, 0, tl.int32), ("fp32", 4, 1, 2, False, 0, tl.int32),
            ("fp32", 5, 1, 1, False, 0, tl.int32), ("fp32", 7, 3, 2, True, 0, tl.int32),
            ("fp32", 12, 1, 2, False, 0, tl.int32), ("fp32", 40, 2, 1, True, 1, tl.int64),
            ("bf16", 12, 2, 1, True, 1, tl.int32), ("fp16", 12, 1, 2, True, 0, tl.int32),
            ("bf16", 12, 1, 4, False, 2, tl.int32),
        )
    },
    "gradient_budget finish": described(
        gradient_budget.finish, "fp32", (), COUNT=3, BLOCK=gradient_budget.BLOCK
    ),
}  # fmt: skip
WARPS = {
    "photometric": photometric.WARPS,
    "blur": blur.WARPS,
    "warp": perspective_warp.WARPS,
    "squared_norm": squared_norm.WARPS,
    "ssim": ssim.WARPS,
    "bias_act": bias_act.WARPS,
    "leaky": bias_leaky_relu.WARPS,
    "adversarial": adversarial.WARPS,
    "sides": side_losses.WARPS,
    "finish_sides": 4,
    "moments": feature_moments.WARPS,
    "matching": feature_matching.WARPS,
    "frequency_distance": frequency_distance.WARPS,
    "gradient_budget": gradient_budget.WARPS,
}
REGISTERS = {  # which launches ask for, too
    perspective_warp.backward: {"maxnreg": perspective_warp.MAX_REGISTERS},
    ssim.sweep: {"maxnreg": ssim.MAX_REGISTERS},
}
# What a thread may have without launches asking for it. Blur's weights lie in registers of threads where the
# compiler does not know that they are the same for all of them, as Triton 3.6 where neighbours are loaded one
# by one.
TRITON = tuple(int(part) for part in triton.__version__.split(".")[:2])
# gradient_budget's threads keep a sum of each pair of up to 12 gradients.
# ssim's threads keep four moments of each of 11 windows, in two columns.
MOST_REGISTERS = {"blur": 96 if TRITON >= (3, 8) else 160, "gradient_budget": 255, "ssim": ssim.MAX_REGISTERS}


def options_of(name: str) -> dict[str, int | None]:
    """As its launches have them."""
    kernel, _, constants = KERNELS[name]
    if kernel is feature_distance.sweep:
        limited = constants["WITH_Y"] and "stride_pixel" in constants
        return {
            "num_warps": feature_distance.tiling(constants["CHUNKS"] * constants["CHANNELS"])["num_warps"],
            "maxnreg": feature_distance.TWO_DIRECTIONS_REGISTERS if limited else None,
        }
    if kernel in (upfirdn2d.written_out, upfirdn2d.row_by_row, upfirdn2d.tap_by_tap):
        is_loop = kernel is upfirdn2d.row_by_row
        return {"num_warps": upfirdn2d.LOOP_WARPS if is_loop else upfirdn2d.WARPS}
    return {"num_warps": WARPS.get(name.split()[0], yuv_l2.WARPS), **REGISTERS.get(kernel, {})}


def source_of(name, signature, constants):
    signature = signature | dict.fromkeys(constants, "constexpr")
    multiples = {}
    of_runs = KERNELS[name][0] is gradient_budget.sweep and constants["RUN"] > 1
    if constants.get("FLAT") or of_runs:  # in vectors
        strides = ("stride_n", "stride_c")
        multiples = {
            (number,): [["tt.divisibility", 16]]
            for number, (argument, kind) in enumerate(signature.items())
            if kind.startswith("*") or (kind != "constexpr" and argument.endswith(strides))
        }
    return ASTSource(KERNELS[name][0], signature, constexprs=constants, attrs=multiples)


def translated(source, name):
    """Triton's intermediate code for sm_90: the front end's work, a tenth of a whole compilation's time."""
    target = GPUTarget("cuda", 90, 32)
    backend, context = make_backend(target), ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    options = backend.parse_options(options_of(name) | source.parse_options())
    functions, modules = backend.get_codegen_implementation(options), backend.get_module_map()
    return source.make_ir(target, options, functions, modules, context)


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_compiles_without_spills(name, capability):
    _, signature, constants = KERNELS[name]
    compiled = triton.compile(
        source_of(name, signature, constants), target=GPUTarget("cuda", capability, 32),
        options=options_of(name),
    )  # fmt: skip
    binary = compiled.asm["cubin"]
    code = MachineCode(dumped(binary, "-res-usage"), binary=binary)
    assert code.spills == 0
    assert code.registers <= MOST_REGISTERS.get(name.split()[0], 96)


@pytest.mark.parametrize("kind", ["all 1", "last strides 1", "64 bits"])
@pytest.mark.parametrize("name", [name for name in KERNELS if "bf16" not in name and "fp16" not in name])
def test_kernel_is_translated_as_launches_specialize_it(name, kind):
    """An integer that is 1 becomes a constant, which has no `.to`; one beyond 32 bits is an i64.

    Both are known to the front end alone.
    """
    _, signature, constants = KERNELS[name]
    integers = [name for name, of in signature.items() if of == "i32" and name not in constants]
    if kind == "last strides 1":
        integers = [name for name in integers if name.endswith("stride_w")]
    if not integers:
        pytest.skip("no such argument")
    if kind == "64 bits":
        signature = signature | dict.fromkeys(integers, "i64")
    else:
        constants = constants | dict.fromkeys(integers, 1)
    assert translated(source_of(name, signature, constants), name).verify()
