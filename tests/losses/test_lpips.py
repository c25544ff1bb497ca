"""LPIPS against the lpips package with the same backbone, and its errors."""

import copy
import warnings

import pytest
import torch
from torch.testing import assert_close

from fastgan import use
from fastgan.losses import LPIPS, LPIPSLoss, PerceptualLoss
from fastgan.losses.lpips import lpips_weights_path
from tests.conftest import DEVICES
from tests.losses.backbones import install_backbone

package = pytest.importorskip("lpips")
NETS = {"alex": 31, "vgg": 16, "squeeze": 17}


def pair(net, **options):
    """LPIPS of fastgan and of the package, with the same backbone and the package's calibration."""
    ours = LPIPS(net=net, weights=None, **options)
    with warnings.catch_warnings(), torch.device("meta"):  # where a VGG's classifier takes no time
        warnings.simplefilter("ignore")
        theirs = package.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False, **options)
    theirs.to_empty(device="cpu").load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.fixture(scope="module")
def images():
    """Noisy crops of photographs, and the crops themselves, in [-1, 1]."""
    data = pytest.importorskip("skimage.data")
    cat = torch.from_numpy(data.chelsea()[40:137, 60:171]).permute(2, 0, 1).float() / 255
    cup = torch.from_numpy(data.coffee()[100:197, 80:191]).permute(2, 0, 1).float() / 255
    real = 2 * torch.stack([cat, cup]) - 1
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    return (real + 0.2 * noise).clamp(-1, 1), real


