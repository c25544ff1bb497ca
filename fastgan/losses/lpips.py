"""LPIPS from the lpips package, for images in [0, 1]."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

# torchvision's files, as its weights enums name them.
BACKBONES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
ADDRESS = "https://download.pytorch.org/models/"


def lpips_weights_path(net: str = "alex") -> Path:
    """Where the backbone's weights are looked for: torch hub's cache."""
    if net not in BACKBONES:
        raise ValueError(f"net must be one of {', '.join(BACKBONES)}, got {net!r}")
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net]


class LPIPS(nn.Module):
    """Learned perceptual distance of images in [0, 1]; frozen. Zhang et al., CVPR 2018.

    Args:
        net: "alex", "vgg" or "squeeze".

    Raises:
        FileNotFoundError: the backbone's weights are not in torch hub's cache; nothing is downloaded.
    """

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        path = lpips_weights_path(net)
        if not path.exists():
            raise FileNotFoundError(
                f"LPIPS needs the weights of its backbone: download {ADDRESS}{path.name} "
                f"and put the file at {path}"
            )
        import lpips

        self.distance = lpips.LPIPS(net=net, verbose=False).requires_grad_(False).eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """N 3 H W and N 3 H W in [0, 1] to the mean distance, 0-d."""
        return self.distance(x, y, normalize=True).mean()
