"""LPIPS's checkpoints, of the lpips package and of code derived from it, and the packages it needs."""

import builtins
import importlib.util
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fastgan.losses import LPIPS, LPIPSLoss

package = pytest.importorskip("lpips")
NETS = ("alex", "vgg", "squeeze")


class Loss(nn.Module):
    """A model with a loss that has LPIPS as an attribute, as in LDM."""

    def __init__(self, **options):
        super().__init__()
        self.loss = nn.Module()
        self.loss.perceptual_loss = LPIPS(weights=None, **options)
        self.loss.logvar = nn.Parameter(torch.zeros(()))


def package_lpips(net="vgg", **options):
    """The package's LPIPS, with random weights everywhere."""
    with warnings.catch_warnings(), torch.device("meta"):  # on which VGG's large classifier costs no time
        warnings.simplefilter("ignore")
        model = package.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False, **options)
    for module in (model.net, model.lins):
        for parameter in module.to_empty(device="cpu").parameters():
            nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    for parameter in model.lins.parameters():
        parameter.data.abs_()
    return model


def as_in_taming(state):
    """The classes of taming-transformers and LDM have no list of the layers."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("lins.")}


def as_in_torchmetrics(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("scaling_layer.")}


def only_the_list(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("lin") or "lins." in name}


@pytest.mark.parametrize("rename", [dict, as_in_taming, as_in_torchmetrics, only_the_list])
@pytest.mark.parametrize("their_dropout", [True, False])
@pytest.mark.parametrize("our_dropout", [True, False])
@pytest.mark.parametrize("net", NETS)
def test_checkpoints_of_derived_code_load_strictly(net, our_dropout, their_dropout, rename):
    source = package_lpips(net, use_dropout=their_dropout)
    state = rename(source.state_dict())
    names = list(state)
    loss = LPIPS(net=net, use_dropout=our_dropout, weights=None)
    loss.load_state_dict(state)
    assert list(state) == names  # the caller's checkpoint is not modified
    x, y = 2 * torch.rand(2, 2, 3, 40, 44) - 1
    assert_close(loss(x, y), source.eval()(x, y), rtol=1e-5, atol=1e-7)
    assert all(layer is getattr(loss, f"lin{number}") for number, layer in enumerate(loss.lins))
    if our_dropout == their_dropout:
        source.load_state_dict(loss.state_dict())


@pytest.mark.parametrize("assign", [False, True])
def test_checkpoints_of_models_that_contain_it_load_strictly(assign):
    source = package_lpips()
    state = {f"loss.perceptual_loss.{name}": x for name, x in as_in_taming(source.state_dict()).items()}
    model = Loss(net="vgg")
    model.load_state_dict(state | {"loss.logvar": torch.ones(())}, assign=assign)
    assert model.loss.logvar == 1
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.loss.perceptual_loss.state_dict()[name], tensor)
    restored = {name.removeprefix("loss.perceptual_loss."): x for name, x in model.state_dict().items()}
    package_lpips().load_state_dict({name: x for name, x in restored.items() if name != "loss.logvar"})
    model_copy = Loss(net="vgg")
    model_copy.load_state_dict(model.state_dict())


def test_a_missing_or_unexpected_layer_is_named():
    state = as_in_taming(package_lpips().state_dict())
    del state["lin3.model.1.weight"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"lin3.model.1.weight", "lins.3.model.1.weight"'):
        LPIPS(net="vgg", weights=None).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"lin5.model.1.weight"'):
        LPIPS(net="vgg", weights=None).load_state_dict(
            package_lpips().state_dict() | {"lin5.model.1.weight": torch.zeros(1, 512, 1, 1)}
        )
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"lin0.model.1.weight"'):
        LPIPS(net="vgg", weights=None, lpips=False).load_state_dict(package_lpips().state_dict())


def test_a_calibration_alone_is_loaded_as_in_taming(tmp_path):
    calibration = {
        name: x for name, x in as_in_taming(package_lpips().state_dict()).items() if name.startswith("lin")
    }
    loss = LPIPS(net="vgg", weights=None)
    loss.load_state_dict(calibration, strict=False)
    assert torch.equal(loss.lins[2].model[1].weight, calibration["lin2.model.1.weight"])
    torch.save(calibration, tmp_path / "vgg.pth")
    for dropout in (True, False):
        calibrated = LPIPS(net="vgg", weights=None, model_path=tmp_path / "vgg.pth", use_dropout=dropout)
        assert torch.equal(calibrated.lins[2].model[-1].weight, calibration["lin2.model.1.weight"])
    with pytest.raises(
        ValueError, match="vgg.pth is no calibration of net='squeeze': it lacks lin5.model.1.w"
    ):
        LPIPS(net="squeeze", weights=None, model_path=tmp_path / "vgg.pth")


@pytest.mark.parametrize("version", ["0.0", "0.1"])
@pytest.mark.parametrize("net", NETS)
def test_the_calibration_is_the_packages(monkeypatch, net, version):
    loss = LPIPS(net=net, version=version, weights=None)
    # Without the backbone, whose random weights take the package seconds.
    backbones = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}
    monkeypatch.setattr(package.lpips.pn, backbones[net], lambda **options: nn.Module())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package_loss = package.LPIPS(net=net, version=version, pnet_rand=True, verbose=False)
    for ours, expected in zip(loss.lins, package_loss.lins, strict=True):
        assert torch.equal(ours.model[1].weight, expected.model[1].weight)


# --- packages that it needs -------------------------------------------------------------------------------


@pytest.fixture
def without(monkeypatch):
    """Hides a package from imports."""

    def hide(package):
        find_spec, import_ = importlib.util.find_spec, builtins.__import__

        def refuse(name, *args, **options):
            if name.split(".")[0] == package:
                raise ModuleNotFoundError(f"No module named '{package}'", name=package)
            return import_(name, *args, **options)

        monkeypatch.setattr(builtins, "__import__", refuse)
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *a: None if name == package else find_spec(name, *a)
        )

    return hide


def test_the_package_is_needed_for_its_calibration_alone(without):
    without("lpips")
    with pytest.raises(ModuleNotFoundError, match=r"calibration .* pip install '\.\[train\]' .*model_path"):
        LPIPS(weights=None)
    image = 2 * torch.rand(1, 3, 40, 40) - 1
    for loss in (
        LPIPS(weights=None, pretrained=False),
        LPIPS(weights=None, lpips=False),
        LPIPSLoss(weights=None, pretrained=False, value_range=(-1, 1)),
    ):
        assert loss(image, -image).sum() != 0


def test_torchvision_is_needed_for_the_backbone(without):
    without("torchvision")
    with pytest.raises(ModuleNotFoundError, match=r"torchvision for its backbone: pip install '\.\[train\]'"):
        LPIPS(weights=None)


def test_the_package_is_not_imported(tmp_path):
    """Its imports, scipy and scikit-image, take seconds."""
    import subprocess
    import sys

    program = (
        "import sys; from fastgan.losses import LPIPS; LPIPS(weights=None); print('lpips' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"


# --- shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize(
    ("a", "b"), [((1,), (3,)), ((3,), (1,)), ((1,), (1,)), ((), (1,)), ((), (3,)), ((3,), ()), ((), ())]
)
def test_one_image_is_compared_with_many_as_in_the_package(a, b, spatial):
    source = package_lpips("alex", spatial=spatial).eval()
    loss = LPIPS(net="alex", spatial=spatial, weights=None)
    loss.load_state_dict(source.state_dict())
    x, y = (2 * torch.rand(*batch, 3, 40, 44) - 1 for batch in (a, b))
    actual, expected = [], []
    for model, results in ((loss, actual), (source, expected)):
        p, q = x.clone().requires_grad_(), y.clone().requires_grad_()
        # The package takes the map's height and width from the first image's shape, which needs a batch.
        first = p[None] if spatial and model is source and p.dim() == 3 else p
        value, layers = model(first, q, retPerLayer=True)
        results += [value, *layers, *torch.autograd.grad(value.square().sum(), (p, q))]
    for ours, theirs in zip(actual[:-2], expected[:-2], strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(actual[-2:], expected[-2:], strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_one_image_is_compared_with_many_precomputed():
    loss = LPIPS(weights=None)
    one, many = 2 * torch.rand(3, 40, 44) - 1, 2 * torch.rand(3, 3, 40, 44) - 1
    expected = loss(one, many)
    assert expected.shape == (3, 1, 1, 1)
    assert_close(loss(one, loss.precompute(many)), expected)
    assert_close(loss(many, loss.precompute(one)), loss(many, one))
    assert_close(LPIPS(weights=None, reduction="mean")(many, loss.precompute(one)), loss(many, one).mean())


@pytest.mark.parametrize("shapes", [((2, 3, 40, 40), (3, 3, 40, 40)), ((1, 3, 40, 40), (2, 3, 40, 41))])
def test_other_batches_are_refused(shapes):
    x, y = (torch.rand(shape) for shape in shapes)
    with pytest.raises(
        ValueError, match=r"one shape, got \(.*, 3, 40, 40\) and .*; a batch of 1 goes with any"
    ):
        LPIPS(weights=None)(x, y, normalize=True)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\), got \(2, 40, 40\)"):
        LPIPS(weights=None)(x[:1, :2][0], y, normalize=True)


@pytest.mark.parametrize("shape", [(2, 1, 40, 40), (1, 40, 40)])
def test_grey_images_are_compared_as_the_package_does(shape):
    import lpips

    theirs = lpips.LPIPS(pnet_rand=True, verbose=False)
    ours = LPIPS(weights=None)
    ours.load_state_dict(theirs.state_dict())
    grey, colour = torch.rand(shape), torch.rand(2, 3, 40, 40)
    batch = grey if grey.dim() == 4 else grey[None]
    for pair, with_batch in (((grey, colour), (batch, colour)), ((grey, grey), (batch, batch))):
        assert_close(ours(*pair, normalize=True), theirs(*with_batch, normalize=True), rtol=1e-5, atol=1e-7)
