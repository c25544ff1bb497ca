"""Lazy R1 whose double backward runs compiled, which torch.compile of the discriminator alone cannot do."""

import argparse

import torch
from torch import nn

from fastgan.losses import R1, AdversarialLoss
from fastgan.ops import convert_convolutions
from fastgan.optim import Adam


def main(steps: int = 4, compile: bool = True) -> None:
    torch.manual_seed(0)
    discriminator = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(32 * 8 * 8, 1),
    )  # fmt: skip
    # fastgan's convolution computes the same; its gradients of every order are primitives that compile well.
    convert_convolutions(discriminator)
    adversarial = AdversarialLoss("nonsaturating")
    r1 = R1(discriminator, weight=5.0, interval=2, compile=compile)  # every second step, twice as strong
    optimizer = Adam(discriminator.parameters(), lr=2e-4, betas=(0.0, 0.99))

    for step in range(steps):
        real, fake = torch.rand(2, 8, 3, 32, 32) * 2 - 1
        loss, statistics = adversarial.discriminator(
            discriminator(real), discriminator(fake), return_statistics=True
        )
        term = r1(real, step)
        optimizer.zero_grad()
        (loss + term.loss).backward()
        optimizer.step()
        # Everything is on the device until it is read: do so rarely.
        print(f"step {step}: loss {loss.item():.4f}, accuracy on real {statistics.accuracy_real.item():.2f}, "
              f"penalty {term.penalty.item():.2e}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eager", action="store_true", help="do not compile, which needs a C++ compiler")
    main(compile=not parser.parse_args().eager)
