"""PerceptualLoss against the usual hand-written code, and its errors."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("torchvision")

from fastgan import use
from fastgan.compat import basicsr
from fastgan.losses import PerceptualLoss, _backbones, gram_matrix, layer_index
from fastgan.losses.perceptual import NETWORKS, layer_names
from tests.conftest import DEVICES
from tests.losses.backbones import install_backbone


@pytest.fixture
def images():
    return 2 * torch.rand(2, 3, 40, 48) - 1, 2 * torch.rand(2, 3, 40, 48) - 1


def by_hand(loss, x, y, layers, criterion):
    """The usual code of trainers: images in [-1, 1] normalized for ImageNet, then layer after layer."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, y = (((image + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1) for image in (x, y))
    comparisons = []
    for index, layer in enumerate(loss.features):
        x, y = layer(x), layer(y)
        if index in layers:
            comparisons.append((x, y, criterion(x, y)))
    return comparisons


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
def test_it_equals_the_usual_code(layers, indices, criterion, images):
    weights = [1.0 + i for i in range(len(layers))]
    loss = PerceptualLoss(layers, weights, criterion=criterion, backbone=None)
    function = nn.functional.l1_loss if criterion == "l1" else nn.functional.mse_loss
    x, y = images[0].clone().requires_grad_(), images[1]
    parts = by_hand(loss, x, y, indices, function)
    expected = sum(w * part for w, (_, _, part) in zip(weights, parts, strict=True))
    value = loss(x, y)
    assert_close(value, expected, rtol=1e-5, atol=0)
    close(*(torch.autograd.grad(v, x)[0] for v in (value, expected)))


def test_a_weight_may_be_a_number_of_numpy():
    for weight in (np.float32(0.5), np.array(0.5), np.array([0.5, 0.5])):
        assert PerceptualLoss((3, 8), weight, backbone=None).weights == [0.5, 0.5]


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


def test_the_network_has_only_the_needed_layers_and_is_frozen(images):
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


@pytest.mark.parametrize("network", sorted(_backbones.FILES))
def test_files_are_those_of_torchvision(network):
    torchvision = pytest.importorskip("torchvision")
    expected = torchvision.models.get_model_weights(network).IMAGENET1K_V1.url
    assert expected == _backbones.ADDRESS + _backbones.FILES[network]


def test_weights_none_is_backbone_none():
    expected = PerceptualLoss(backbone=None).state_dict()
    for options in ({"weights": None}, {"weights": None, "backbone": None}):
        loss = PerceptualLoss(**options)
        assert loss.weights == [1.0, 1.0]
        for name, tensor in loss.state_dict().items():
            assert torch.equal(tensor, expected[name])
    assert isinstance(basicsr.PerceptualLoss({"conv1_2": 1.0}, weights=None), nn.Module)
    for make in (PerceptualLoss, lambda **o: basicsr.PerceptualLoss({"conv1_2": 1.0}, **o)):
        with pytest.raises(ValueError, match=r"weights='a.pth' and backbone=None contradict each other"):
            make(weights="a.pth", backbone=None)
    with pytest.raises(TypeError, match="backbone must be 'default', the path .*, got int 3"):
        PerceptualLoss(backbone=3)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_of_weights_is_named(kind, tmp_path, monkeypatch):
    weights = install_backbone(monkeypatch, tmp_path, "vgg11_bn")
    torch.save(weights, tmp_path / "mine.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    path = kind(tmp_path / "mine.pth")
    for loss in (
        PerceptualLoss(("relu1_1",), network="vgg11_bn", backbone=path),
        PerceptualLoss(("relu1_1",), path, network="vgg11_bn"),
        basicsr.PerceptualLoss({"relu1_1": 1.0}, "vgg11_bn", weights=path).loss,
        basicsr.PerceptualLoss({"relu1_1": 1.0}, "vgg11_bn", backbone=path).loss,
    ):
        assert torch.equal(loss.features[0].weight, weights["features.0.weight"])
    with pytest.raises(FileNotFoundError, match="PerceptualLoss: there is no file of weights .*yours.pth"):
        PerceptualLoss(backbone=kind(tmp_path / "yours.pth"))
    with pytest.raises(
        ValueError, match=r"mine.pth is no state_dict of torchvision's vgg19: it lacks features"
    ):
        PerceptualLoss(network="vgg19", backbone=path)
    corrupt = tmp_path / _backbones.FILES["vgg19"]
    corrupt.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="not the file that its name says"):
        PerceptualLoss(network="vgg19", backbone=kind(corrupt))


