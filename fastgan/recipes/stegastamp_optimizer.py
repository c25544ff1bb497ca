"""The optimizer of StegaStamp's critic."""

from __future__ import annotations

from torch import nn

from fastgan.optim import Adam, RMSprop
from fastgan.recipes.stegastamp_config import StegaStampConfig


def make_discriminator_optimizer(config: StegaStampConfig, network: nn.Module) -> Adam | RMSprop:
    """RMSprop with WGAN's clipping, or Adam."""
    if config.d_optimizer == "adam":
        if config.adversarial == "wgan":
            raise ValueError("adversarial=wgan clips weights in rmsprop: d_optimizer=adam needs another")
        return Adam(network.parameters(), config.lr_d, (config.beta1_d, config.beta2_d), statistics=True)
    make = RMSprop.tensorflow_style if config.tf_epsilon else RMSprop
    return make(
        network.parameters(),
        lr=config.lr_d,
        grad_clip_value=config.d_grad_clip or None,
        weight_clip=config.d_weight_clip if config.adversarial == "wgan" else None,
        statistics=True,
    )
