"""Gradient penalties against finite differences in float64, and their refusals."""

import pytest
import torch
from torch import nn

from fastgan.losses import gradient_penalty, r1_penalty


def critic():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(),
        nn.Linear(4 * 3 * 2, 1),
    ).double()  # fmt: skip


def images():
    return torch.rand(2, 3, 9, 8).double()


def test_r1_is_the_mean_squared_norm_of_the_gradient():
    scale = torch.tensor([1.0, 2.0, 3.0])
    x = torch.rand(4, 3, requires_grad=True)
    assert r1_penalty((x * scale).sum(dim=1), x).item() == pytest.approx(14.0)


@pytest.mark.parametrize("penalty_of", ["r1", "gp"])
def test_parameter_gradients_are_exact(penalty_of):
    network, real, fake = critic(), images(), images()

    def penalty():
        if penalty_of == "r1":
            x = real.clone().requires_grad_()
            return r1_penalty(network(x), x)
        return gradient_penalty(network, real, fake, generator=torch.Generator().manual_seed(1))

    parameters = list(network.parameters())
    gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    torch.manual_seed(3)
    step = 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction, kept = torch.randn_like(parameter), parameter.detach().clone()
        parameter.data = kept + step * direction
        above = penalty().item()
        parameter.data = kept - step * direction
        below = penalty().item()
        parameter.data = kept
        along = 0.0 if gradient is None else (gradient * direction).sum().item()
        assert along == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-8)


def test_a_zero_gradient_gives_no_nan():
    network = critic()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    penalty = gradient_penalty(network, images(), images())
    penalty.backward()
    assert penalty.item() == pytest.approx(1.0, abs=1e-5)
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_real_and_fake_stay_as_they_were():
    real, fake = images(), images()
    copies = real.clone(), fake.clone()
    gradient_penalty(critic(), real, fake).backward()
    assert torch.equal(real, copies[0]) and torch.equal(fake, copies[1])
    assert not real.requires_grad and not fake.requires_grad


def test_what_cannot_be_differentiated_is_named():
    x = torch.rand(2, 3)
    with pytest.raises(ValueError, match="x must require grad before the discriminator sees it"):
        r1_penalty(x.sum(dim=1), x)
    x.requires_grad_()
    with torch.no_grad():
        logits = x.sum(dim=1)
    with pytest.raises(ValueError, match="logits do not depend on x: were they computed under no_grad"):
        r1_penalty(logits, x)
    with pytest.raises(ValueError, match="was another tensor given"):
        r1_penalty(torch.rand(2, requires_grad=True) * 2, x)
    with pytest.raises(TypeError, match="needs the logits as one tensor, got tuple"):
        r1_penalty((x.sum(),), x)
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(2, 4\)"):
        gradient_penalty(lambda x: x, torch.rand(2, 3), torch.rand(2, 4))
    with pytest.raises(ValueError, match="center must not be negative, got -1"):
        gradient_penalty(lambda x: x, torch.rand(2, 3), torch.rand(2, 3), center=-1)


def test_wrappers_that_lose_second_order_gradients_are_refused(tmp_path):
    class FullyShardedDataParallel(nn.Linear):
        pass

    x = torch.rand(2, 3)
    with pytest.raises(ValueError, match="keep the discriminator unsharded"):
        gradient_penalty(FullyShardedDataParallel(3, 1), x, x)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/s", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(nn.Linear(3, 1), static_graph=True)
        with pytest.raises(ValueError, match="static_graph=False"):
            gradient_penalty(wrapped, x, x)
    finally:
        torch.distributed.destroy_process_group()
