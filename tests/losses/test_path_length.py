"""Path length regularization against its formula in float64, compiled and not, and its running mean."""

from __future__ import annotations

import copy
import functools
import io

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from fastgan.compat import basicsr, rosinality, studiogan
from fastgan.losses import AdversarialLoss, PathLength, path_length_penalty, path_length_penalty_of
from fastgan.ops import bias_act
from fastgan.training.balance import Adaptive


class Generator(nn.Module):
    """A mapping of noise to latents, and a synthesis whose layers take one latent each, or all the same."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = layers
        self.mapping = nn.Linear(6, 5)
        self.constant = nn.Parameter(torch.randn(1, 4, 4, 5))
        self.styles = nn.ModuleList(nn.Linear(5, 4) for _ in range(layers))
        self.convolutions = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(layers))
        self.biases = nn.ParameterList(torch.randn(4) for _ in range(layers))
        self.to_rgb = nn.Conv2d(4, 3, 1)

    def latents(self, z, layered=True):
        w = self.mapping(z)
        return w.tanh()[:, None].repeat(1, self.layers, 1) if layered else w.tanh()

    def forward(self, w):
        x = self.constant
        for number, (style, convolution) in enumerate(zip(self.styles, self.convolutions, strict=True)):
            own = w[:, number] if w.dim() == 3 else w
            x = bias_act(convolution(x * style(own)[:, :, None, None]), self.biases[number], act="swish")
        return self.to_rgb(x)


def formula(images, latents, mean, decay, noise):
    noise = noise / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((images * noise).sum(), latents, create_graph=True)
    if gradient.dim() == 2:
        gradient = gradient[:, None]
    lengths = gradient.square().sum(2).mean(1).sqrt()
    moved = mean + decay * (lengths.mean() - mean)
    return (lengths - moved).square().mean(), moved, lengths


def inputs(dtype=torch.float32, layered=True):
    network = Generator().to(dtype)
    generator = torch.Generator().manual_seed(1)
    z, noise = torch.randn(4, 6, generator=generator), torch.randn(4, 3, 4, 5, generator=generator)
    return network, z.to(dtype), noise.to(dtype)


def gradients_of(penalty, network):
    parameters = list(network.parameters())
    found = torch.autograd.grad(penalty, parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


FORMS = {
    "of images": lambda network, w, *rest: path_length_penalty(network(w), w, *rest),
    "of a generator": lambda network, w, mean, decay, noise: path_length_penalty_of(
        network, w, mean, decay=decay, noise=noise
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layered", [True, False], ids=["N L D", "N D"])
@pytest.mark.parametrize("mean", [0, 0.7, torch.tensor(0.7)], ids=str)
def test_penalty_and_its_gradients_equal_the_formula_in_float64(form, layered, mean):
    """Those of the mapping included, which the latents' graph leads to."""
    network, z, noise = inputs(layered=layered)
    found = FORMS[form](network, network.latents(z, layered), mean, 0.1, noise)
    exact = copy.deepcopy(network).double()
    w = exact.latents(z.double(), layered)
    expected = formula(exact(w), w, float(mean), 0.1, noise.double())
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert_close(one.double(), other, rtol=1e-5, atol=1e-7)
    assert not found.mean.requires_grad and not found.lengths.requires_grad
    wanted = gradients_of(expected[0], exact)
    assert wanted[-1].any() or wanted[0].any()
    largest = max(gradient.norm() for gradient in wanted)
    for one, other in zip(gradients_of(found.penalty, network), wanted, strict=True):
        assert (one.double() - other).norm() <= 1e-5 * largest


