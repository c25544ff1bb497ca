"""A random valid call of every public op, as a function of its backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgan import ops
from fastgan.losses import AdversarialLoss
from fastgan.losses.adversarial import KINDS
from fastgan.ops.bias_act import GAINS
from fastgan.ops.conv2d import _conv2d_as_compiled
from fastgan.ops.feature_matching import feature_matching as matching
from fastgan.ops.frequency_distance import frequency_distance as spectral
from fastgan.ops.jpeg import ROUNDINGS, SUBSAMPLINGS, UPSAMPLINGS
from fastgan.ops.side_losses import REDUCTIONS
from fastgan.ops.side_losses import side_losses as sides
from fastgan.optim import Adam, RMSprop
from fastgan.reference.adversarial import GAMES
from fastgan.reference.conv2d import conv2d as reference_conv2d
from tests.stress.draws import Draws


class Call(NamedTuple):
    """`run(inputs, backend)` returns outputs; inputs that require grad are differentiated."""

    inputs: dict[str, Tensor]
    run: Callable[[dict[str, Tensor], str], tuple[Tensor, ...]]
    orders: int = 1  # highest order of gradients that both kernel and reference have
    magnitude: float = 0.0  # magnitude of terms that cancel in a gradient
    kept: float = 1.0  # ratio of what is saved for the gradient, in the inputs' dtype, to the gradient
    sums: bool = False  # whether outputs jump at values of sums of many numbers in [0, 1]
    options: dict[str, Any] | None = None  # for the report


def jpeg(draws: Draws) -> Call:
    image = draws.image()
    batch = image.shape[0]
    rounding = draws.one_of(*ROUNDINGS)
    options = {
        "rounding": rounding,
        "subsampling": draws.one_of(*SUBSAMPLINGS),
        "upsampling": draws.one_of(*UPSAMPLINGS),
        "levels": draws.one_of("round", "truncate") if rounding == "straight_through" else "round",
    }
    inputs = {"image": image}
    wide = torch.promote_types(image.dtype, torch.float32)
    quality = draws.one_of(1, 50, 100, draws.random.uniform(1, 100), "0-d", "each", None)
    if quality in ("0-d", "each"):
        drawn = 1 + 99 * draws.uniform(batch)
        inputs["quality"] = (drawn[0] if quality == "0-d" else drawn).to(wide).requires_grad_()
    else:
        options["quality"] = quality
    if quality is None or draws.random.random() < 0.2:
        tables = 1 + 99 * draws.uniform(draws.one_of(1, batch), 2, 8, 8)
        inputs["tables"] = tables.to(wide).requires_grad_()
    seed = draws.random.randrange(2**31)

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        rest = {name: value for name, value in options.items() if name != "quality"}
        return (
            ops.jpeg_round_trip(
                inputs["image"], inputs.get("quality", options.get("quality")),
                quantization_tables=inputs.get("tables"), generator=torch.Generator().manual_seed(seed),
                backend=backend, **rest,
            ),
        )  # fmt: skip

    return Call(inputs, run, magnitude=0.1, sums=True, options=options)


def photometric(draws: Draws) -> Call:
    image = draws.image()
    batch, seed = image.shape[0], draws.random.randrange(-(2**63), 2**63)
    uniform = draws.random.uniform
    options = {
        "noise": draws.one_of(0.0, uniform(0, 0.3), draws.uniform(batch)),
        "contrast": draws.one_of(1.0, 0.0, uniform(-1, 3), 0.5 + draws.uniform(batch)),
        "offset": draws.one_of(0.0, uniform(-0.5, 0.5), draws.normal(batch), 0.3 * draws.normal(batch, 3)),
        "desaturation": draws.one_of(0.0, 1.0, uniform(0, 1), draws.uniform(batch)),
    }

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (ops.photometric(inputs["image"], seed=seed, backend=backend, **options),)

    return Call({"image": image}, run, orders=2, options=options)


def blur(draws: Draws) -> Call:
    image = draws.image(channels=None)
    size = draws.one_of(1, 3, 5, 7)
    taps = draws.uniform(image.shape[0], size, size)
    if draws.random.random() < 0.5:  # some of them zero
        taps = taps * draws.uniform(*taps.shape).round()
    kernels = draws.tensor(taps, dtype=torch.promote_types(image.dtype, torch.float32))
    if draws.random.random() < 0.5:
        kernels = kernels.detach()

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (ops.blur(inputs["image"], inputs["kernels"], backend=backend),)

    # The reference has no mixed second derivative of taps that are exactly zero.
    return Call({"image": image, "kernels": kernels}, run, orders=1 if kernels.requires_grad else 2)


def perspective_warp(draws: Draws) -> Call:
    image = draws.image(channels=None)
    batch, channels = image.shape[:2]
    kind = draws.one_of("near", "near", "any", "identity", "translation", "zero")
    matrix = torch.eye(3, dtype=torch.float64).repeat(batch, 1, 1)
    if kind == "near":
        scales = torch.tensor([[0.1, 0.1, 3.0], [0.1, 0.1, 3.0], [0.003, 0.003, 0.0]], dtype=torch.float64)
        matrix = matrix + scales * draws.normal(batch, 3, 3)
    elif kind == "any":
        matrix = draws.normal(batch, 3, 3)
    elif kind == "translation":
        matrix[:, :2, 2] = draws.normal(batch, 2).mul(3).round()
    elif kind == "zero":
        matrix = matrix.zero_()
    inputs = {"image": image, "matrix": draws.tensor(matrix, dtype=torch.float64).detach()}
    fill = draws.one_of(None, 0.0, 0.7, "colours", "image")
    options = {"kind": kind}
    if isinstance(fill, str):
        shape = (batch, channels, 1, 1) if fill == "colours" else tuple(image.shape)
        inputs["fill"] = draws.tensor(draws.uniform(*shape))
    else:
        options["fill"] = fill

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        fill = inputs.get("fill", options.get("fill"))
        return (ops.perspective_warp(inputs["image"], inputs["matrix"], fill=fill, backend=backend),)

    return Call(inputs, run, orders=2, options=options)


def bias_leaky_relu(draws: Draws) -> Call:
    shape = [
        draws.one_of(1, 2, 3),
        draws.size(9),
        *(draws.size() for _ in range(draws.one_of(0, 1, 2, 2, 3))),
    ]
    inputs = {"x": draws.tensor(draws.normal(*shape))}
    if draws.random.random() < 0.7:
        inputs["bias"] = draws.tensor(draws.normal(shape[1]))
    options = {
        "slope": draws.one_of(0.2, 0.0, 1.0, draws.random.uniform(-1, 2)),
        "gain": draws.one_of(1.0, 2**0.5, draws.random.uniform(-2, 2)),
        "clamp": draws.one_of(None, None, 0.5, 256.0),
    }

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (ops.bias_leaky_relu(inputs["x"], inputs.get("bias"), backend=backend, **options),)

    return Call(inputs, run, orders=2, options=options)


def bias_act(draws: Draws) -> Call:
    shape = [draws.size(9), *(draws.size() for _ in range(draws.one_of(0, 1, 2, 3, 3)))]
    inputs = {"x": draws.tensor(draws.normal(*shape))}
    act = draws.one_of(*GAINS)
    options = {
        "dim": draws.random.randrange(len(shape)),
        "act": act,
        "alpha": draws.one_of(None, 0.0, draws.random.uniform(-1, 2)) if act == "lrelu" else None,
        "gain": draws.one_of(None, 1.0, draws.random.uniform(-2, 2)),
        "clamp": draws.one_of(None, None, 0.5, 256.0),
    }
    if draws.random.random() < 0.7:
        inputs["bias"] = draws.tensor(draws.normal(shape[options["dim"]]))

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (ops.bias_act(inputs["x"], inputs.get("bias"), backend=backend, **options),)

    return Call(inputs, run, orders=2, options=options)


def _drawn_taps(draws: Draws, most: int = 7) -> Tensor | None:
    """Positive ones of sum 1, so that sums overflow in no order; of one axis or two."""
    shape = draws.one_of(None, [draws.size(most)], [draws.size(most), draws.size(most)])
    if shape is None:
        return None
    taps = 0.1 + draws.uniform(*shape)
    return (taps / taps.sum()).float()


def _drawn_margins(draws: Draws, sides: tuple[int, int], least: tuple[int, int]) -> list[int]:
    """Padding before and after along x, then y, that leaves `least` pixels of the sides."""
    margins = []
    for side, fewest in zip(sides, least, strict=True):
        before, after = draws.random.randint(-side, 6), draws.random.randint(-3, 6)
        margins += [before, max(after, fewest - side - before)]
    return margins


def _size_of(f: Tensor | None) -> tuple[int, int]:
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def upfirdn2d(draws: Draws) -> Call:
    image, f = draws.image(channels=None), _drawn_taps(draws)
    up, down = [draws.one_of(1, 1, 2, 3, 4) for _ in "xy"], [draws.one_of(1, 1, 2, 3, 4) for _ in "xy"]
    sides = image.shape[3] * up[0], image.shape[2] * up[1]
    options = {
        "up": up,
        "down": down,
        "padding": _drawn_margins(draws, sides, _size_of(f)),
        "flip_filter": draws.one_of(False, True),
        "gain": draws.one_of(1.0, -0.5, draws.random.uniform(-2, 2)),
    }

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (ops.upfirdn2d(inputs["x"], f, backend=backend, **options),)

    return Call({"x": image}, run, orders=2, options={**options, "f": None if f is None else tuple(f.shape)})


def filtered_lrelu(draws: Draws) -> Call:
    shape = [draws.one_of(1, 2, 3), draws.size(5), draws.size(), draws.size()]
    inputs = {"x": draws.tensor(draws.normal(*shape))}
    if draws.random.random() < 0.7:
        inputs["b"] = draws.tensor(draws.normal(shape[1]))
    fu, fd, up = _drawn_taps(draws), _drawn_taps(draws), draws.one_of(1, 1, 2, 3, 4)
    least = tuple(one + other - 1 for one, other in zip(_size_of(fu), _size_of(fd), strict=True))
    options = {
        "up": up,
        "down": draws.one_of(1, 1, 2, 3, 4),
        "padding": _drawn_margins(draws, (shape[3] * up, shape[2] * up), least),
        "gain": draws.one_of(1.0, 2**0.5, draws.random.uniform(-2, 2)),
        "slope": draws.one_of(0.2, 0.0, 1.0, draws.random.uniform(-1, 2)),
        "clamp": draws.one_of(None, None, 0.5, 256.0),
        "flip_filter": draws.one_of(False, True),
    }

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (ops.filtered_lrelu(inputs["x"], fu, fd, inputs.get("b"), backend=backend, **options),)

    return Call(inputs, run, orders=2, options=options)


def squared_norm(draws: Draws) -> Call:
    shape = [draws.size() for _ in range(draws.one_of(1, 2, 3, 4, 4))]
    inputs = {"x": draws.tensor(draws.normal(*shape))}

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (ops.squared_norm(inputs["x"], backend=backend),)

    return Call(inputs, run, orders=2)


def gradient_budget(draws: Draws) -> Call:
    is_half = draws.dtype in (torch.bfloat16, torch.float16)
    if draws.dtype == torch.bfloat16:
        draws.left_out = ("huge",)  # the reference's float32 gradients of weights overflow, and have no error
    shape = [draws.size() for _ in range(draws.one_of(0, 1, 2, 3, 4))]
    count = draws.one_of(1, 2, 3, 4, draws.random.randint(1, 16))
    inputs = {f"gradient {i}": draws.tensor(draws.normal(*shape)) for i in range(count)}
    names = list(inputs)
    for name in names[1:]:
        inputs[name].requires_grad_(draws.random.random() < 0.9)
    if draws.random.random() < 0.5:
        wide = torch.promote_types(draws.dtype, torch.float32)
        inputs["weights"] = draws.tensor(draws.normal(count), dtype=wide, special=False)

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        gradients = [inputs[name] for name in names]
        return ops.gradient_budget(gradients, inputs.get("weights"), backend=backend)

    # Second derivatives of float32 weights are made of gradients that were rounded to half types.
    return Call(inputs, run, orders=1 if is_half and "weights" in inputs else 2)


def feature_distance(draws: Draws) -> Call:
    return _features(draws, draws.one_of(1, 2), draws.one_of(False, True), draws.one_of(False, True))


def lpips_head(draws: Draws) -> Call:
    return _features(draws, None, True, False)


def _features(draws: Draws, p: int | None, normalize: bool, relu_x: bool) -> Call:
    _keep_to_half(draws)
    shape = [draws.one_of(1, 2, 3), draws.size(33), *(draws.size(9) for _ in range(draws.one_of(1, 2, 2)))]
    x, y = draws.normal(*shape), draws.normal(*shape)
    if draws.random.random() < 0.2:
        y = x.clone()
    inputs = {"x": draws.tensor(x), "y": draws.tensor(y)}
    for name in draws.one_of((), (), ("x",), ("y",)):
        inputs[name] = inputs[name].detach()
    if p is None or draws.random.random() < 0.5:
        weight = draws.uniform(shape[1]).to(torch.promote_types(draws.dtype, torch.float32))
        inputs["weight"] = weight

    # The gradient of a unit vector is the part orthogonal to it, which is nothing for one channel.
    norms = torch.cat([inputs[name].detach().double().norm(dim=1).flatten() for name in "xy"])
    norms = norms[norms.isfinite() & (norms > 0)].clamp(max=1e12)  # beyond, 1 / norm^3 underflows
    largest = inputs["weight"].max().item() if "weight" in inputs else 1.0
    magnitude = 10 * largest / norms.min().item() if normalize and norms.numel() else 0.0

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        x, y, weight = inputs["x"], inputs["y"], inputs.get("weight")
        if p is None:
            return (ops.lpips_head(x, y, weight, backend=backend),)
        return (ops.feature_distance(x, y, p, normalize, relu_x=relu_x, weight=weight, backend=backend),)

    options = {"p": p, "normalize": normalize, "relu_x": relu_x}
    return Call(inputs, run, magnitude=magnitude, kept=x.numel() / (shape[0] * shape[1]), options=options)


def feature_moments(draws: Draws) -> Call:
    draws.left_out = ("huge",)  # whose sums overflow in the reference, where the kernel's may not
    shape = [draws.one_of(1, 2, 3), draws.size(33), *(draws.size(9) for _ in range(draws.one_of(1, 2, 2)))]
    inputs = {name: draws.tensor(draws.one_of(0.0, 0.0, 5.0) + draws.normal(*shape)) for name in "xy"}
    for name in draws.one_of((), (), ("x",), ("y",)):
        inputs[name] = inputs[name].detach()

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return tuple(ops.feature_moments(inputs["x"], inputs["y"], backend=backend))

    return Call(inputs, run, orders=2)


def feature_matching(draws: Draws) -> Call:
    shapes = [
        [draws.size() for _ in range(draws.one_of(0, 1, 2, 4))] for _ in range(draws.one_of(1, 2, 3, 17))
    ]
    weights = [draws.one_of(0.0, 1.0, draws.random.uniform(-2, 2)) for _ in shapes]
    inputs = {
        f"{side}{i}": draws.tensor(draws.normal(*shape))
        for side in ("fake", "real")
        for i, shape in enumerate(shapes)
    }
    for name, tensor in inputs.items():
        if name.startswith("real"):
            inputs[name] = tensor.detach()

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        sides = ([inputs[f"{side}{i}"] for i in range(len(shapes))] for side in ("fake", "real"))
        return (matching(*sides, weights, backend=backend),)

    return Call(inputs, run, options={"weights": weights})


def frequency_distance(draws: Draws) -> Call:
    # The transform spreads each number over all others, and the reference's sums and powers overflow.
    draws.left_out = ("nan", "infinite", "huge", "tiny")
    draws.dtype = draws.one_of(torch.float32, torch.float64)
    shape = [draws.one_of(1, 2), draws.one_of(1, 1, 4), draws.one_of(1, 3), draws.size(), draws.size()]
    options = {
        "alpha": draws.one_of(1.0, 1.0, 0.0, 2.0, draws.random.uniform(0, 3)),
        "log_matrix": draws.one_of(False, True),
        "batch_matrix": draws.one_of(False, True),
    }
    inputs = {"patches": draws.tensor(draws.normal(*shape))}
    if draws.random.random() < 0.3:
        inputs["matrix"] = draws.tensor(
            draws.uniform(*shape[draws.one_of(0, 2, 3) :]), special=False
        ).detach()

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (spectral(inputs["patches"], inputs.get("matrix"), backend=backend, **options),)

    return Call(inputs, run, orders=2, kept=1.5, options=options)


def _keep_to_half(draws: Draws) -> None:
    """Kernels save values for the backward pass in the maps' dtype, and float16 is limited to 65504."""
    if draws.dtype == torch.float16:
        draws.left_out = ("huge", "tiny")


