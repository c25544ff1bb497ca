"""Small calls that originals and their equals are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.patching._declare import Probe


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal ones, from a generator of their own."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(*shape: int, seed: int = 0) -> Tensor:
    """In [0, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def with_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> Iterator[Tensor]:
    """The value, and its gradients at the inputs."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = function(*leaves)
    yield value
    if value.grad_fn is not None:
        yield from torch.autograd.grad(value.sum(), leaves)


def of_logits(count: int = 1, *arguments: Any, **options: Any) -> Probe:
    """Of a function of one or two tensors of logits and of these arguments behind them."""
    logits = [numbers(6, 1, seed=seed, scale=3) for seed in range(count)]
    return lambda function: with_gradients(lambda *x: function(*x, *arguments, **options), *logits)


class Critic(nn.Module):
    """Smooth, so that it can be differentiated twice."""

    def __init__(self, as_dict: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(numbers(3, seed=5))
        self._as_dict = as_dict

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Any:
        logits = (x * self.weight[:, None, None]).tanh().sum(dim=(1, 2, 3), keepdim=True)[:, :, 0, 0]
        return {"adv_output": logits} if self._as_dict else logits


def of_gradient(call: Callable[[Any, Tensor, Tensor], Tensor]) -> Probe:
    """Of a penalty that `call` computes from (function, logits, images that they depend on)."""

    def probe(function: Any) -> Iterable[Tensor]:
        critic, x = Critic(), images(2, 3, 4, 4).requires_grad_()
        penalty = call(function, critic(x), x)
        return [penalty, *torch.autograd.grad(penalty.sum(), list(critic.parameters()))]

    return probe


def of_penalty(call: Callable[..., Any], as_dict: bool = False) -> Probe:
    """Of a penalty that `call` computes from (function, critic, real images, fake images)."""

    def probe(function: Any) -> Iterable[Tensor]:
        critic = Critic(as_dict)
        returned = call(function, critic, images(2, 3, 4, 4), images(2, 3, 4, 4, seed=1))
        results = list(returned) if isinstance(returned, tuple) else [returned]
        return [*results, *torch.autograd.grad(results[0].sum(), list(critic.parameters()))]

    return probe


def of_path_length(call: Callable[..., Any]) -> Probe:
    """Of a penalty that `call` computes from (function, images, latents that they depend on, a mean)."""

    def probe(function: Any) -> Iterable[Tensor]:
        weight = nn.Parameter(numbers(5, 3 * 4 * 4, seed=5))
        latents = numbers(2, 3, 5).requires_grad_()
        images = (latents.sin() @ weight).tanh().sum(dim=1).reshape(2, 3, 4, 4)
        penalty, *others = call(function, images, latents, 0.3)
        return [penalty, *others, *torch.autograd.grad(penalty, (weight, latents))]

    return probe


def of_average(call: Callable[[Any, nn.Module, nn.Module], Any]) -> Probe:
    """Of a function that `call` gives (function, a network, its average) and that moves the average."""

    def probe(function: Any) -> Iterable[Tensor]:
        networks = nn.Linear(2, 3), nn.Linear(2, 3)
        call(function, *networks)
        return [p for network in networks for p in network.parameters()]

    return probe


def of_sides(kinds: Iterable[str], call: Callable[[Any, Tensor, bool], Tensor], **options: Any) -> Probe:
    """Of a class of losses of each kind, for both sides, as `call` computes them."""

    def probe(cls: Any) -> Iterator[Tensor]:
        for kind in kinds:
            loss = cls(kind, **options)
            for real in (True, False):
                yield from with_gradients(
                    lambda x, loss=loss, real=real: call(loss, x, real), numbers(4, 1, 3, 3)
                )

    return probe


def of_steps(**options: Any) -> Probe:
    """Of an optimizer that steps three times."""

    def probe(cls: Any) -> Iterable[Tensor]:
        parameters = [nn.Parameter(numbers(3, 2)), nn.Parameter(numbers(2))]
        optimizer = cls(parameters, lr=0.01, **options)
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = parameter.detach().sin()
            optimizer.step()
        return parameters

    return probe