@pytest.mark.parametrize("lpips", [True, False])
@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("net", NETS)
def test_values_and_gradients_are_those_of_the_package(net, normalize, spatial, lpips, images):
    ours, theirs = pair(net, spatial=spatial, lpips=lpips)
    x, y = ((image + 1) / 2 if normalize else image for image in images)
    actual, expected = [], []
    for loss, results in ((ours, actual), (theirs, expected)):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        value, layers = loss(a, b, retPerLayer=True, normalize=normalize)
        results += [value, *layers, *torch.autograd.grad((value * value.detach()).sum(), (a, b))]
    count = len(actual) - 2
    for a, b in zip(actual[:count], expected[:count], strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-7)
    for a, b in zip(actual[count:], expected[count:], strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm()


@pytest.mark.parametrize("net", NETS)
def test_states_can_be_exchanged_with_the_package(net, images):
    ours, theirs = pair(net)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    other = LPIPS(net=net, weights=None, seed=7)
    assert not torch.equal(other(*images), ours(*images))
    other.load_state_dict(theirs.state_dict())
    assert_close(other(*images), ours(*images))
    calibration = torch.load(package.__path__[0] + f"/weights/v0.1/{net}.pth", map_location="cpu")
    for name, weight in calibration.items():
        assert torch.equal(ours.state_dict()[name], weight)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("net", NETS)
def test_precomputed_targets_give_the_same(net, device, images):
    loss = LPIPS(net=net, weights=None).to(device)
    x, y = (image.to(device) for image in images)
    features = loss.precompute(y)
    assert not any(layer.requires_grad for layer in features.layers)
    gradients = []
    for target in (y, features, features):
        a = x.clone().requires_grad_()
        value = loss(a, target)
        assert_close(value, loss(x, y))
        gradients.append(torch.autograd.grad(value.sum(), a)[0])
    assert_close(gradients[1], gradients[0])
    assert_close(gradients[2], gradients[0], rtol=0, atol=0)


def test_the_metric_is_frozen(images):
    loss = LPIPS(weights=None)
    torch.nn.ModuleList([loss]).train()
    assert not any(module.training for module in loss.modules())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    x = images[0].clone().requires_grad_()
    loss(x, images[1]).sum().backward()
    assert all(parameter.grad is None for parameter in loss.parameters())
    assert torch.equal(loss(*images), loss(*images))


def test_reductions_and_the_loss(images):
    value = LPIPS(weights=None, net="vgg")(*images)
    assert value.shape == (2, 1, 1, 1)
    assert_close(LPIPS(weights=None, net="vgg", reduction="mean")(*images), value.mean())
    assert_close(LPIPS(weights=None, net="vgg", reduction="sum")(*images), value.sum())
    unit = [(image + 1) / 2 for image in images]
    assert_close(LPIPSLoss(weights=None, loss_weight=0.5)(*unit), 0.5 * value.mean())


def test_weights_of_a_seed_do_not_touch_torchs_generator():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second = LPIPS(weights=None), LPIPS(weights=None)
    assert torch.equal(torch.rand(2), expected)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_memory_kept_for_backward(images):
    """At most a byte per activation, and the gradient of each layer."""
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    sizes = {}
    for name, loss in zip(("ours", "theirs"), pair("vgg"), strict=True):
        saved = {}
        target = 2 * torch.rand(1, 3, 64, 64) - 1
        weights = {parameter.untyped_storage().data_ptr() for parameter in loss.parameters()}

        def keep(tensor, saved=saved, weights=weights):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                saved[storage.data_ptr()] = (tensor, storage.nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss(x, target)
        sizes[name] = sum(nbytes for _, nbytes in saved.values())
    assert sizes["ours"] < 0.4 * sizes["theirs"]


def test_only_the_reference_has_second_order_gradients(images):
    loss = LPIPS(weights=None)
    x = images[0][:1].clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(x, images[1][:1]).sum(), x, create_graph=True)
    with pytest.raises((NotImplementedError, RuntimeError), match=r"twice"):
        first.square().sum().backward()
    with use("reference"):
        (reference,) = torch.autograd.grad(loss(x, images[1][:1]).sum(), x, create_graph=True)
        reference.square().sum().backward()
    assert_close(reference, first, rtol=1e-3, atol=1e-7)
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_compiles_as_one_graph(images):
    loss = LPIPS(weights=None)
    compiled = torch.compile(loss, fullgraph=True)
    gradients = []
    for function in (loss, compiled):
        x = images[0].clone().requires_grad_()
        value = function(x, images[1])
        gradients += [value, *torch.autograd.grad(value.sum(), x)]
    assert_close(gradients[2], gradients[0], rtol=1e-4, atol=1e-6)
    assert (gradients[3] - gradients[1]).norm() <= 1e-3 * gradients[1].norm()


@pytest.mark.parametrize("device", DEVICES)
def test_autocast(device, images):
    x, y = (image.to(device) for image in images)
    exact = LPIPS(weights=None).to(device)(x, y)
    half = LPIPS(weights=None, autocast=torch.bfloat16).to(device)
    a = x.clone().requires_grad_()
    value = half(a, y)
    assert value.dtype == torch.float32
    assert_close(value, exact, rtol=0.05, atol=0)
    value.sum().backward()
    assert a.grad.dtype == torch.float32 and a.grad.isfinite().all()
    with torch.autocast(device, dtype=torch.bfloat16):
        assert_close(LPIPS(weights=None, autocast=torch.float32).to(device)(x, y), exact)
        assert_close(LPIPS(weights=None).to(device)(x, y), value.detach(), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("make", "options"),
    [(LPIPS, {}), (LPIPSLoss, {}), (PerceptualLoss, {}), (PerceptualLoss, {"style_weights": 1.0})],
)
def test_meta_tensors_have_a_shape(make, options):
    loss = make(weights=None, **options)
    expected = loss(*torch.zeros(2, 2, 3, 40, 40)).shape
    x = torch.empty(2, 3, 40, 40, device="meta", requires_grad=True)
    value = loss.to("meta")(x, x.detach())
    assert value.shape == expected and value.device.type == "meta"
    assert torch.autograd.grad(value.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("net", NETS)
def test_smallest_image_size(net):
    loss, smallest = LPIPS(net=net, weights=None), NETS[net]
    image = torch.rand(1, 3, smallest, smallest + 3)
    assert loss(image, image, normalize=True).item() == 0
    small = torch.rand(1, 3, smallest + 3, smallest - 1)
    with pytest.raises(ValueError, match=f"at least {smallest} x {smallest} pixels for net='{net}', got"):
        loss(small, small)
    with pytest.raises(RuntimeError):
        loss.net(small)


# --- ranges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "options", "call", "message"),
    [
        (0, 1, {}, {}, r"images in \[0, 1\] need normalize=True"),
        (-1, 1, {}, {"normalize": True}, "would be normalized twice"),
        (-1, 1, {"value_range": (0, 1)}, {}, r"takes images in \[0, 1\], but these lie in \[-1"),
        (0, 255, {}, {}, "divided by 255"),
        (-2.1, 1.9, {}, {}, "ImageNet's statistics"),
        (-1, 1, {}, {}, None),
        (0, 1, {}, {"normalize": True}, None),
        (-0.1, 1.1, {"value_range": (0, 1)}, {}, None),
    ],
)
def test_images_in_another_range_are_noticed_once(low, high, options, call, message):
    loss = LPIPS(weights=None, **options)
    image = low + (high - low) * torch.rand(1, 3, 64, 64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(5):
            loss(image, image, **call)
    assert len(caught) == (message is not None)
    if message:
        with pytest.warns(RuntimeWarning, match=message):
            LPIPS(weights=None, **options)(image, image, **call)


@pytest.mark.gpu
def test_a_range_on_a_gpu_is_looked_at_without_waiting():
    loss = LPIPS(weights=None).cuda()
    image = torch.rand(1, 3, 64, 64, device="cuda")
    loss(image, image)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.warns(RuntimeWarning, match="normalize=True"):
            loss(image, image)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- weights ----------------------------------------------------------------------------------------------


def test_weights_of_torchvision_are_loaded(tmp_path, monkeypatch, images):
    weights = install_backbone(monkeypatch, tmp_path, "alexnet")
    loss = LPIPS()
    assert torch.equal(loss.net.slice2[1].weight, weights["features.3.weight"])
    before = copy.deepcopy(loss.state_dict())
    loss(*images)
    for name, tensor in loss.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_file_of_weights_is_named_or_downloaded(tmp_path, monkeypatch):
    weights = install_backbone(monkeypatch, tmp_path, "alexnet")
    torch.save(weights, tmp_path / "mine.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **options: weights)
    for loss in (
        LPIPS(weights=tmp_path / "mine.pth"),
        LPIPS(weights=str(tmp_path / "mine.pth")),
        LPIPS(download=True),
    ):
        assert torch.equal(loss.net.slice2[1].weight, weights["features.3.weight"])
    with pytest.raises(TypeError, match="weights must be 'default', the path .*, got bool True"):
        LPIPS(weights=True)


def test_missing_weights_are_named_with_address_and_place(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        LPIPS(net="vgg")
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in str(error.value)
    assert str(tmp_path / "checkpoints" / "vgg16-397923af.pth") in str(error.value)
    with pytest.raises(ValueError, match="net must be one of alex, vgg, squeeze, got 'resnet'"):
        lpips_weights_path("resnet")


def test_a_file_with_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = lpips_weights_path("alex")
    path.parent.mkdir()
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="not the file that its name says: its SHA-256 begins with"):
        LPIPS()


# --- what cannot be done ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"net": "resnet"}, ValueError, "net must be one of alex, vgg, squeeze, got 'resnet'"),
        ({"pretrained": "vgg"}, TypeError, "a network is net='vgg'"),
        ({"version": "0.2"}, ValueError, "version must be one of 0.0, 0.1, got '0.2'"),
        ({"value_range": (0, 255)}, ValueError, r"value_range .* got \(0, 255\)"),
        ({"reduction": "max"}, ValueError, "reduction .* got 'max'"),
        ({"pnet_tune": True}, ValueError, "frozen here; use lpips.LPIPS"),
        ({"eval_mode": False}, ValueError, "frozen here; use lpips.LPIPS"),
        ({"autocast": torch.int8}, ValueError, "autocast must be one of"),
    ],
)
def test_wrong_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        LPIPS(**{"weights": None, **options})


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 65), ValueError, "one shape, got"),
        (
            torch.rand(1, 2, 64, 64),
            torch.rand(1, 3, 64, 64),
            ValueError,
            r"in0 .* \(N, 3, H, W\)",
        ),
        (
            torch.rand(1, 3, 64, 64),
            torch.rand(1, 4, 64, 64),
            ValueError,
            r"in1 .* \(N, 3, H, W\)",
        ),
        (torch.ones(1, 3, 64, 64).byte(), torch.rand(1, 3, 64, 64), TypeError, "in0 .* torch.uint8"),
        ("image", torch.rand(1, 3, 64, 64), TypeError, "in0 must be a tensor, got str"),
    ],
)
def test_wrong_images_are_named(x, y, error, message):
    with pytest.raises(error, match=message):
        LPIPS(weights=None)(x, y, normalize=True)
    features = LPIPS(weights=None).precompute(torch.rand(1, 3, 64, 64), normalize=True)
    with pytest.raises(ValueError, match=r"one shape, got \(1, 3, 60, 64\) and \(1, 3, 64, 64\)"):
        LPIPS(weights=None)(torch.rand(1, 3, 60, 64), features, normalize=True)