def yuv_l2(draws: Draws) -> Call:
    _keep_to_half(draws)
    x = draws.image()
    y = draws.tensor(draws.uniform(*x.shape) if draws.random.random() < 0.9 else x.detach().double())
    inputs = {"x": x, "y": y}
    for name in draws.one_of((), ("x",), ("y",)):
        inputs[name] = inputs[name].detach()
    scales = draws.one_of((1, 1, 1), (1, 100, 100), (0, 0, 0), (1.5, 0, -2))
    gain = draws.one_of(0.0, 10.0, draws.random.uniform(-2, 2), torch.tensor(3.0))

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        loss, channels = ops.yuv_l2(inputs["x"], inputs["y"], scales, gain, backend=backend)
        return loss, channels

    return Call(inputs, run, orders=2, kept=x.numel() / 3, options={"scales": scales, "gain": gain})


def pixel_loss(draws: Draws) -> Call:
    _keep_to_half(draws)
    kinds = draws.one_of(("l2", "l2"), ("charbonnier", "huber"), ("huber", "charbonnier"))
    if "charbonnier" in kinds:
        draws.left_out = ("huge", "tiny")  # a square overflows in the reference, whose gradient then is NaN
    color = draws.one_of("rgb", "rgb", "luma", "yuv")
    x = draws.image(None if color == "rgb" else 3)
    inputs = {"x": x, "y": draws.tensor(draws.uniform(*x.shape))}
    for name in draws.one_of((), ("x",), ("y",)):
        inputs[name] = inputs[name].detach()
    if draws.random.random() < 0.5:
        shape = [draws.one_of(1, size) for size in x.shape]
        shape[1] = 1 if color == "luma" else shape[1]
        inputs["weight"] = (0.1 + draws.uniform(*shape)).float()
    options = {
        "kind": kinds[0],
        "tv_kind": kinds[1],
        "eps": draws.one_of(1e-3, 0.1),
        "delta": draws.one_of(0.1, 1.0, 5.0),
        "color": color,
        "edge_gain": draws.one_of(0.0, 10.0, torch.tensor(3.0)),
        "sobel_weight": draws.one_of(0.0, 0.5),
        "tv_weight": draws.one_of(0.0, 0.3),
        "reduction": draws.one_of("mean", "mean", "sum"),
        "loss_weight": draws.one_of(1.0, 0.5),
    }
    options["weighted_mean"] = (
        "weight" in inputs and options["reduction"] == "mean" and draws.one_of(False, True)
    )

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return ops.pixel_loss(inputs["x"], inputs["y"], inputs.get("weight"), **options, backend=backend)

    magnitude = 10 * (1 + float(options["edge_gain"])) ** 2
    orders = 2 if kinds == ("l2", "l2") else 1
    return Call(inputs, run, orders=orders, magnitude=magnitude, kept=x.numel(), options=options)