def test_second_derivatives_of_the_penalty_are_exact():
    network, z, noise = inputs(torch.float64)
    w = network.latents(z).detach()[:2].requires_grad_()

    def penalty(scale):
        x = w * scale
        return path_length_penalty(network(x), x, 0.5, 0.1, noise[:2]).penalty

    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(penalty, scale)
    assert torch.autograd.gradgradcheck(penalty, scale)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_into_one_graph_with_the_generator(backend):
    network, z, noise = inputs()
    again = copy.deepcopy(network)

    def loss(network):
        w = network.latents(z)
        return network(w).mean() + path_length_penalty_of(network, w, 0.5, decay=0.1, noise=noise).penalty

    torch._dynamo.reset()
    compiled = torch.compile(lambda: loss(network), fullgraph=True, backend=backend)()
    expected = loss(again)
    assert_close(compiled, expected)
    for one, other in zip(gradients_of(compiled, network), gradients_of(expected, again), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_no_value_is_read_on_the_host():
    with FakeTensorMode():
        w = torch.empty(2, 3, 5, requires_grad=True)
        images = (w.sum(1) @ torch.empty(5, 3 * 4 * 4)).tanh().reshape(2, 3, 4, 4)
        path_length_penalty(images, w, torch.empty(()), generator=None).penalty.backward()


def test_the_noise_is_drawn_as_randn_like_draws_it_or_by_the_generator():
    network, z, _ = inputs()
    w = network.latents(z)
    images = network(w)
    torch.manual_seed(3)
    drawn = path_length_penalty(images, w, 0.0)
    torch.manual_seed(3)
    assert_close(drawn, path_length_penalty(images, w, 0.0, noise=torch.randn_like(images)))
    own = torch.Generator().manual_seed(5)
    state = torch.get_rng_state()
    drawn = path_length_penalty(images, w, 0.0, generator=own)
    assert torch.equal(torch.get_rng_state(), state)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    assert_close(drawn, path_length_penalty(images, w, 0.0, noise=noise))


def test_a_path_of_length_zero_has_the_gradient_zero_and_nan_stays():
    scale = torch.zeros((), requires_grad=True)
    w = torch.randn(2, 5, requires_grad=True)
    images = (scale * w).sum(1)[:, None, None, None].expand(2, 3, 4, 4)
    found = path_length_penalty(images, w, 1.0)
    assert found.lengths.tolist() == [0, 0] and found.penalty.item() == pytest.approx(0.99**2)
    assert torch.autograd.grad(found.penalty, scale)[0] == 0
    found = path_length_penalty(images * torch.nan, w, 1.0)
    assert found.penalty.isnan() and found.lengths.isnan().all()


def test_a_generator_runs_in_float32_outside_of_autocast():
    network, z, noise = inputs()
    w = network.latents(z).detach()
    expected = path_length_penalty_of(network, w, 0.0, noise=noise)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(path_length_penalty_of(network, w, 0.0, noise=noise), expected, rtol=0, atol=0)


# --- the running mean -----------------------------------------------------------------------------------


@pytest.mark.parametrize("compile", [False, True])
def test_the_running_mean_moves_and_is_in_the_state(compile, monkeypatch):
    # Inductor's code is another test's subject.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    network, z, noise = inputs()
    regularizer = PathLength(weight=3.0, interval=4, decay=0.25, compile=compile)
    mean = 0.0
    for _ in range(3):
        w = network.latents(z)
        expected = path_length_penalty(network(w), w, mean, 0.25, noise)
        term = regularizer.of(network, network.latents(z), noise=noise)
        mean = expected.mean.item()
        assert regularizer.mean.item() == pytest.approx(mean, rel=1e-5)
        assert_close(term.loss, 12 * expected.penalty)
        assert_close((term.penalty, term.lengths), (expected.penalty.detach(), expected.lengths))
        for one, other in zip(
            gradients_of(term.loss, network), gradients_of(12 * expected.penalty, network), strict=True
        ):
            assert_close(one, other, rtol=1e-4, atol=1e-5)
    fresh = PathLength()
    fresh.load_state_dict(regularizer.state_dict())
    assert fresh.mean.item() == regularizer.mean.item()
    assert list(regularizer.state_dict()) == ["mean"] and not list(regularizer.parameters())
    assert copy.deepcopy(regularizer).mean.item() == regularizer.mean.item()
    torch.save(regularizer, io.BytesIO())


def test_terms_of_images_equal_those_of_the_generator():
    network, z, noise = inputs()
    w = network.latents(z)
    first, second = PathLength(), PathLength()
    assert_close(first(network(w), w, noise), second.of(network, w, noise=noise))
    assert_close(first.mean, second.mean)


def test_processes_average_their_running_means():
    network, z, noise = inputs()
    w = network.latents(z)
    regularizer = PathLength(decay=0.5)
    regularizer.average = lambda value: (value + 3) / 2
    lengths = regularizer(network(w), w, noise).lengths
    assert regularizer.mean.item() == pytest.approx((lengths.mean().item() / 2 + 3) / 2)


AVERAGING = {"PathLength": PathLength, "Adaptive": Adaptive}


@pytest.mark.parametrize("kind", AVERAGING)
def test_a_module_may_be_what_averages_and_is_no_part_of_the_state(kind):
    averaging = AVERAGING[kind]()
    names = list(averaging.state_dict())
    averaging.average = nn.Linear(1, 1)
    averaging.average.weight.data.fill_(3.0), averaging.average.bias.data.zero_()
    assert averaging._averaged(torch.ones(1)).item() == 3
    assert list(averaging.state_dict()) == names and not list(averaging.parameters())


@pytest.mark.parametrize("kind", AVERAGING)
def test_what_cannot_average_is_refused(kind):
    averaging = AVERAGING[kind]()
    for value in (0.5, torch.ones(1), nn.Parameter(torch.ones(1)), None):
        with pytest.raises(TypeError, match="average must be callable, got"):
            averaging.average = value
    averaging.average = lambda value: None  # as torch.distributed.all_reduce
    with pytest.raises(TypeError, match="average must return the averaged tensor, got None"):
        step_of(averaging)
    averaging.average = lambda value: value.expand(2)
    with pytest.raises(ValueError, match=r"average must return a tensor of shape \(\), got .*\(2,\)"):
        step_of(averaging)


def step_of(averaging):
    if isinstance(averaging, PathLength):
        network, z, noise = inputs()
        return averaging.of(network, network.latents(z), noise=noise)
    return averaging.discriminator_loss(AdversarialLoss("bce"), torch.randn(4, 1), torch.randn(4, 1))


@pytest.mark.parametrize("kind", AVERAGING)
def test_running_means_of_modules_in_half_precision_do_not_stand_still(kind):
    half, single = AVERAGING[kind](), AVERAGING[kind]()
    half.to(torch.bfloat16)
    for _ in range(40):
        for averaging in (half, single):
            torch.manual_seed(1)
            step_of(averaging)
    names = list(single.state_dict())
    assert_close(half.state_dict(), single.state_dict())
    assert names and all(half.state_dict()[name].dtype == torch.float32 for name in names)


def test_due_steps():
    regularizer = PathLength(interval=4)
    assert [step for step in range(9) if regularizer.due(step)] == [0, 4, 8]


# --- other libraries' names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("mean", [0, torch.tensor(0.4)], ids=str)
def test_drop_ins_draw_and_compute_as_the_originals(mean, channels_last):
    network, z, _ = inputs()
    w = network.latents(z)
    images = network(w)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)

    def seeded(function):
        torch.manual_seed(3)
        return function()

    penalty, moved, lengths = seeded(lambda: formula(images, w, mean, 0.05, torch.randn_like(images)))
    ours = seeded(lambda: basicsr.g_path_regularize(images, w, mean, 0.05))
    assert_close(ours, (penalty, lengths.detach().mean(), moved.detach()))
    ours = seeded(lambda: rosinality.g_path_regularize(images, w, mean, 0.05))
    assert_close(ours, (penalty, moved.detach(), lengths))
    assert ours[2].requires_grad and not ours[1].requires_grad
    regularizer = studiogan.PathLengthRegularizer("cpu", 0.05, 3)
    regularizer.pl_mean.copy_(torch.as_tensor(float(mean)))
    assert_close(seeded(lambda: regularizer.cal_pl_reg(images, w)), 3 * penalty)
    assert_close(regularizer.pl_mean, moved.detach())
    for one, other in zip(gradients_of(ours[0], network), gradients_of(penalty, network), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6)


