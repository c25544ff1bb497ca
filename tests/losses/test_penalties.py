"""Gradient penalties against double backward in float64, compiled and not, and their refusals."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fastgan.losses import (
    R1,
    _input_gradient,
    approximate_r1,
    gradient_penalty,
    r1_penalty,
    r1_penalty_of,
    r2_penalty,
)
from fastgan.ops import bias_leaky_relu
from tests.conftest import DEVICES
from tests.losses.critics import CRITICS, make
from tests.processes import run_script


def critic():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(),
        nn.Linear(4 * 3 * 2, 1),
    ).double()  # fmt: skip


def images():
    return torch.rand(2, 3, 9, 8).double()


def gradients_of(penalty, network):
    """The gradients of all parameters, zero where there is none."""
    parameters = list(network.parameters())
    found = torch.autograd.grad(penalty, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def assert_same(actual, expected, tolerance=1e-5):
    """Equal to a part of the largest gradient: some parameters have none but rounding."""
    largest = max(gradient.norm() for gradient in expected)
    for one, other in zip(actual, expected, strict=True):
        assert (one.cpu().double() - other).norm() <= tolerance * largest


def at(real, fake, generator_seed):
    part = torch.rand(4, 1, 1, 1, generator=torch.Generator().manual_seed(generator_seed))
    return torch.lerp(real, fake, part)


# Each penalty as fastgan computes it, and at which point and as what function of the gradient it is meant.
PENALTIES = {
    "r1_penalty": (
        lambda d, real, fake, args: r1_penalty(d(x := real.clone().requires_grad_(), *args), x),
        lambda real, fake: real,
        lambda g: g.square().flatten(1).sum(1).mean(),
    ),
    "r1_penalty_of": (
        lambda d, real, fake, args: r1_penalty_of(d, real, *args),
        lambda real, fake: real,
        lambda g: g.square().flatten(1).sum(1).mean(),
    ),
    "r2_penalty": (
        lambda d, real, fake, args: r2_penalty(d(x := fake.clone().requires_grad_(), *args), x, scale=0.5),
        lambda real, fake: fake,
        lambda g: 0.5 * g.square().flatten(1).sum(1).mean(),
    ),
    "interpolate": (
        lambda d, real, fake, args: gradient_penalty(
            d, real, fake, *args, generator=torch.Generator().manual_seed(1)
        ),
        lambda real, fake: at(real, fake, 1),
        lambda g: (g.flatten(1).norm(dim=1) - 1).square().mean(),
    ),
    "fake, centred at 0": (
        lambda d, real, fake, args: gradient_penalty(d, real, fake, *args, mode="fake", center=0.0),
        lambda real, fake: fake,
        lambda g: g.flatten(1).norm(dim=1).square().mean(),
    ),
    "real, one-sided": (
        lambda d, real, fake, args: gradient_penalty(
            d, real, None, *args, mode="real", center=0.01, one_sided=True
        ),
        lambda real, fake: real,
        lambda g: (g.flatten(1).norm(dim=1) - 0.01).clamp(min=0).square().mean(),
    ),
    "channel": (
        lambda d, real, fake, args: gradient_penalty(d, real, fake, *args, mode="real", norm="channel"),
        lambda real, fake: real,
        lambda g: ((g.square().sum(dim=1) + 1e-12).sqrt() - 1).square().mean(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", CRITICS)
@pytest.mark.parametrize("name", PENALTIES)
def test_parameter_gradients_equal_float64_double_backward(name, kind, device):
    function, point, meaning = PENALTIES[name]
    network, real, fake, args = make(kind)
    network.eval()  # spectral norm keeps its estimate
    if name == "interpolate" and device == "cuda":
        pytest.skip("draws its points on the device")
    exact = copy.deepcopy(network).double()
    x = point(real, fake).double().requires_grad_()
    (gradient,) = torch.autograd.grad(exact(x, *args).sum(), x, create_graph=True)
    expected = meaning(gradient)

    network.to(device)
    penalty = function(network, real.to(device), fake.to(device), tuple(a.to(device) for a in args))
    assert abs(penalty.item() - expected.item()) <= 1e-5 * expected.item()
    assert_same(gradients_of(penalty, network), gradients_of(expected, exact))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", CRITICS)
@pytest.mark.parametrize("name", ["r1_penalty_of", "fake, centred at 0"])
def test_compiled_with_the_loss_into_one_graph(name, kind, device):
    """A discriminator step under torch.compile(fullgraph=True): loss and penalty, one backward outside."""
    function = PENALTIES[name][0]
    network, real, fake, args = make(kind)
    network.to(device)
    real, fake, args = real.to(device), fake.to(device), tuple(a.to(device) for a in args)
    again = copy.deepcopy(network)

    def loss(network):
        adversarial = nn.functional.softplus(network(fake, *args)).mean()
        return adversarial + 10 * function(network, real, fake, args)

    torch._dynamo.reset()
    # The penalties' graphs differ in where they are taken and in sums that inductor generates for any code.
    backend = "inductor" if name == "r1_penalty_of" else "aot_eager"
    compiled = torch.compile(lambda: loss(network), fullgraph=True, backend=backend)()
    expected = loss(again)
    assert_close(compiled, expected, rtol=1e-5, atol=1e-6)
    assert_same(gradients_of(compiled, network), [g.cpu().double() for g in gradients_of(expected, again)])
    for ours, theirs in zip(network.buffers(), again.buffers(), strict=True):
        assert_close(ours, theirs)  # what spectral norm remembers


def test_interpolation_and_dragan_compile():
    network, real, fake, _ = make("dcgan")
    for mode in ("interpolate", "dragan"):
        step = torch.compile(
            lambda real, fake, mode=mode: gradient_penalty(network, real, fake, mode=mode), fullgraph=True
        )
        penalty = step(real, fake)
        assert penalty.isfinite() and any(g.any() for g in gradients_of(penalty, network))


def test_dragan_looks_near_the_real_samples():
    seen = []
    scale = torch.tensor(2.0, requires_grad=True)

    def network(x):
        seen.append(x.detach())
        return scale * x.flatten(1).sum(dim=1)

    real = torch.rand(4, 3, 8, 8)
    gradient_penalty(network, real, None, mode="dragan")
    moved = seen[0] - real
    assert (moved >= 0).all() and (moved <= 0.5 * real.std()).all() and moved.std() > 0


def test_r1_is_the_mean_squared_norm_of_the_gradient():
    scale = torch.tensor([1.0, 2.0, 3.0])
    x = torch.rand(4, 3, requires_grad=True)
    assert r1_penalty((x * scale).sum(dim=1), x).item() == pytest.approx(14.0)
    assert r1_penalty((x * scale).sum(), x, scale=0.5).item() == pytest.approx(7.0)
    assert r1_penalty(x * scale, x, reduction="sum").item() == pytest.approx(56.0)
    assert_close(r1_penalty(x * scale, x, reduction="none"), torch.full((4,), 14.0))
    assert_close(r1_penalty_of(lambda x: x * scale, x, reduction="none"), torch.full((4,), 14.0))


def test_lazy_r1():
    network, real, _, args = make("residual")
    r1 = R1(network, weight=5.0, interval=4)
    expected = r1_penalty_of(network, real, *args)
    terms = [r1(real, step, *args) for step in range(8)]
    assert [bool(term.loss) for term in terms] == [True, False, False, False] * 2
    assert_close(terms[0].penalty, expected.detach())
    assert_close(terms[4].loss, 20 * expected)
    assert not terms[0].penalty.requires_grad and not terms[1].loss.requires_grad
    compiled = R1(network, weight=5.0, interval=4, compile=True)(real, 0, *args)
    assert_close(compiled.loss, terms[0].loss)
    assert_same(
        gradients_of(compiled.loss, network), [g.double() for g in gradients_of(20 * expected, network)]
    )
    for arguments, message in (
        ((-1.0,), "weight must not be negative, got -1"),
        ((1.0, 0), "interval must be at"),
    ):
        with pytest.raises(ValueError, match=message):
            R1(network, *arguments)


def test_the_part_of_the_output_that_scores():
    network, real, fake, _ = make("patch")
    double = lambda x: (network(x).mean(dim=(1, 2, 3)), network(x))  # noqa: E731
    first = lambda returned: returned[0]  # noqa: E731
    assert_close(
        r1_penalty_of(double, real, output=first),
        r1_penalty_of(lambda x: network(x).mean(dim=(1, 2, 3)), real),
    )
    assert gradient_penalty(double, real, fake, output=first) > 0
    assert R1(double, 1.0, output=first)(real, 0).penalty > 0
    assert approximate_r1(double, real, 0.1, output=first) > 0
    for call in (
        lambda: r1_penalty_of(double, real), lambda: gradient_penalty(double, real, fake),
        lambda: approximate_r1(double, real, 0.1),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"return its logits as one tensor, got tuple: .*output=lambda"):
            call()


def test_approximate_r1_approaches_r1_for_small_steps_of_a_smooth_critic():
    torch.manual_seed(2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    x = torch.rand(3000, 3, 4, 4).double()
    exact = r1_penalty_of(network, x).item()
    errors = [abs(approximate_r1(network, x, s).item() / s**2 / exact - 1) for s in (3.0, 0.01)]
    assert errors[1] < 0.08 < errors[0], "the mean of 3000 squared normals errs by 2.6%"
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        approximate_r1(network, x, 0)


def test_approximate_r1_trains_without_double_backward():
    network, real, _, args = make("residual")
    penalty = approximate_r1(network, real, 0.1, *args, generator=torch.Generator().manual_seed(0))
    assert any(g.any() for g in gradients_of(penalty, network))


# --- mixed precision, several processes ---------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_changes_nothing(device):
    network, real, fake, args = make("residual")
    network.to(device)
    real, fake, args = real.to(device), fake.to(device), tuple(a.to(device) for a in args)
    for function in (
        lambda: r1_penalty_of(network, real, *args), lambda: R1(network, 1.0)(real, 0, *args).loss,
        lambda: gradient_penalty(network, real, fake, *args, mode="fake"),
    ):  # fmt: skip
        expected = gradients_of(function(), network)
        with torch.autocast(device, torch.bfloat16):
            actual = gradients_of(function(), network)
        if device == "cpu":
            assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
        assert_same(actual, [g.cpu().double() for g in expected])


def test_logits_from_autocast_are_warned_of_once(monkeypatch):
    monkeypatch.setattr(_input_gradient, "_warned", set())
    network, real, _, _ = make("dcgan")
    x = real.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    with pytest.warns(RuntimeWarning, match="bfloat16 logits is some percent off") as caught:
        r1_penalty(logits, x)
    assert caught[0].filename == __file__
    with pytest.warns(RuntimeWarning, match="float16 logits .* underflow or overflow: .*scaler=") as caught:
        r1_penalty(network.half()(x.half()), x)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            r1_penalty(network(x.half()), x)


@pytest.mark.filterwarnings("ignore:a penalty of float16 logits")
@pytest.mark.parametrize("scale", [None, 1.0, 2.0**10, 2.0**15, 2.0**16])
@pytest.mark.parametrize("kind", ["mlp", "dcgan", "residual", "spectral"])
def test_float16_logits_come_close_to_float64(kind, scale):
    """Without a scaler, and with one at any scale, 65536 among them, which float16 itself cannot hold."""
    network, real, _, args = make(kind)
    network.eval()
    exact, x = copy.deepcopy(network).double(), real.double().requires_grad_()
    expected = r1_penalty(exact(x, *args), x)
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    x = real.clone().requires_grad_()
    with torch.autocast("cpu", torch.float16):
        logits = network(x, *args)
    assert logits.dtype == torch.float16
    penalty = r1_penalty(logits, x, scaler=scaler)
    assert abs(penalty.item() / expected.item() - 1) < 1e-3
    scaled = penalty if scaler is None else scaler.scale(penalty)
    found = [gradient / (scale or 1.0) for gradient in gradients_of(scaled, network)]
    wanted = gradients_of(expected, exact)
    distance = sum((a - b).square().sum() for a, b in zip(found, wanted, strict=True)).sqrt()
    norm = sum(b.square().sum() for b in wanted).sqrt()
    assert distance <= (0.02 if scale in (None, 1.0) else 0.002) * norm


@pytest.mark.parametrize("device", DEVICES)
def test_grad_scaler(device):
    """Scaled inner gradient, unscaled by r1_penalty; scaled outer loss, unscaled by the scaler."""
    network, real, _, _ = make("dcgan")
    network.to(device)
    x = real.to(device).requires_grad_()
    expected = [g.cpu().double() for g in gradients_of(r1_penalty(network(x), x), network)]
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    scaler.scale(r1_penalty(network(x), x, scaler=scaler)).backward()
    scaler.unscale_(optimizer)
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    assert_same(found, expected)

    if device == "cuda":
        with torch.autocast("cuda", torch.float16):
            logits = network(x)
        penalty = r1_penalty(logits, x, scaler=scaler)
        assert_same(gradients_of(penalty, network), expected, tolerance=0.05)
    off = torch.amp.GradScaler(device, enabled=False)
    assert torch.equal(r1_penalty(network(x), x, scaler=off), r1_penalty(network(x), x))


@pytest.mark.gpu
def test_a_penalty_step_can_be_captured_in_a_cuda_graph():
    network, real, _, args = make("residual")
    network.cuda()
    real, args = real.cuda(), tuple(a.cuda() for a in args)
    parameters = list(network.parameters())

    def step():
        for parameter in parameters:
            parameter.grad = None
        r1_penalty_of(network, real, *args).backward()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    expected = [p.grad.clone() for p in parameters]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert_close(parameter.grad, gradient)


PROCESSES = """
import sys, torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from fastgan.losses import R1, gradient_penalty, r1_penalty_of
from tests.losses.critics import make

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
out = {}
for kind in ("dcgan", "residual"):
    # Each process compiles for seconds, and networks make no difference to what the processes exchange.
    for how in ("with_loss", "alone", "compiled")[: 3 if kind == "dcgan" else 2]:
        network, real, fake, args = make(kind)
        mine = slice(2 * rank, 2 * rank + 2)
        wrapped = DDP(network)
        args = tuple(a[mine] for a in args)
        lazy = R1(wrapped, 10.0, interval=1, compile=how == "compiled")
        penalty = lazy(real[mine], 0, *args).loss
        loss = nn.functional.softplus(wrapped(fake[mine], *args)).mean()
        (penalty if how == "alone" else penalty + loss).backward()
        out[kind, how] = [p.grad.clone() for p in network.parameters()]
