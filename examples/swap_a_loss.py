"""StegaStamp's image loss as ports write it, and the one line that replaces it: same value and gradient."""

import torch
from torch import Tensor, nn

from fastgan.losses import yuv_color_l2


def loss_by_hand(encoded: Tensor, image: Tensor, yuv_scales: tuple[float, float, float]) -> Tensor:
    """What the one line replaces: ten operations, each with an intermediate as large as the images."""
    to_yuv = torch.tensor([[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]])
    difference = torch.einsum("ij,njhw->nihw", to_yuv, encoded) - torch.einsum("ij,njhw->nihw", to_yuv, image)
    per_channel = (difference**2).mean((0, 2, 3))
    return (torch.tensor(yuv_scales) * per_channel).sum()


def main() -> None:
    torch.manual_seed(0)
    encoder = nn.Conv2d(3, 3, 3, padding=1)
    image = torch.rand(4, 3, 64, 64)
    gradients = []
    for loss_function in (loss_by_hand, yuv_color_l2):
        encoder.zero_grad()
        loss = loss_function(encoder(image).sigmoid(), image, yuv_scales=(1, 100, 100))
        loss.backward()
        gradients.append(encoder.weight.grad.clone())
        print(f"{loss_function.__name__}: {loss.item():.6f}")
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    main()
