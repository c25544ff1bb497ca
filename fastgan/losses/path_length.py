r"""Path length regularization of StyleGAN2's generator, with exact double backward.

.. math::
    \ell_n = \sqrt{\frac{1}{L} \sum_{l,d} \Big(\frac{\partial}{\partial w_{nld}}
    \sum_i \frac{y_i \, G(w)_i}{\sqrt{H W}} \Big)^2}, \qquad
    a' = a + \beta \, (\bar\ell - a), \qquad P = \frac{1}{N} \sum_n (\ell_n - a')^2

with normal noise y. It keeps the length of the image's change constant for a step of given length in the
latent space. As for R1 (:mod:`fastgan.losses.penalties`) there are two forms: :func:`path_length_penalty` of
images that a trainer already has, and :func:`path_length_penalty_of`, which runs the generator in float32,
outside of autocast, and works inside `torch.compile(fullgraph=True)`. Nothing waits for the device.

The gradient of the penalty includes that of a', as in all published code, and reaches the network that made
the latents, if they have a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastgan._torch_internals import sharded_modules
from fastgan.losses._input_gradient import check_network, check_output, gradient_of_scores, input_gradient
from fastgan.losses._over_processes import AveragedOverProcesses
from fastgan.ops._checks import (
    as_factor,
    as_flag,
    as_not_negative,
    as_number,
    as_whole_number,
    check_alike,
    check_floating,
    check_generator,
    described,
)
from fastgan.ops.squared_norm import squared_norm
from fastgan.reference.precision import wide


class PathLengths(NamedTuple):
    """The result of :func:`path_length_penalty`."""

    penalty: Tensor
    """P, 0-d, differentiable."""
    mean: Tensor
    """The moved running mean a', 0-d, detached: the `mean` of the next call."""
    lengths: Tensor
    """Of each sample's path, (N,), detached."""


class PathLengthTerm(NamedTuple):
    """The result of :class:`PathLength`."""

    loss: Tensor
    """The term of G's loss: weight * interval * penalty; 0-d."""
    penalty: Tensor
    """The penalty itself, detached, for logging; 0-d."""
    lengths: Tensor
    """Of each sample's path, (N,), detached."""


