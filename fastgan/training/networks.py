"""Operations on whole networks, for GAN steps and commands."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastgan._names import LAYOUT, printable
from fastgan._torch_internals import BatchNorm
from fastgan.losses._backbones import MissingWeights
from fastgan.losses._frozen import frozen as frozen

Network = TypeVar("Network", bound=nn.Module)


@contextlib.contextmanager
def weights_wanted_by(option: str, value: object, otherwise: str) -> Iterator[None]:
    """Turns missing weights within the block into an error that begins with the option that needs them.

    Args:
        otherwise: the alternative, as on the command line.
    """
    try:
        yield
    except MissingWeights as error:
        raise FileNotFoundError(
            f"--{option} {value}: {error.needed}; or have it downloaded: --download_weights true; "
            f"or {otherwise}"
        ) from error


@contextlib.contextmanager
def statistics_kept(*networks: nn.Module) -> Iterator[None]:
    """Within the block, batch normalization does not update its running statistics."""
    layers = [m for network in networks for m in network.modules() if isinstance(m, BatchNorm)]
    counts = [layer.num_batches_tracked for layer in layers]
    before = [
        (layer.momentum, None if count is None else count.clone())
        for layer, count in zip(layers, counts, strict=True)
    ]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, count, (momentum, value) in zip(layers, counts, before, strict=True):
            layer.momentum = momentum
            if count is not None and value is not None:
                count.copy_(value)


def normalizing_by_batch(network: Network) -> Network:
    """A copy in eval mode whose batch normalization uses the statistics of the batch that it gets.

    A discriminator has only seen batches of one kind, and its running statistics are those of a mixture. One
    process of several needs none of the others for this.
    """
    copied = copy.deepcopy(network).eval()
    for layer in copied.modules():
        if isinstance(layer, BatchNorm):
            layer.running_mean = layer.running_var = None
    return copied


def load_network(build: Callable[[], Network], weights: Mapping[str, Tensor], path: Path) -> Network:
    """A new network with these weights, in eval mode.

    A file's configuration may describe a network too large for any memory. It is therefore built on the meta
    device first, and allocated only once the file's weights are known to fit it: on the CPU, without drawing
    from torch's global random generators.

    Args:
        build: makes the network as the file describes it.
        path: the file's, for errors.

    Raises:
        ValueError: no such network can be built, or the weights do not fit it.
    """
    shown = printable(path)
    try:
        with torch.device("meta"):
            meta_network = build()
            expected_state = meta_network.state_dict()
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{shown} describes a network that cannot be made: {error}") from error
    for key, expected in expected_state.items():
        if key in weights and weights[key].is_floating_point() != expected.is_floating_point():
            raise ValueError(
                f"{shown} does not fit: {key} must be {expected.dtype}, got {weights[key].dtype}"
            )
    try:
        meta_network.load_state_dict({key: w.to("meta") for key, w in weights.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{shown} does not fit: {printable(error, keep=LAYOUT)}") from error
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        network = build()
    network.load_state_dict(weights)
    return network.eval()
