"""DISTS against the dists-pytorch package with the same backbone, and its errors."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

import fastgan
from fastgan import use
from fastgan.compat.dists_pytorch import DISTS as CompatDISTS
from fastgan.losses import DISTS, DISTSLoss, dists_head
from fastgan.losses._frozen import L2Pooling, run_frozen
from tests.losses.backbones import install_backbone


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("DISTS_pytorch")


@pytest.fixture(scope="module")
def photographs():
    """Noisy crops of photographs, and the crops themselves, in [0, 1]."""
    data = pytest.importorskip("skimage.data")
    cat = torch.from_numpy(data.chelsea()[40:137, 60:171]).permute(2, 0, 1).float() / 255
    cup = torch.from_numpy(data.coffee()[100:197, 80:191]).permute(2, 0, 1).float() / 255
    real = torch.stack([cat, cup])
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    return (real + 0.1 * noise).clamp(0, 1), real


@pytest.fixture(scope="module")
def ours():
    return DISTS(load_weights=False, weights=None)


@pytest.fixture(scope="module")
def theirs(package, ours):
    """The package's, with the same state."""
    with pytest.MonkeyPatch.context() as context, torch.device("meta"):
        from torchvision import models

        vgg16 = models.vgg16
        context.setattr(models, "vgg16", lambda **_: vgg16(weights=None))
        metric = package.DISTS(load_weights=False)
    metric.to_empty(device="cpu").load_state_dict(ours.state_dict())
    return metric


def images_of(kind, photographs):
    if kind == "photographs":
        return photographs
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 1, 3, *((33, 47) if kind == "odd" else (1, 5)), generator=generator)


