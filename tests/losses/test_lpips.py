"""LPIPS: the lpips package's value for images in [0, 1], and a clear error without weights."""

import pytest
import torch

from fastgan.losses import LPIPS
from fastgan.losses.lpips import lpips_weights_path


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_missing_weights_are_named_with_address_and_place(hub):
    with pytest.raises(FileNotFoundError) as error:
        LPIPS("vgg")
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in str(error.value)
    assert str(hub / "vgg16-397923af.pth") in str(error.value)
    with pytest.raises(ValueError, match="net must be one of alex, vgg, squeeze, got 'resnet'"):
        lpips_weights_path("resnet")


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained':UserWarning")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning")
def test_value_is_that_of_the_package_and_weights_are_frozen(hub, monkeypatch):
    torchvision, lpips = pytest.importorskip("torchvision"), pytest.importorskip("lpips")
    weights = torchvision.models.alexnet(weights=None).state_dict()
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", lambda self, **_: weights)
    torch.save(weights, hub / lpips_weights_path("alex").name)
    ours = LPIPS("alex")
    theirs = lpips.LPIPS(net="alex", verbose=False)
    x, y = torch.rand(2, 3, 64, 64, requires_grad=True), torch.rand(2, 3, 64, 64)
    distance = ours(x, y)
    assert distance.shape == ()
    assert torch.allclose(distance, theirs(2 * x - 1, 2 * y - 1).mean())
    distance.backward()
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in ours.parameters())