def test_weights_in_basicsrs_folder_are_found(tmp_path, monkeypatch):
    weights = install_backbone(monkeypatch, tmp_path, "vgg19")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "experiments" / "pretrained_models"
    folder.mkdir(parents=True)
    _backbones.weights_path("vgg19").rename(folder / _backbones.FILES["vgg19"])
    loss = basicsr.PerceptualLoss({"conv5_4": 1.0})
    assert torch.equal(loss.loss.features[34].weight, weights["features.34.weight"])
    with pytest.raises(
        FileNotFoundError, match=r"vgg16.*or in experiments/pretrained_models, .*download=True"
    ):
        basicsr.PerceptualLoss({"conv5_1": 1.0}, "vgg16")


def test_weights_are_downloaded_on_request(tmp_path, monkeypatch):
    weights = install_backbone(monkeypatch, tmp_path, "vgg19")
    requests = []

    def load_state_dict_from_url(url, **options):
        requests.append((url, options))
        return weights

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load_state_dict_from_url)
    PerceptualLoss(network="vgg19", download=True)
    assert not requests  # the file exists
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    for loss in (
        PerceptualLoss(network="vgg19", download=True),
        basicsr.PerceptualLoss({"conv5_4": 1.0}, download=True).loss,
    ):
        assert torch.equal(loss.features[0].weight, weights["features.0.weight"])
    ((url, options), _) = requests
    assert url == _backbones.ADDRESS + _backbones.FILES["vgg19"] and options["check_hash"]


@pytest.mark.parametrize("network", NETWORKS)
def test_layers_have_torchvisions_order(network):
    torchvision = pytest.importorskip("torchvision")
    kinds = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.ReLU: "relu", nn.MaxPool2d: "pool"}
    with torch.device("meta"):
        layers = getattr(torchvision.models, network)(weights=None).features
    names = layer_names(network)
    assert [kinds[type(layer)] for layer in layers] == [name.rstrip("_12345") for name in names]
    assert [layer_index(name, network) for name in names] == list(range(len(layers)))
    pools = [name for name in names if name.startswith("pool")]
    assert pools == ["pool1", "pool2", "pool3", "pool4", "pool5"]


def test_layer_names_are_those_of_basicsr():
    assert layer_names("vgg11_bn")[:9] == [
        "conv1_1", "bn1_1", "relu1_1", "pool1", "conv2_1", "bn2_1", "relu2_1", "pool2", "conv3_1",
    ]  # fmt: skip
    assert layer_index("bn3_4", "vgg19_bn") == 24 and layer_index("conv5_4", "vgg19") == 34
    with pytest.raises(ValueError, match="layer must be one of conv1_1, relu1_1.*got 'bn1_1'"):
        layer_index("bn1_1", "vgg19")
    with pytest.raises(ValueError, match="network must be one of vgg11, vgg11_bn.*got 'vgg19_gn'"):
        layer_index("conv1_1", "vgg19_gn")


