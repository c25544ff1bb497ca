"""A GAN as a LightningModule: manual optimization, since it has two optimizers, which are fastgan's."""

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastgan.losses import R1, AdversarialLoss
from fastgan.optim import EMA, Adam


class GAN(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
        self.adversarial = AdversarialLoss("nonsaturating")
        self.r1 = R1(self.discriminator, weight=0.1, interval=4)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        # Here the weights are on their device: the moving average is made beside them.
        ema = EMA(self.generator, decay=0.99)
        generator = Adam(self.generator.parameters(), lr=1e-3, betas=(0.0, 0.99), ema=ema)
        return [Adam(self.discriminator.parameters(), lr=1e-3, betas=(0.0, 0.99)), generator]

    def training_step(self, real: Tensor, batch_idx: int) -> None:
        d_optimizer, g_optimizer = self.optimizers()
        fake = self.generator(torch.randn(len(real), 8, device=self.device))
        d_loss = self.adversarial.discriminator(self.discriminator(real), self.discriminator(fake.detach()))
        d_optimizer.zero_grad()
        self.manual_backward(d_loss + self.r1(real, batch_idx).loss)
        d_optimizer.step()
        g_loss = self.adversarial.generator(self.discriminator(fake))
        g_optimizer.zero_grad()
        self.manual_backward(g_loss)
        g_optimizer.step()
        self.log_dict({"d_loss": d_loss, "g_loss": g_loss}, prog_bar=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    data = DataLoader(torch.randn(256, 2), batch_size=32)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    trainer.fit(GAN(), data)
    print({name: round(value.item(), 4) for name, value in trainer.callback_metrics.items()})
