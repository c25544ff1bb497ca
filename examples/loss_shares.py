"""What each loss term contributes to the generator's gradient, and weights that follow from wanted shares."""

import torch
from torch import nn

from fastgan.losses import AdversarialLoss
from fastgan.monitor import LossBudget
from fastgan.optim import Adam


def main(steps: int = 4) -> None:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 3, 3, 1, 1), nn.Sigmoid())
    discriminator = nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 4, 2, 1))
    adversarial = AdversarialLoss("hinge")
    g_optimizer = Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    d_optimizer = Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    budget = LossBudget()

    for step in range(steps):
        real = torch.rand(8, 3, 32, 32)
        fake = generator(real + 0.1 * torch.randn_like(real))

        d_optimizer.zero_grad()
        adversarial.discriminator(discriminator(real), discriminator(fake.detach())).backward()
        d_optimizer.step()

        leaf = budget.cut(fake)  # in place of fake in every loss
        terms = {"l1": (leaf - real).abs().mean(), "gan": adversarial.generator(discriminator(leaf))}
        g_optimizer.zero_grad()
        # Half of the steps with weights, the others with the shares that the terms are to have.
        if step < steps // 2:
            shares = budget.backward(terms, weights={"l1": 10.0, "gan": 0.1})
        else:
            shares = budget.backward(terms, shares={"l1": 0.9, "gan": 0.1})
        g_optimizer.step()
        share, cosine = shares.share["gan"].item(), shares.cosine("l1", "gan").item()
        print(f"step {step}: gan has {share:.1%} of the gradient, cosine with l1 {cosine:.2f}")


if __name__ == "__main__":
    main()
