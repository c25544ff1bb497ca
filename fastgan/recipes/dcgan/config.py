"""DCGAN's hyper-parameters, and where each default comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fastgan.losses.adversarial import Kind
from fastgan.training.config import TrainingConfig

if TYPE_CHECKING:
    from fastgan.monitor.facts import Facts


@dataclass(frozen=True)
class DCGANConfig(TrainingConfig):
    """DCGAN: images from noise (Radford, Metz and Chintala, ICLR 2016).

    Defaults are the paper's unless said otherwise; :mod:`fastgan.recipes.dcgan.networks` tells where the
    networks differ. Once per epoch by default: losses, pictures, an evaluation and a checkpoint. Losses are
    averaged over the updates that were made.
    """

    num_epochs: int = 25
    """Passes over the images (the authors' code for faces, and ports; the paper shows LSUN's bedrooms after
    one and after five): unless it is 0, it counts and num_steps does not; 0 where num_steps alone is
    given."""
    batch_size: int = 128
    """Images per update and process."""
    log_interval: int = 0
    """Steps between log lines; 0: once per epoch."""
    sample_interval: int = 0
    """Steps between sample grids; 0: once per epoch."""
    eval_interval: int = 0
    """Steps between evaluations; 0: once per epoch."""
    checkpoint_interval: int = 0
    """Steps between checkpoints; 0: once per epoch."""
    ema_decay: float = 0.999
    """Decay of the generator's moving average, used for samples and evaluation (not the paper's), in [0, 1);
    0: none."""

    train_path: str = ""
    """Folder with training images, searched recursively; or shards of one, in a folder or at a URL."""
    val_path: str = ""
    """Folder with held-out images; empty: every tenth of train_path (64 at most) is held out."""
    image_size: Literal[32, 64, 128, 256] = 64
    """Height and width: 32, 64, 128 or 256."""
    channels: Literal[1, 3] = 3
    """3, or 1: images are made grey."""
    crop: Literal["fit", "random"] = "fit"
    """fit: scale and cut the centre; random: random parts, mirrored."""
    z_dim: int = 100
    """Length of a latent."""
    latent: Literal["normal", "uniform"] = "normal"
    """Distribution of latents: normal (ports), or uniform in [-1, 1] (paper)."""
    g_width: int = 128
    """Channels of the generator's last hidden layer (ports: 64); doubled at each halving, up to 8 times."""
    d_width: int = 128
    """Channels of the discriminator's first layer (ports: 64); doubled likewise."""
    d_norm: Literal["batch", "instance", "none"] = "batch"
    """batch, instance or none; loss=wgan-gp needs one of the last two."""
    d_spectral_norm: bool = False
    """Spectral norm on D's convolutions (not in the paper)."""
    d_minibatch_std: bool = False
    """Show D the standard deviation among its samples (not in the paper)."""
    diff_augment: tuple[Literal["color", "translation", "cutout"], ...] = ()
    """Augment what D sees: any of color, translation, cutout (not in the paper; helps with few images)."""

    loss: Kind = "bce"
    """bce (paper), nonsaturating, lsgan, hinge, wgan, wgan-gp or relativistic."""
    real_label: float = 1.0
    """D's label of reals, for bce and lsgan; 0.9 smooths it."""
    fake_label: float = 0.0
    """D's label of fakes, for bce and lsgan."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """adam (paper), or rmsprop (as WGAN's paper)."""
    lr_d: float = 0.0002
    """D's learning rate."""
    lr_g: float = 0.0002
    """G's learning rate."""
    beta1: float = 0.5
    """Adam's first beta."""
    beta2: float = 0.999
    """Adam's second beta."""
    weight_decay: float = 0.0
    """L2 decay of all weights, added to their gradients (authors' code: 0.00001, which the paper omits)."""
    n_critic: int = 1
    """Updates of D per step, each on a batch of its own (WGAN: 5)."""
    n_g_steps: int = 1
    """Updates of G per step, each on latents of its own."""
    d_weight_clip: float = 0.01
    """Bound of D's weights, for loss=wgan (Arjovsky et al.)."""
    gp_weight: float = 10.0
    """Weight of the gradient penalty, for loss=wgan-gp (Gulrajani et al.)."""
    r1_weight: float = 0.0
    """Weight of the R1 penalty; 0: none."""
    r1_interval: int = 16
    """Steps between R1 penalties, which then count as many times."""

    collapse_images: int = 64
    """Generated and real images whose distances among themselves an evaluation compares, at least 2."""
    collapse_ratio: float = 0.5
    """Warn when generated images lie closer together than this part of the real ones' distance."""
    collapse_after: int = 1000
    """Steps in which the generator may get there first; a run that has been there is warned of at once."""
    frechet: Literal["off", "random", "inception"] = "random"
    """Frechet distance from held-out images: off; random: in features of a random network, which is not FID;
    inception: FID, whose weights must be in torch hub's cache."""
    frechet_images: int = 512
    """Generated images for it, at least 2; all held-out ones are taken, up to as many."""

    own_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("train_path", "val_path", "crop"),
        "networks": (
            "image_size", "channels", "z_dim", "latent", "g_width", "d_width", "d_norm", "d_spectral_norm",
            "d_minibatch_std",
        ),
        "losses": (
            "loss", "real_label", "fake_label", "gp_weight", "r1_weight", "r1_interval", "diff_augment",
        ),
        "optimizers": ("optimizer", "lr_d", "lr_g", "beta1", "beta2", "weight_decay", "d_weight_clip"),
        "schedule": ("n_critic", "n_g_steps"),
        "evaluation": (
            "collapse_images", "collapse_ratio", "collapse_after", "frechet", "frechet_images",
        ),
    }  # fmt: skip
    refused_on_resume: ClassVar[frozenset[str]] = TrainingConfig.refused_on_resume | {
        "image_size", "channels", "z_dim", "g_width", "d_width", "d_norm", "d_spectral_norm",
        "d_minibatch_std", "optimizer",
    }  # fmt: skip
    at_least_one: ClassVar[frozenset[str]] = TrainingConfig.at_least_one | {
        "z_dim", "g_width", "d_width", "n_critic", "n_g_steps", "r1_interval",
    }  # fmt: skip
    positive: ClassVar[frozenset[str]] = TrainingConfig.positive | {
        "lr_d", "lr_g", "d_weight_clip",
    }  # fmt: skip
    not_negative: ClassVar[frozenset[str]] = TrainingConfig.not_negative | {
        "weight_decay", "r1_weight", "gp_weight", "collapse_ratio",
    }  # fmt: skip

    def facts(self) -> Facts:
        from fastgan.monitor.facts import Facts

        return Facts(
            adversarial=self.loss,
            real_label=self.real_label,
            fake_label=self.fake_label,
            value_range=(-1.0, 1.0),
            penalties={"r1_penalty": self.r1_weight, "D_penalty": self.gp_weight},
            collapse_ratio=self.collapse_ratio,
            collapse_after=self.collapse_after,
            advice={
                "mode_collapse": "lower --lr_d and --lr_g, --d_minibatch_std true, --diff_augment [color,"
                "translation,cutout], or another --loss",
                "generator_wins": "lower --lr_d and --lr_g, then fewer --n_g_steps",
                "discriminator_wins": "--diff_augment [color,translation,cutout], --r1_weight 1, or a lower "
                "--lr_d",
                "discriminator_overfits": "--diff_augment [color,translation,cutout], or more images",
            },
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("collapse_images", "frechet_images"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {getattr(self, name)}")
        if self.loss == "wgan-gp" and self.d_norm == "batch":
            raise ValueError(
                "loss=wgan-gp penalizes the gradient of single samples, which d_norm=batch makes depend on "
                "each other: set d_norm to instance or none"
            )


PAPER = DCGANConfig(latent="uniform")

# Widths and image size for two CPU cores; the rest is tuned for 1437 images.
DEMO = DCGANConfig(
    exp_name="dcgan-demo",
    train_path="builtin:digits/train",
    val_path="builtin:digits/val",
    image_size=32,
    channels=1,
    z_dim=32,
    g_width=48,
    d_width=48,
    batch_size=64,
    num_epochs=95,
    real_label=0.9,
    ema_decay=0.995,
    sample_interval=220,
    checkpoint_interval=440,
)

# A published example of a failure: learning rates 10 and 20 times the paper's, two updates of G per step, and
# no moving average, which would hide part of it.
UNSTABLE = dataclasses.replace(
    DEMO,
    exp_name="dcgan-unstable",
    lr_d=0.002,
    lr_g=0.004,
    n_g_steps=2,
    real_label=0.9,
    fake_label=0.1,
    ema_decay=0.0,
    num_epochs=15,
)

PRESETS = {"paper": PAPER, "demo": DEMO, "unstable": UNSTABLE}