def batch_normalized(layers, network="vgg11_bn", **options):
    """PerceptualLoss of a network with batch normalization that is not the identity."""
    loss = PerceptualLoss(layers, network=network, backbone=None, **options)
    for layer in loss.features:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.3, 2)
            nn.init.uniform_(layer.weight, -0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    return loss


@pytest.mark.parametrize(
    ("layers", "indices"),
    [
        (("relu1_1", "relu2_1"), (2, 6)),
        (("conv1_1", "bn1_1", "relu1_1", "pool1"), (0, 1, 2, 3)),
        (("conv1_1", "relu2_1"), (0, 6)),
        (("bn2_1", "conv3_2"), (5, 11)),
    ],
)
def test_batch_normalization_equals_the_usual_code(layers, indices, images):
    loss = batch_normalized(layers, criterion="l2")
    x, y = images[0].clone().requires_grad_(), images[1]
    expected = sum(part for _, _, part in by_hand(loss, x, y, indices, nn.functional.mse_loss))
    value = loss(x, y)
    assert_close(value, expected, rtol=1e-5, atol=0)
    close(*(torch.autograd.grad(v, x)[0] for v in (value, expected)))
    assert loss(images[0].clone().requires_grad_(), images[0]) == 0  # one with a graph, the other without


def test_batch_normalization_is_frozen(images):
    loss = batch_normalized(("relu1_1",))
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    nn.ModuleList([loss]).train()
    assert not any(module.training for module in loss.modules())
    loss(images[0].clone().requires_grad_(), images[1]).backward()
    for name, tensor in loss.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_batch_normalization_saves_nothing_for_backward(images):
    kept = {}
    for network, layers in (("vgg11", 5), ("vgg11_bn", 7)):
        loss = PerceptualLoss((layers,), 0, network=network, backbone=None)
        tensors = {}
        owned = {p.untyped_storage().data_ptr() for p in [*loss.parameters(), *loss.buffers()]}

        def keep(tensor, tensors=tensors, owned=owned):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in owned:
                tensors[storage.data_ptr()] = (tensor, storage.nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            next(loss.feature_maps(images[0].clone().requires_grad_()))
        kept[network] = sum(nbytes for _, nbytes in tensors.values())
    assert kept["vgg11_bn"] == kept["vgg11"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_batch_normalization_under_autocast(dtype, images):
    loss = batch_normalized(("relu2_1",), criterion="l2")
    x = images[0].clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        value = loss(x, images[1])
    (gradient,) = torch.autograd.grad(value, x)
    assert value.dtype == gradient.dtype == torch.float32
    (exact,) = torch.autograd.grad(loss(x, images[1]), x)
    close(gradient, exact, tolerance=0.1)


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
    x, gt = (2 * image - 1 if range_norm else image for image in torch.rand(2, 2, 3, 20, 22))
    x.requires_grad_()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    maps = []
    for image in (x, gt):
        if range_norm:
            image = (image + 1) / 2
        image, features = (image - mean) / std, []
        for index, layer in enumerate(loss.loss.features):
            image = layer(image)
            if index in (2, 6):
                features.append(image)
        maps.append(features)
    distance = {
        "l1": nn.functional.l1_loss,
        "l2": nn.functional.mse_loss,
        "fro": lambda a, b: torch.norm(a - b, p="fro"),
    }[criterion]
    layers = [(w, a, b.detach()) for w, a, b in zip((0.1, 1.0), *maps, strict=True)]
    percep = 2.0 * sum(w * distance(a, b) for w, a, b in layers)
    style = 5.0 * sum(w * distance(gram_matrix(a), gram_matrix(b)) for w, a, b in layers)
    actual = loss(x, gt)
    assert_close(actual[0], percep, rtol=1e-4, atol=0)
    assert_close(actual[1], style, rtol=1e-4, atol=0)
    close(*(torch.autograd.grad(sum(v), x)[0] for v in (actual, (percep, style))))
    alone = basicsr.PerceptualLoss(layer_weights, "vgg16", range_norm=range_norm, backbone=None)
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
        ({"network": "resnet18"}, "network must be one of vgg11, vgg11_bn, .*vgg19_bn, got 'resnet18'"),
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


@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_is_compared_with_many_and_needs_no_batch(channels):
    loss = PerceptualLoss(("relu1_2", "relu2_2"), weights=None, style_weights=1.0)
    many = 2 * torch.rand(3, channels, 24, 20) - 1
    one = (2 * torch.rand(channels, 24, 20) - 1).requires_grad_()
    expected = loss(one.expand(3, -1, -1, -1), many)
    (expected_gradient,) = torch.autograd.grad(expected, one)
    for x in (one, one[None]):
        for target in (many, loss.precompute(many)):
            actual = loss(x, target)
            assert_close(actual, expected)
            assert_close(torch.autograd.grad(actual, one)[0], expected_gradient)
    expected_loss = loss(many, one.detach().expand(3, -1, -1, -1))
    for target in (one, one[None], loss.precompute(one), loss.precompute(one[None])):
        assert_close(loss(many, target), expected_loss)
    assert_close(loss(one, one), torch.zeros(()))
    with pytest.raises(ValueError, match=r"x and target must have one shape, .* a batch of 1 goes with any"):
        loss(many, many[:2])


def test_basicsrs_class_compares_one_image_with_many_too():
    loss = basicsr.PerceptualLoss({"relu1_2": 1.0}, weights=None, criterion="fro")
    image, many = torch.rand(3, 24, 20), torch.rand(2, 3, 24, 20)
    assert_close(loss(image, many)[0], loss(image.expand(2, -1, -1, -1), many)[0])
