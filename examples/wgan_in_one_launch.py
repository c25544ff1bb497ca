"""WGAN with weight clipping: what takes four passes over all weights is the optimizer's one step."""

import torch
from torch import nn

from fastgan.losses import AdversarialLoss
from fastgan.optim import EMA, Adam, RMSprop


def main(steps: int = 20) -> None:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    critic = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    adversarial = AdversarialLoss("wgan")

    # Instead of clip_grad_value_, torch.optim.RMSprop.step and a loop of clamp_ over the weights:
    critic_optimizer = RMSprop(critic.parameters(), lr=5e-4, grad_clip_value=0.25, weight_clip=0.05)
    # Instead of torch.optim.Adam.step and a loop of lerp_ over a copy of the weights:
    ema = EMA(generator, decay=0.99)
    generator_optimizer = Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9), ema=ema)

    for step in range(steps):
        for _ in range(5):
            real = torch.randn(64, 2) * 0.1 + torch.tensor([1.0, -1.0])
            fake = generator(torch.randn(64, 8)).detach()
            critic_loss = adversarial.discriminator(critic(real), critic(fake))
            critic_optimizer.zero_grad()
            critic_loss.backward()
            critic_optimizer.step()

        generator_loss = adversarial.generator(critic(generator(torch.randn(64, 8))))
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if step % 10 == 0:
            print(f"step {step}: critic {critic_loss.item():.4f}, generator {generator_loss.item():.4f}")

    assert all(weight.abs().max() <= 0.05 for weight in critic.parameters())
    with torch.no_grad():
        print("samples around", ema.average(torch.randn(256, 8)).mean(0).tolist())


if __name__ == "__main__":
    main()