def ssim(draws: Draws) -> Call:
    draws.left_out = ("huge", "tiny")  # what squares of these make of float32's reference says nothing
    x = draws.image(channels=None)
    y = draws.tensor(draws.uniform(*x.shape) if draws.random.random() < 0.9 else x.detach().double())
    inputs = {"x": x, "y": y}
    for name in draws.one_of((), ("x",), ("y",)):
        inputs[name] = inputs[name].detach()
    side = min(x.shape[2:])
    # Not windows of one pixel, whose variance is nothing but rounding.
    most = {"valid": side, "same": 15, "reflect": 2 * side - 1}
    padding = draws.one_of(*[padding for padding in most if most[padding] >= 3])
    options = {
        "padding": padding,
        "window_size": draws.one_of(*[size for size in (3, 5, 7, 11, 11, 11, 15) if size <= most[padding]]),
        "sigma": draws.one_of(1.5, draws.random.uniform(0.5, 5)),
        "window": draws.one_of("gaussian", "gaussian", "uniform"),
        "data_range": draws.one_of(1.0, 2.0, 255.0),
        "contrast": draws.one_of(False, False, True),
        "weight": draws.one_of(1.0, 0.2),
        "l1_weight": draws.one_of(0.0, 0.8),
    }

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (ops.ssim_distance(inputs["x"], inputs["y"], **options, backend=backend),)

    return Call(inputs, run, kept=x.numel() / 3, options=options)