if rank == 0:
    torch.save(out, sys.argv[1])
"""


def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    results = tmp_path / "gradients.pt"
    run_script(PROCESSES, tmp_path, results, processes=2)
    for (kind, how), found in torch.load(results).items():
        network, real, fake, args = make(kind)
        loss = 10 * r1_penalty_of(network, real, *args)
        if how != "alone":
            loss = loss + nn.functional.softplus(network(fake, *args)).mean()
        expected = [g.double() for g in gradients_of(loss, network)]
        assert_same(found, expected, tolerance=1e-6)


# --- what cannot be done ------------------------------------------------------------------------------------


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
    r1_penalty_of(critic(), real)
    assert torch.equal(real, copies[0]) and torch.equal(fake, copies[1])
    assert not real.requires_grad and not fake.requires_grad


def test_batch_normalization_is_refused_unless_allowed():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    real, fake = torch.rand(2, 4, 3, 8, 8)
    with pytest.raises(ValueError, match="layer '1' is batch normalization, which mixes the samples"):
        gradient_penalty(network, real, fake)
    assert gradient_penalty(network, real, fake, allow_batch_norm=True).isfinite()
    assert gradient_penalty(network.eval(), real, fake).isfinite()
    assert r1_penalty_of(network.train(), real).isfinite()


@pytest.mark.parametrize("shape", ["flattened", "squeezed", "a row", "a sum"])
def test_logits_of_any_shape_have_the_gradient_of_their_sum(shape):
    network, real, fake, _ = make("patch")
    count = 1 if shape == "squeezed" else 4
    real, fake = real[:count], fake[:count]
    reshaped = {
        "flattened": lambda x: network(x).flatten(), "squeezed": lambda x: network(x).squeeze(),
        "a row": lambda x: network(x).reshape(1, -1), "a sum": lambda x: network(x).sum(),
    }[shape]  # fmt: skip
    x = real.clone().requires_grad_()
    for penalty in (
        lambda d: r1_penalty(d(x), x, reduction="none"), lambda d: r1_penalty_of(d, real),
        lambda d: gradient_penalty(d, real, fake, mode="real"), lambda d: R1(d, 1.0)(real, 0).loss,
    ):  # fmt: skip
        assert_close(penalty(reshaped), penalty(network))
    if shape == "flattened":
        compiled = torch.compile(lambda x: r1_penalty_of(reshaped, x), fullgraph=True)
        assert_close(compiled(real), r1_penalty_of(network, real))
    if shape == "a sum":
        with pytest.raises(ValueError, match="one logit or more per sample, got their sum"):
            approximate_r1(reshaped, real, 0.1)
    else:
        seeded = [
            approximate_r1(d, real, 0.1, generator=torch.Generator().manual_seed(1))
            for d in (network, reshaped)
        ]
        assert_close(*seeded)


def test_logits_of_another_batch_are_refused():
    x = torch.rand(4, 3, requires_grad=True)
    with pytest.raises(ValueError, match=r"got 6 in logits of shape \(2, 3\) and 4 samples in x"):
        r1_penalty(x.flatten()[:6].reshape(2, 3), x)
    with pytest.raises(ValueError, match="as many for each sample, got 3 in"):
        r1_penalty_of(lambda x: x[:3, 0], x)
    with pytest.raises(ValueError, match="the logits do not depend on x"):
        r1_penalty_of(lambda x: torch.rand(4, requires_grad=True) * 2, x)
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'max'"):
        r1_penalty(x, x, reduction="max")
    for option, message in (
        ({"mode": "both"}, "mode must be one of interpolate, real, fake, dragan, got 'both'"),
        ({"norm": "max"}, "norm must be one of sample, channel, got 'max'"),
    ):
        with pytest.raises(ValueError, match=message):
            gradient_penalty(lambda x: x, x, x, **option)
    with pytest.raises(ValueError, match="mode 'interpolate' needs fake samples, got None"):
        gradient_penalty(lambda x: x, x, None)


def test_what_cannot_be_differentiated_is_named():
    x = torch.rand(2, 3)
    with pytest.raises(ValueError, match="x must require grad before the network sees it"):
        r1_penalty(x.sum(dim=1), x)
    x.requires_grad_()
    with torch.no_grad():
        logits = x.sum(dim=1)
    with pytest.raises(ValueError, match="do not depend on x, got .*: were they computed under no_grad"):
        r1_penalty(logits, x)
    with pytest.raises(ValueError, match="was another tensor given"):
        r1_penalty(torch.rand(2, requires_grad=True) * 2, x)
    with pytest.raises(TypeError, match="logits must be one tensor, got tuple"):
        r1_penalty((x.sum(),), x)
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(2, 4\)"):
        gradient_penalty(lambda x: x, torch.rand(2, 3), torch.rand(2, 4))
    with pytest.raises(ValueError, match="center must not be negative, got -1"):
        gradient_penalty(lambda x: x, torch.rand(2, 3), torch.rand(2, 3), center=-1)


def test_wrappers_that_lose_second_order_gradients_are_refused(tmp_path):
    x = torch.rand(2, 3)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/s", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(nn.Linear(3, 1), static_graph=True)
        with pytest.raises(ValueError, match="static_graph=False"):
            gradient_penalty(wrapped, x, x)
    finally:
        torch.distributed.destroy_process_group()


def test_buffers_follow_a_compiled_penalty():
    """Batch normalization in training changes its statistics inside the transform."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Conv2d(4, 1, 6)).double()
    again, x = copy.deepcopy(network), images()
    compiled = torch.compile(lambda x: r1_penalty_of(network, x), fullgraph=True)
    for _ in range(2):
        assert_same(gradients_of(compiled(x), network), gradients_of(r1_penalty_of(again, x), again), 1e-9)
    assert_close(network.state_dict(), again.state_dict())


def test_fused_activations_in_a_compiled_penalty():
    """What a fused op registers as its gradient has no second order under a transform, without an error."""

    class Activation(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.linspace(-1, 1, 4, dtype=torch.float64))

        def forward(self, x):
            return bias_leaky_relu(x, self.bias, slope=0.2)

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), Activation(), nn.Conv2d(4, 4, 3), nn.Softplus(), nn.Conv2d(4, 1, 4)
    ).double()  # fmt: skip
    x = images()
    compiled = torch.compile(lambda x: r1_penalty_of(network, x), fullgraph=True)(x)
    expected = gradients_of(r1_penalty_of(network, x), network)
    assert all(gradient.any() for gradient in expected[:3])
    assert_same(gradients_of(compiled, network), expected, 1e-9)


def test_fakes_of_another_type_than_the_reals():
    """As a generator under autocast makes them."""
    real, fake = torch.rand(2, 3), torch.rand(2, 3).bfloat16()
    assert gradient_penalty(lambda x: x.square().sum(1), real, fake).dtype == torch.float32