# --- errors -------------------------------------------------------------------------------------------------


def test_errors_name_what_is_wrong(tmp_path):
    network, z, _ = inputs()
    w = network.latents(z)
    images = network(w)
    with pytest.raises(ValueError, match=r"latents must have shape \(N, D\) or \(N, L, D\), .* got \(4,\)"):
        path_length_penalty(images, w[:, 0, 0], 0.0)
    with pytest.raises(ValueError, match="images must be those of latents, got 4 images and 2 latents"):
        path_length_penalty(images, w[:2], 0.0)
    with pytest.raises(ValueError, match=r"images must have shape \(N, C, H, W\), not empty, got \(4, 3\)"):
        path_length_penalty(images[:, :, 0, 0], w, 0.0)
    with pytest.raises(ValueError, match="latents must require grad before the network"):
        path_length_penalty(images, w.detach(), 0.0)
    with pytest.raises(ValueError, match="images do not depend on latents"):
        path_length_penalty(images, torch.rand(4, 3, 5, requires_grad=True), 0.0)
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\], got 1.5"):
        path_length_penalty(images, w, 0.0, 1.5)
    with pytest.raises(ValueError, match="noise and images must have the same shape"):
        path_length_penalty(images, w, 0.0, noise=torch.rand(4, 3, 4, 4))
    with pytest.raises(ValueError, match="mean must be a number or a 0-d tensor"):
        path_length_penalty(images, w, torch.rand(2))
    with pytest.raises(TypeError, match="generator must be a torch.Generator or None, got int 3"):
        path_length_penalty(images, w, 0.0, generator=3)
    for penalized in (functools.partial(path_length_penalty, images), PathLength().of):
        arguments = (w, 0.0) if isinstance(penalized, functools.partial) else (network, w)
        with pytest.raises(ValueError, match="give noise or a generator, not both"):
            penalized(*arguments, noise=torch.rand_like(images), generator=torch.Generator())
    with pytest.raises(TypeError, match="synthesis must be callable, got None"):
        path_length_penalty_of(None, w, 0.0)
    with pytest.raises(TypeError, match="synthesis must return its images as one tensor, got tuple"):
        path_length_penalty_of(lambda w: (network(w), 1), w, 0.0)
    with pytest.raises(ValueError, match="draw the noise, and give noise="):
        PathLength(compile=True).of(network, w, generator=torch.Generator())
    with pytest.raises(ValueError, match="weight must not be negative, got -1"):
        PathLength(weight=-1)
    with pytest.raises(ValueError, match="fake_img must be those of latents"):
        basicsr.g_path_regularize(images, w[:2], 0)
    picked = path_length_penalty_of(lambda w: (network(w), 1), w, 0.0, output=lambda returned: returned[0])
    assert picked.penalty.isfinite()