def adversarial(draws: Draws) -> Call:
    kind = draws.one_of(*KINDS)
    shape = [draws.size() for _ in range(draws.one_of(0, 1, 2, 4))]
    other = shape if kind == "relativistic" else [draws.size() for _ in range(draws.one_of(0, 1, 2, 4))]
    scale = draws.one_of(0.1, 1.0, 10.0, 300.0)
    inputs = {
        "real": draws.tensor(scale * draws.normal(*shape)),
        "fake": draws.tensor(scale * draws.normal(*other)),
    }
    labels = {}
    if kind in ("bce", "lsgan"):
        labels = {
            "real_label": draws.one_of(1.0, 0.9, draws.random.uniform(0.5, 1.2)),
            "fake_label": draws.one_of(0.0, 0.1, -1.0 if kind == "lsgan" else 0.2),
        }
    loss = AdversarialLoss(kind, draws.one_of(1, -1), **labels)
    side = draws.one_of("discriminator", "statistics", "generator")

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        with ops.use(backend):
            if side == "generator":
                return (loss.generator(inputs["fake"], inputs["real"]),)
            if side == "statistics":
                value, statistics = loss.discriminator(inputs["real"], inputs["fake"], return_statistics=True)
                return value, *statistics
            return (loss.discriminator(inputs["real"], inputs["fake"]),)

    options = {"kind": kind, "sign": loss.critic_sign, "side": side, **labels}
    return Call(inputs, run, orders=2, options=options)


