"""PerceptualLoss against the usual hand-written one, and its errors."""

import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("torchvision")

from fastgan import use
from fastgan.compat import basicsr
from fastgan.losses import PerceptualLoss, gram_matrix
from fastgan.losses.perceptual import layer_names
from tests.conftest import DEVICES
from tests.losses.backbones import install_backbone


@pytest.fixture
def images():
    return 2 * torch.rand(2, 3, 40, 48) - 1, 2 * torch.rand(2, 3, 40, 48) - 1


def by_hand(loss, x, y, layers, criterion):
    """As trainers write it: [-1, 1] to ImageNet's statistics, layer after layer."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, y = (((image + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1) for image in (x, y))
    found = []
    for index, layer in enumerate(loss.features):
        x, y = layer(x), layer(y)
        if index in layers:
            found.append((x, y, criterion(x, y)))
    return found


def close(ours, theirs, tolerance=1e-4):
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("criterion", ["l1", "l2"])
@pytest.mark.parametrize(
    ("layers", "indices"),
    [
        ((3, 8), (3, 8)),
        (("relu1_2", "relu2_2"), (3, 8)),
        (("conv2_1", "relu2_1", "pool2", "conv3_3"), (5, 6, 9, 14)),
    ],
)
def test_it_is_the_one_written_by_hand(layers, indices, criterion, images):
    weights = [1.0 + i for i in range(len(layers))]
    loss = PerceptualLoss(layers, weights, criterion=criterion, backbone=None)
    function = nn.functional.l1_loss if criterion == "l1" else nn.functional.mse_loss
    x, y = images[0].clone().requires_grad_(), images[1]
    parts = by_hand(loss, x, y, indices, function)
    expected = sum(w * part for w, (_, _, part) in zip(weights, parts, strict=True))
    value = loss(x, y)
    assert_close(value, expected, rtol=1e-5, atol=0)
    close(*(torch.autograd.grad(v, x)[0] for v in (value, expected)))


@pytest.mark.parametrize("patch_size", [None, 3])
def test_style_is_the_distance_of_gram_matrices(patch_size, images):
    loss = PerceptualLoss(
        ("relu1_1", "relu2_1"), 0, style_weights=(1, 3), patch_size=patch_size, criterion="l2", backbone=None
    )
    x, y = images[0].clone().requires_grad_(), images[1]
    expected = torch.zeros(())
    for weight, (a, b, _) in zip((1, 3), by_hand(loss, x, y, (1, 6), nn.functional.l1_loss), strict=True):
        matrices = []
        for features in (a, b):
            size = patch_size or max(features.shape[2:])
            rows = features.shape[2] // size * size if patch_size else features.shape[2]
            columns = features.shape[3] // size * size if patch_size else features.shape[3]
            cut = features[:, :, :rows, :columns]
            if patch_size:
                patches = nn.functional.unfold(cut, size, stride=size)
                patches = patches.view(2, features.shape[1], size * size, -1).permute(0, 3, 1, 2)
            else:
                patches = cut.flatten(2)[:, None]
            matrices.append(torch.einsum("npik,npjk->npij", patches, patches) / patches[0, 0].numel())
        expected = expected + weight * (matrices[0] - matrices[1]).square().mean()
    perceptual, style = loss.parts(x, y)
    assert perceptual == 0
    assert_close(style, expected, rtol=1e-4, atol=0)
    close(*(torch.autograd.grad(v, x)[0] for v in (style, expected)))


@pytest.mark.parametrize("device", DEVICES)
def test_precomputed_targets_and_grey_images(device, images):
    loss = PerceptualLoss(backbone=None, device=device)
    x, y = (image.to(device) for image in images)
    features = loss.precompute(y)
    assert_close(loss(x, features), loss(x, y))
    grey = x[:, :1]
    assert_close(loss(grey, y), loss(grey.expand(-1, 3, -1, -1), features))


def test_the_network_ends_where_it_is_needed_and_is_frozen(images):
    loss = PerceptualLoss((3,), backbone=None)
    assert len(loss.features) == 4 and not any(p.requires_grad for p in loss.parameters())
    nn.ModuleList([loss]).train()
    assert not any(module.training for module in loss.modules())
    x, y = images[0].clone().requires_grad_(), images[1].clone().requires_grad_()
    loss(x, y).backward()
    assert x.grad.abs().sum() > 0 and y.grad is None
    assert loss.mean.device == loss.features[0].weight.device


def test_second_order_by_the_reference(images):
    loss = PerceptualLoss((3,), criterion="l2", backbone=None)
    x = images[0].clone().requires_grad_()
    with use("reference"):
        (first,) = torch.autograd.grad(loss(x, images[1]), x, create_graph=True)
        first.square().sum().backward()
    assert x.grad.abs().sum() > 0
    (first,) = torch.autograd.grad(loss(x, images[1]), x, create_graph=True)
    with pytest.raises((NotImplementedError, RuntimeError), match="twice"):
        first.square().sum().backward()


def test_compiles_as_one_graph(images):
    loss = PerceptualLoss(backbone=None)
    compiled = torch.compile(loss, fullgraph=True)
    x = images[0].clone().requires_grad_()
    value, expected = compiled(x, images[1]), loss(x, images[1])
    assert_close(value, expected, rtol=1e-4, atol=0)
    close(*(torch.autograd.grad(v, x)[0] for v in (value, expected)), tolerance=1e-3)


def test_weights_of_torchvision_are_loaded(tmp_path, monkeypatch):
    weights = install_backbone(monkeypatch, tmp_path, "vgg19")
    loss = PerceptualLoss(("conv3_4",), network="vgg19")
    assert torch.equal(loss.features[16].weight, weights["features.16.weight"])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    with pytest.raises(
        FileNotFoundError, match="PerceptualLoss needs .* download https://.*vgg16-397923af.pth"
    ):
        PerceptualLoss()


def test_layers_have_torchvisions_order():
    torchvision = pytest.importorskip("torchvision")
    kinds = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool"}
    for network in ("vgg16", "vgg19"):
        with torch.device("meta"):
            layers = getattr(torchvision.models, network)(weights=None).features
        names = layer_names(network)
        assert [kinds[type(layer)] for layer in layers] == [name[:4] for name in names]


def test_images_in_another_range_are_noticed():
    unit = torch.rand(1, 3, 32, 32)
    with pytest.warns(RuntimeWarning, match=r"in \[-1, 1\], but these lie in \[.*value_range=\(0, 1\)"):
        PerceptualLoss(backbone=None)(unit, unit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PerceptualLoss(backbone=None, value_range=(0, 1))(unit, unit)


@pytest.mark.parametrize("range_norm", [False, True])
@pytest.mark.parametrize("criterion", ["l1", "l2", "fro"])
def test_basicsr_formula(criterion, range_norm):
    layer_weights = {"conv1_2": 0.1, "relu2_1": 1.0}
    loss = basicsr.PerceptualLoss(
        layer_weights,
        "vgg16",
        range_norm=range_norm,
        perceptual_weight=2.0,
        style_weight=5.0,
        criterion=criterion,
        backbone=None,
    )
    x, gt = torch.rand(2, 2, 3, 20, 22)
    x.requires_grad_()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    maps = []
    for image in (x, gt):
        if range_norm:
            image = (image + 1) / 2
        image, found = (image - mean) / std, []
        for index, layer in enumerate(loss.loss.features):
            image = layer(image)
            if index in (2, 6):
                found.append(image)
        maps.append(found)
    distance = {
        "l1": nn.functional.l1_loss,
        "l2": nn.functional.mse_loss,
        "fro": lambda a, b: torch.norm(a - b, p="fro"),
    }[criterion]
    layers = [(w, a, b.detach()) for w, a, b in zip((0.1, 1.0), *maps, strict=True)]
    percep = 2.0 * sum(w * distance(a, b) for w, a, b in layers)
    style = 5.0 * sum(w * distance(gram_matrix(a), gram_matrix(b)) for w, a, b in layers)
    found = loss(x, gt)
    assert_close(found[0], percep, rtol=1e-4, atol=0)
    assert_close(found[1], style, rtol=1e-4, atol=0)
    close(*(torch.autograd.grad(sum(v), x)[0] for v in (found, (percep, style))))
    alone = basicsr.PerceptualLoss(layer_weights, "vgg16", backbone=None)
    assert alone(x, gt)[1] is None
    with pytest.raises(NotImplementedError, match="huber"):
        basicsr.PerceptualLoss(layer_weights, criterion="huber", backbone=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (31,)}, r"layer must lie in \[0, 30\] for vgg16, got 31"),
        ({"layers": ("relu6_1",)}, "layer must be one of conv1_1, relu1_1.*got 'relu6_1'"),
        ({"layers": (8, 3)}, r"from the input to the output, got \(8, 3\)"),
        ({"layers": ()}, "layers must be different"),
        ({"weights": (1.0,)}, "weights must be one number or 2"),
        ({"network": "vgg11"}, "network must be one of vgg16, vgg19, got 'vgg11'"),
        ({"criterion": "l3"}, "criterion must be one of l1, l2, got 'l3'"),
        ({"value_range": (0, 255)}, "value_range"),
        ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PerceptualLoss(**{"backbone": None, **options})


def test_wrong_images_are_named(images):
    loss = PerceptualLoss(backbone=None)
    with pytest.raises(ValueError, match="must have one shape"):
        loss(images[0], images[1][:, :, 1:])
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3, H, W\), got \(2, 2, 8, 8\)"):
        loss(torch.rand(2, 2, 8, 8), images[1])
    with pytest.raises(TypeError, match="x must be a floating-point image"):
        loss(torch.ones(2, 3, 8, 8).int(), images[1])
    with pytest.raises(ValueError, match="at least 2 x 2 pixels"):
        loss(torch.rand(2, 3, 1, 8), images[1])
    with pytest.raises(ValueError, match="smaller than patches of 64 x 64"):
        PerceptualLoss((3,), 0, style_weights=1, patch_size=64, backbone=None)(*images)


@pytest.mark.parametrize("patch_size", [None, 4])
def test_gram_matrices_are_float32_under_autocast(patch_size):
    features = torch.rand(1, 5, 8, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = gram_matrix(features, patch_size)
    assert torch.equal(under_autocast, gram_matrix(features, patch_size))