@pytest.mark.parametrize("kind", ["photographs", "odd", "tiny"])
def test_values_and_gradients_are_those_of_the_package(ours, theirs, kind, photographs):
    x, y = images_of(kind, photographs)
    results = []
    for call in (ours, lambda x, y: theirs(x, y, require_grad=True).reshape(-1)):
        leaves = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = call(*leaves)
        results.append((value, *torch.autograd.grad((value * value.detach()).sum(), leaves)))
    assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    for one, other in zip(results[0][1:], results[1][1:], strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm()


def test_channels_are_weighed_as_in_the_package(package, theirs, photographs):
    shipped = DISTS(weights=None)
    state = torch.load(package.__path__[0] + "/weights.pt", map_location="cpu")
    assert torch.equal(shipped.alpha, state["alpha"]) and torch.equal(shipped.beta, state["beta"])
    theirs.load_state_dict(shipped.state_dict())
    assert_close(shipped(*photographs), theirs(*photographs), rtol=1e-5, atol=1e-5)
    other = DISTS(load_weights=False, weights=None, seed=7)
    other.load_state_dict(theirs.state_dict())
    assert_close(other(*photographs), shipped(*photographs), rtol=0, atol=0)


def test_the_drop_in_has_the_packages_arguments(theirs, photographs):
    drop_in = CompatDISTS(load_weights=False, weights=None)
    drop_in.load_state_dict(theirs.state_dict())
    x, y = photographs
    leaf = x.clone().requires_grad_()
    for options in (
        {},
        {"batch_average": True},
        {"require_grad": True},
        {"require_grad": True, "batch_average": True},
    ):
        for images in ((leaf, y), (leaf[:1], y[:1])):
            value, expected = drop_in(*images, **options), theirs(*images, **options)
            assert value.shape == expected.shape
            assert value.requires_grad is options.get("require_grad", False)
            assert_close(value, expected, rtol=1e-5, atol=1e-5)


def test_a_patch_serves_the_package_itself(theirs, photographs):
    x, y = photographs

    def results():
        leaf = x.clone().requires_grad_()
        for each in (theirs.alpha, theirs.beta):
            each.grad = None
        value = theirs(leaf, y, require_grad=True, batch_average=True)
        value.backward()
        return value, leaf.grad, theirs.alpha.grad, theirs.beta.grad, theirs(leaf, y)

    expected = results()
    with fastgan.patch("dists_pytorch", quiet=True) as report:
        assert report.replaced == ["DISTS_pytorch.DISTS_pt.DISTS.forward"]
        for one, other in zip(results(), expected, strict=True):
            assert one.shape == other.shape and one.requires_grad == other.requires_grad
            assert (one - other).norm() <= 1e-3 * other.norm()


def test_equal_images_have_no_distance(ours, photographs):
    leaf = photographs[1].clone().requires_grad_()
    value = ours(leaf, photographs[1])
    assert not value.any()
    assert torch.autograd.grad(value.sum(), leaf)[0].isfinite().all()
    constant = torch.full((1, 3, 20, 20), 0.3).requires_grad_()
    value = ours(constant, torch.full((1, 3, 20, 20), 0.6))
    assert value.isfinite().all() and torch.autograd.grad(value.sum(), constant)[0].isfinite().all()


def test_precomputed_targets_a_single_target_and_grey_images(ours, photographs):
    x, y = photographs
    features = ours.precompute(y)
    assert not any(layer.requires_grad for layer in features.layers)
    assert_close(ours(x, features), ours(x, y))
    assert_close(ours(x, y[:1]), torch.cat([ours(x[:1], y[:1]), ours(x[1:], y[:1])]))
    assert_close(ours(x[0], y[0]), ours(x[:1], y[:1]))
    grey = x[:, :1]
    assert_close(ours(grey, grey.flip(3)), ours(grey.expand_as(x), grey.flip(3).expand_as(x)))


def test_reductions_ranges_and_the_loss(ours, photographs):
    value = ours(*photographs)
    options = {"load_weights": False, "weights": None}
    assert_close(DISTS(**options, reduction="mean")(*photographs), value.mean())
    assert_close(DISTS(**options, reduction="sum")(*photographs), value.sum())
    assert_close(DISTS(**options, value_range=(-1, 1))(*(2 * image - 1 for image in photographs)), value)
    assert_close(DISTSLoss(0.5, **options)(*photographs), 0.5 * value.mean())
    with pytest.warns(RuntimeWarning, match=r"value_range=\(-1, 1\)"):
        DISTS(**options)(*(2 * image - 1 for image in photographs))


def test_half_types_and_channels_last(ours, photographs):
    value = ours(*photographs)
    options = {"load_weights": False, "weights": None}
    last = DISTS(**options, channels_last=True)
    assert_close(last(*photographs), value, rtol=1e-4, atol=1e-5)
    leaf = photographs[0].clone().requires_grad_()
    of_leaf = last(leaf, photographs[1])
    assert torch.autograd.grad(of_leaf.sum(), leaf)[0].isfinite().all()
    half = DISTS(**options, autocast=torch.bfloat16)(leaf, photographs[1])
    assert half.dtype == torch.float32
    assert_close(half, value, rtol=0.05, atol=0.01)
    assert torch.autograd.grad(half.sum(), leaf)[0].isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(ours(*photographs), half.detach(), rtol=0.02, atol=1e-3)


def test_the_metric_is_frozen_and_keeps_less_than_the_package(ours, theirs, photographs):
    torch.nn.ModuleList([ours]).train()
    assert not any(module.training for module in ours.modules())
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    x, target, sizes = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64), []
    for call in (ours, lambda x, y: theirs(x, y, require_grad=True)):
        saved = {}
        state = {t.untyped_storage().data_ptr() for m in (ours, theirs) for t in m.state_dict().values()}

        def keep(tensor, saved=saved, state=state):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in state:
                saved[storage.data_ptr()] = (tensor, storage.nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            call(x, target)
        sizes.append(sum(nbytes for _, nbytes in saved.values()))
    assert sizes[0] < 0.6 * sizes[1]


def test_second_order_gradients_are_those_of_the_reference(photographs):
    loss = DISTS(load_weights=False, weights=None).double()
    x, y = (image[:1, :, :12, :13].double() for image in photographs)
    results = []
    for backend in ("native", "reference"):
        leaf = x.clone().requires_grad_()
        with use(backend):
            (first,) = torch.autograd.grad(loss(leaf, y).sum(), leaf, create_graph=True)
            results.append((first, *torch.autograd.grad(first.square().sum(), leaf)))
    for one, other in zip(*results, strict=True):
        assert one.any()
        assert_close(one, other, rtol=1e-8, atol=1e-12)


def test_l2_pooling_has_its_gradient_without_the_graph_of_squares():
    pooling = L2Pooling(3).double()
    x = torch.rand(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    frozen = lambda x: run_frozen(pooling, [x])  # noqa: E731
    assert_close(frozen(x), pooling(x))
    assert_close(torch.autograd.grad(frozen(x).sum(), x), torch.autograd.grad(pooling(x).sum(), x))
    assert torch.autograd.gradcheck(frozen, x) and torch.autograd.gradgradcheck(frozen, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_l2_pooling_of_half_types_is_that_of_float32(dtype):
    x = 300 * torch.rand(1, 3, 8, 9).to(dtype)  # whose squares overflow in float16
    x[..., 4:] = 0
    pooling, gradients = L2Pooling(3), []
    for of_call in (pooling, lambda x: run_frozen(pooling, [x])):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = of_call(leaf)
        assert y.dtype == dtype
        assert_close(y.float(), pooling(x.float()), rtol=1e-2, atol=1e-6)
        gradients.append(torch.autograd.grad(y.float().sum(), leaf)[0])
        assert gradients[-1].dtype == dtype and gradients[-1].isfinite().all()
    assert_close(*gradients)


def test_compiles_as_one_graph(ours, photographs):
    gradients = []
    for function in (ours, torch.compile(ours, fullgraph=True)):
        x = photographs[0][..., :40, :48].clone().requires_grad_()
        value = function(x, photographs[1][..., :40, :48])
        gradients.append((value, *torch.autograd.grad(value.sum(), x)))
    assert_close(gradients[1][0], gradients[0][0], rtol=1e-4, atol=1e-6)
    assert (gradients[1][1] - gradients[0][1]).norm() <= 1e-3 * gradients[0][1].norm()


def test_weights_of_the_backbone_come_from_torch_hub(monkeypatch, tmp_path, photographs):
    weights = install_backbone(monkeypatch, tmp_path, "vgg16")
    loss = DISTS(load_weights=False)
    assert torch.equal(loss.stage2.get_submodule("5").weight, weights["features.5.weight"])
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"DISTS needs the weights .*download.pytorch.org/models/vgg16"
    ):
        DISTS(load_weights=False)


def test_the_head_alone_is_the_formula():
    maps = [torch.rand(2, c, 7, 9) for c in (3, 5)], [torch.rand(2, c, 7, 9) for c in (3, 5)]
    alpha, beta = torch.rand(8), torch.rand(1, 8, 1, 1)
    expected = torch.zeros(2, dtype=torch.float64)
    for n in range(2):
        for c in range(8):
            a, b = (side[c >= 3][n, c - 3 * (c >= 3)].double().flatten() for side in maps)
            texture = (2 * a.mean() * b.mean() + 1e-6) / (a.mean() ** 2 + b.mean() ** 2 + 1e-6)
            covariance = ((a - a.mean()) * (b - b.mean())).mean()
            structure = (2 * covariance + 1e-6) / (a.var(correction=0) + b.var(correction=0) + 1e-6)
            expected[n] += alpha[c] * (1 - texture) + beta.flatten()[c] * (1 - structure)
    assert_close(dists_head(*maps, alpha, beta).double(), expected / (alpha.sum() + beta.sum()))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda loss, x: loss(x, x[:, :2]),
            ValueError,
            r"y must have shape \(N, 3, H, W\), got \(2, 2, 8, 8\)",
        ),
        (lambda loss, x: loss(x, x[..., :7]), ValueError, r"x and y must have one shape, got"),
        (lambda loss, x: loss(x.double(), x), TypeError, "x must be of the network's type, torch.float32"),
        (lambda loss, x: loss(x, None), TypeError, "y must be a tensor, got None"),
        (lambda loss, x: DISTS(3), TypeError, "load_weights must be True or False, got int 3"),
        (lambda loss, x: DISTS(reduction="batch"), ValueError, "reduction must be one of none, mean, sum"),
        (lambda loss, x: DISTS(value_range=(0, 255)), ValueError, "value_range must be"),
        (
            lambda loss, x: DISTS(weights=None, model_path=3),
            TypeError,
            "model_path must be the path of a file",
        ),
        (lambda loss, x: DISTS(weights=None, model_path="no"), FileNotFoundError, "alpha and beta, got 'no'"),
        (
            lambda loss, x: dists_head([x], [], x, x),
            ValueError,
            "must be as many maps, at least one, got 1 and 0",
        ),
        (
            lambda loss, x: dists_head([x], [x], torch.ones(3), torch.ones(2)),
            ValueError,
            "beta must have a number",
        ),
    ],
)
def test_errors(ours, call, error, message):
    with pytest.raises(error, match=message):
        call(ours, torch.rand(2, 3, 8, 8))


def test_missing_weights_of_channels_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="dists-pytorch package, which is not installed"):
        DISTS(weights=None)
    file = tmp_path / "weights.pt"
    torch.save({"alpha": torch.ones(1, 1475, 1, 1)}, file)
    with pytest.raises(ValueError, match="has not beta"):
        DISTS(weights=None, model_path=file)
    torch.save({"alpha": torch.ones(1, 1475, 1, 1), "beta": torch.zeros(1, 1475, 1, 1)}, file)
    assert DISTS(weights=None, model_path=file).alpha.sum() == 1475