def side_losses(draws: Draws) -> Call:
    shapes = [
        [draws.size() for _ in range(draws.one_of(0, 1, 2, 4))] for _ in range(draws.one_of(1, 2, 3, 9))
    ]
    scale, reals = draws.one_of(0.1, 1.0, 10.0, 300.0), draws.one_of(0, 1, len(shapes))
    inputs = {f"logits{i}": draws.tensor(scale * draws.normal(*shape)) for i, shape in enumerate(shapes)}
    options: dict[str, Any] = {
        "game": draws.one_of(*GAMES[:-1]),
        "sign": draws.one_of(1, -1),
        "reduction": draws.one_of(*REDUCTIONS),
        "with_statistics": draws.one_of(True, False),
        "factor": draws.one_of(1.0, 0.5, 3.0),
        "real_label": draws.one_of(1.0, 0.9, draws.random.uniform(0.5, 1.2)),
        "fake_label": draws.one_of(0.0, 0.1, -1.0),
    }

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        logits = list(inputs.values())
        loss, statistics = sides(logits[:reals], logits[reals:], **options, backend=backend)
        outputs = (loss,) if isinstance(loss, Tensor) else (*loss,)
        return outputs if statistics is None else (*outputs, statistics)

    return Call(inputs, run, orders=2, options={"reals": reals, **options})


