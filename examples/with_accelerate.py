"""A GAN under Accelerate: optimizers, losses and penalties of fastgan where torch's would stand."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from fastgan.losses import AdversarialLoss, r1_penalty_of
from fastgan.optim import EMA, Adam


def main() -> None:
    torch.manual_seed(0)
    accelerator = Accelerator()
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2)).to(accelerator.device)
    discriminator = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    ema = EMA(generator, decay=0.99)  # of the network itself, not of what `prepare` wraps around it
    generator, discriminator, g_optimizer, d_optimizer, data = accelerator.prepare(
        generator,
        discriminator,
        Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.99), ema=ema),
        Adam(discriminator.parameters(), lr=1e-3, betas=(0.0, 0.99)),
        DataLoader(torch.randn(256, 2), batch_size=32),
    )
    adversarial = AdversarialLoss("hinge")
    for step, real in enumerate(data):
        fake = generator(torch.randn(len(real), 8, device=accelerator.device))
        d_loss = adversarial.discriminator(discriminator(real), discriminator(fake.detach()))
        if step % 4 == 0:
            d_loss = d_loss + 0.4 * r1_penalty_of(discriminator, real)
        d_optimizer.zero_grad()
        accelerator.backward(d_loss)
        d_optimizer.step()

        g_loss = adversarial.generator(discriminator(fake))
        g_optimizer.zero_grad()
        accelerator.backward(g_loss)
        g_optimizer.step()
    accelerator.print(f"d_loss {d_loss.item():.4f}, g_loss {g_loss.item():.4f}")


if __name__ == "__main__":
    main()