def path_length_penalty(
    images: Tensor,
    latents: Tensor,
    mean: float | Tensor,
    decay: float = 0.01,
    noise: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> PathLengths:
    """The mean squared distance of the path lengths from their running mean.

    Args:
        images: N C ..., made by the generator from these latents.
        latents: N D, or N L D with one latent for each of L layers; must have required grad when the
            generator was called.
        mean: the running mean, a number or 0-d tensor; 0 at the start.
        decay: the share in [0, 1] by which the running mean moves to the mean of these lengths.
        noise: like the images, of mean 0 and variance 1; None: drawn here, as `torch.randn_like` draws it.
        generator: draws the noise instead, on the images' device (not inside `torch.compile`).
        scaler: the GradScaler in use; see :func:`fastgan.losses.r1_penalty`.

    Returns:
        Penalty, new mean and lengths, in float32 (float64 for float64). A path of length zero has the
        gradient zero.

    Raises:
        TypeError, ValueError: arguments that are not such tensors or of other batches, images that do not
            depend on the latents, latents that do not require grad, a decay outside of [0, 1], both noise and
            a generator of it.

    Sources: Karras et al., "Analyzing and improving the image quality of StyleGAN", 2020, eq. 4; the code of
    stylegan2-ada-pytorch, rosinality and BasicSR.
    """
    names = ("images", "latents", "mean")
    return detached(*penalized_lengths(images, latents, mean, decay, noise, generator, scaler, names))


def path_length_penalty_of(
    synthesis: Callable[..., Any],
    latents: Tensor,
    mean: float | Tensor,
    *args: Any,
    decay: float = 0.01,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    output: Callable[[Any], Tensor] | None = None,
) -> PathLengths:
    """:func:`path_length_penalty` of a generator, which is called here, in float32 and outside of autocast.

    Works in eager mode and inside a function given to `torch.compile`, also with ``fullgraph=True``.

    Args:
        synthesis: latents (and `args`) to images.
        latents: N D or N L D; with their graph, if the network that makes them is trained by the penalty.
        mean, decay, noise, generator: as of :func:`path_length_penalty`.
        output: picks the images from what the generator returns, if that is not one tensor.

    Returns:
        Penalty, new mean and lengths. The penalty has a gradient, perhaps of zero, for every parameter that
        the images depend on, for which DistributedDataParallel waits.

    Raises:
        TypeError: the generator (after `output`) does not return a tensor.
        ValueError: as :func:`path_length_penalty`, or a wrapper under which second-order gradients are
            silently wrong or missing (see :func:`fastgan.losses.check_supports_penalty`).
    """
    check_network("synthesis", synthesis)
    check_output(output)
    _check_latents("latents", latents)
    mean, decay = as_factor("mean", mean), as_decay("decay", decay)
    check_generator("generator", generator)

    def projected(returned: Any, latents: Tensor) -> Tensor:
        images = returned if output is None else output(returned)
        if not isinstance(images, Tensor):
            raise TypeError(
                f"synthesis must return its images as one tensor, got {described(images)}: say by output= "
                "which part of it they are, as in output=lambda returned: returned[0]"
            )
        return _projections("the images of synthesis", images, latents, noise, generator)

    gradient, unused = gradient_of_scores(synthesis, latents, args, projected, ("images", "latents"))
    penalty, moved, lengths = _penalty_of(gradient, mean, decay)
    return detached(penalty + unused, moved, lengths)


class PathLength(AveragedOverProcesses):
    """Path length regularization with its running mean, which the `state_dict` has.

    .. code-block:: python

        path_length = PathLength(weight=2.0, interval=4)
        if path_length.due(step):
            term = path_length.of(synthesis, mapping(z))
            term.loss.backward()

    Args:
        weight: of the penalty.
        interval: steps between penalties, which count for as many (StyleGAN2: 4).
        decay: as of :func:`path_length_penalty`.
        compile: compile `of` and its gradients with `torch.compile(fullgraph=True)`.

    Of several processes each has the running mean of its own samples, as in the published code of StyleGAN2,
    stylegan3, rosinality and BasicSR: the processes' penalties, whose gradients DistributedDataParallel
    averages, differ a little in what they compare with, and nothing waits for another process. If
    :attr:`average` is set on all of them, to a function that returns a tensor's mean over the processes, the
    running mean is that of all samples, the same in each; a process's mean of this step is still its own
    when the penalty compares with it.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, a negative weight, an interval below 1, a decay
            outside of [0, 1].
    """

    mean: Tensor
    """The running mean, a 0-d buffer; float32 after the first call, also of a module in half precision."""

    def __init__(
        self, weight: float = 2.0, interval: int = 4, *, decay: float = 0.01, compile: bool = False
    ) -> None:
        super().__init__()
        self.weight = as_not_negative("weight", weight)
        self.interval = as_whole_number("interval", interval)
        self.decay, self.compile_of = as_decay("decay", decay), as_flag("compile", compile)
        self.register_buffer("mean", torch.zeros(()))
        self._compiled: Callable[..., PathLengths] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}

    def due(self, step: int) -> bool:
        """Whether the penalty is due on this step, counted from 0.

        Raises:
            TypeError, ValueError: an invalid step.
        """
        return as_whole_number("step", step, least=0) % self.interval == 0

    def forward(
        self,
        images: Tensor,
        latents: Tensor,
        noise: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> PathLengthTerm:
        """The term of these images; arguments and errors as of :func:`path_length_penalty`."""
        check_floating("images", images)
        mean = self.mean.to(images.device, copy=True)
        return self._term(
            path_length_penalty(images, latents, mean, self.decay, noise, generator=generator, scaler=scaler)
        )

    def of(
        self,
        synthesis: Callable[..., Any],
        latents: Tensor,
        *args: Any,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        output: Callable[[Any], Tensor] | None = None,
    ) -> PathLengthTerm:
        """The term of a generator, which is called here.

        Arguments and errors as of :func:`path_length_penalty_of`; with ``compile``, a ValueError also for a
        `generator` of random numbers, and for a network that `fully_shard` has sharded.
        """
        _check_latents("latents", latents)
        mean = self.mean.to(latents.device, copy=True)  # the graph keeps it, and the buffer moves
        options: dict[str, Any] = {"decay": self.decay, "noise": noise, "output": output}
        if not self.compile_of:
            return self._term(
                path_length_penalty_of(synthesis, latents, mean, *args, generator=generator, **options)
            )
        check_network("synthesis", synthesis)
        if generator is not None:
            raise ValueError("generator cannot be used with compile=True: draw the noise, and give noise=")
        if sharded_modules(synthesis):
            raise ValueError(
                "compile=True cannot serve a generator that fully_shard has sharded: use compile=False"
            )
        if isinstance(synthesis, nn.parallel.DistributedDataParallel):
            # DDP averages the gradients without its forward as well, which cannot be compiled here.
            synthesis = synthesis.module
        if self._compiled is None:
            self._compiled = torch.compile(path_length_penalty_of, fullgraph=True)
        return self._term(self._compiled(synthesis, latents, mean, *args, **options))

    def _term(self, found: PathLengths) -> PathLengthTerm:
        with torch.no_grad():
            self.mean = wide(self.mean)  # half precision would round its small steps off
            self.mean.copy_(self._averaged(found.mean.to(self.mean)))
        return PathLengthTerm(
            self.weight * self.interval * found.penalty, found.penalty.detach(), found.lengths
        )


# --- the formula ------------------------------------------------------------------------------------------


def detached(penalty: Tensor, mean: Tensor, lengths: Tensor) -> PathLengths:
    """Of which only the penalty has a graph."""
    return PathLengths(penalty, mean.detach(), lengths.detach())


def penalized_lengths(
    images: Tensor,
    latents: Tensor,
    mean: float | Tensor,
    decay: float,
    noise: Tensor | None,
    generator: torch.Generator | None,
    scaler: torch.amp.GradScaler | None,
    names: tuple[str, str, str],
) -> tuple[Tensor, Tensor, Tensor]:
    """Penalty, moved mean and lengths, all with a graph; errors call images, latents and mean by `names`."""
    images_name, latents_name, mean_name = names
    _check_latents(latents_name, latents)
    mean, decay = as_factor(mean_name, mean), as_decay("decay", decay)
    check_generator("generator", generator)
    projections = _projections(images_name, images, latents, noise, generator, latents_name)
    return _penalty_of(input_gradient(projections, latents, scaler, names[:2]), mean, decay)


def _projections(
    name: str,
    images: Tensor,
    latents: Tensor,
    noise: Tensor | None,
    generator: torch.Generator | None,
    latents_name: str = "latents",
) -> Tensor:
    """The images times noise / sqrt(H W), whose sum is differentiated."""
    check_floating(name, images)
    if images.dim() < 3 or images.numel() == 0:
        raise ValueError(f"{name} must have shape (N, C, H, W), not empty, got {tuple(images.shape)}")
    if images.shape[0] != latents.shape[0]:
        raise ValueError(
            f"{name} must be those of {latents_name}, got {images.shape[0]} images and {latents.shape[0]} "
            f"{latents_name}"
        )
    if noise is not None and generator is not None:
        raise ValueError(
            f"give noise or a generator, not both; got {described(noise)}, {described(generator)}"
        )
    if noise is None:
        noise = (
            torch.randn_like(images)
            if generator is None
            else torch.randn(images.shape, generator=generator, dtype=images.dtype, device=images.device)
        )
    else:
        check_floating("noise", noise)
        check_alike("noise", noise, name, images)
    return wide(images) * (wide(noise.detach()) / math.prod(images.shape[2:]) ** 0.5)


def _penalty_of(gradient: Tensor, mean: float | Tensor, decay: float) -> tuple[Tensor, Tensor, Tensor]:
    squared = squared_norm(gradient)
    if gradient.dim() == 3:
        squared = squared / gradient.shape[1]
    # The slope of the square root is infinite at 0; NaN is not equal to 0, and stays.
    is_zero = squared == 0
    lengths = torch.where(is_zero, 0, torch.where(is_zero, 1, squared).sqrt())
    if isinstance(mean, Tensor):
        mean = mean.detach().to(lengths.device, lengths.dtype)
    moved = mean + decay * (lengths.mean() - mean)
    return (lengths - moved).square().mean(), moved, lengths


def _check_latents(name: str, latents: Tensor) -> None:
    check_floating(name, latents)
    if latents.dim() not in (2, 3) or latents.numel() == 0:
        raise ValueError(f"{name} must have shape (N, D) or (N, L, D), not empty, got {tuple(latents.shape)}")


def as_decay(name: str, decay: object) -> float:
    """A number in [0, 1]."""
    number = as_number(name, decay)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {decay}")
    return number
