"""An encoder hides a bit in each image, a decoder finds it after JPEG, and both learn through the codec."""

import torch
from torch import nn
from torch.nn import functional as F

from fastgan.losses import yuv_color_l2
from fastgan.ops import jpeg_round_trip
from fastgan.optim import Adam


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pattern = nn.Parameter(torch.randn(3, 32, 32) * 0.01)

    def forward(self, image: torch.Tensor, bit: torch.Tensor) -> torch.Tensor:
        return (image + (bit.view(-1, 1, 1, 1) * 2 - 1) * self.pattern).clamp(0, 1)


def main(steps: int = 60) -> None:
    torch.manual_seed(0)
    encoder, decoder = Encoder(), nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1))
    optimizer = Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
    for step in range(steps):
        image = F.interpolate(torch.rand(32, 3, 8, 8), size=(32, 32), mode="bilinear")
        bit = torch.randint(0, 2, (32,)).float()
        encoded = encoder(image, bit)
        # One quality per image, as PIL would save them; the gradient passes through the rounding.
        received = jpeg_round_trip(encoded, quality=torch.randint(50, 96, (32,)))
        logits = decoder(received - 0.5).flatten()
        loss = F.binary_cross_entropy_with_logits(logits, bit) + yuv_color_l2(encoded, image)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == steps - 1:
            accuracy = ((logits > 0) == (bit > 0)).float().mean()
            print(f"step {step}: loss {loss.item():.3f}, bits found {accuracy.item():.2f}")


if __name__ == "__main__":
    main()