def conv2d(draws: Draws) -> Call:
    draws.special = False  # the sums are torch's, whose primitives treat zero times infinity differently
    groups, kernel = draws.one_of(1, 1, 2), draws.one_of(1, 3, 4)
    batch, inner, outer = draws.one_of(1, 2, 3), groups * draws.size(4), groups * draws.size(4)
    height, width = (kernel + draws.size(9) for _ in range(2))
    inputs = {
        "x": draws.tensor(draws.normal(batch, inner, height, width)),
        "weight": draws.tensor(draws.normal(outer, inner // groups, kernel, kernel)),
    }
    if draws.random.random() < 0.5:
        inputs["bias"] = draws.tensor(draws.normal(outer))
    options = {"stride": draws.one_of(1, 2), "padding": draws.one_of(0, 1), "groups": groups}

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        is_native = backend == "native"
        function = _conv2d_as_compiled if is_native else reference_conv2d
        return (
            function(
                inputs["x"], inputs["weight"], inputs.get("bias"), options["stride"], options["padding"], 1,
                groups,
            ),
        )  # fmt: skip

    return Call(inputs, run, orders=2, options=options)


def optimizer(draws: Draws) -> Call:
    """Two optimizer steps, with gradients as inputs and nothing to differentiate."""
    inputs = {}
    for index in range(draws.one_of(1, 2, 3)):
        shape = [draws.size() for _ in range(draws.one_of(0, 1, 2, 4))]
        inputs[f"parameter {index}"] = draws.tensor(draws.normal(*shape), special=False).detach()
        inputs[f"gradient {index}"] = draws.tensor(draws.normal(*shape)).detach()
    common = {
        "lr": draws.one_of(1e-3, 0.1),
        "weight_decay": draws.one_of(0.0, 0.1),
        "maximize": draws.one_of(False, True),
        "grad_clip_value": draws.one_of(None, 0.25),
        "grad_clip_norm": draws.one_of(None, 1.0),
        "weight_clip": draws.one_of(None, 0.5),
    }
    if draws.random.random() < 0.5:
        kind: Any = RMSprop
        extra = {"momentum": draws.one_of(0.0, 0.9), "centered": draws.one_of(False, True)}
    else:
        kind = Adam
        extra = {"amsgrad": draws.one_of(False, True), "decoupled_weight_decay": draws.one_of(False, True)}

    def run(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        parameters = []
        for name, tensor in inputs.items():
            if name.startswith("parameter"):
                parameter = torch.nn.Parameter(tensor.clone(memory_format=torch.contiguous_format))
                gradient = inputs[name.replace("parameter", "gradient")]
                parameter.grad = gradient.clone(memory_format=torch.contiguous_format)
                parameters.append(parameter)
        stepper = kind(parameters, **common, **extra)
        with ops.use(backend):
            stepper.step()
            stepper.step()
        return tuple(parameter.detach() for parameter in parameters)

    return Call(inputs, run, orders=0, options={"kind": kind.__name__, **common, **extra})


CASES: dict[str, Callable[[Draws], Call]] = {
    case.__name__: case
    for case in (
        jpeg, photometric, blur, perspective_warp, bias_act, bias_leaky_relu, upfirdn2d, filtered_lrelu,
        squared_norm, gradient_budget, feature_distance, feature_matching, feature_moments,
        frequency_distance, lpips_head,
        pixel_loss, ssim, yuv_l2, adversarial, side_losses, conv2d, optimizer,
    )
}  # fmt: skip
