"""zi2zi's hyper-parameters, and where each default comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fastgan.recipes.zi2zi.networks import halvings
from fastgan.training.config import TrainingConfig
from fastgan.training.values import check_seed

if TYPE_CHECKING:
    from fastgan.monitor.facts import Facts

SMALLEST_SIZE = 32


@dataclass(frozen=True)
class Zi2ZiConfig(TrainingConfig):
    """zi2zi: glyphs of one font in the style of others (Yuchen Tian, 2017).

    zi2zi has no paper: "original" are its published code and that code's defaults.
    """

    train_path: str = ""
    """Folder of pairs: what `fastgan data glyphs` wrote, or side-by-side images K_NNNNN.png of category K and
    character NNNNN, or a folder of such per category; or shards of either, in a folder or at a
    URL. `builtin:glyphs` needs no data."""
    source_side: Literal["left", "right"] = "left"
    """Where the pairs have the source font: left, as `fastgan data glyphs` writes them, or right, as the
    original's scripts do."""
    held_out: float = 0.1
    """Share of the characters, in (0, 1), that training never sees in any font, for the evaluation."""
    held_out_seed: int = 0
    """Of their choice, so that runs with another --seed are evaluated on the same ones; in [0, 2**63)."""
    val_images: int = 256
    """Held-out pairs to evaluate on, at most."""
    augment: float = 0.0
    """Pairs are enlarged by up to this share and cut at a random place (original: 0.2)."""

    image_size: int = 256
    """Height and width of glyphs, at least 32 (original: 256)."""
    channels: Literal[1, 3] = 1
    """Of glyphs: 1, grey, or 3 (original)."""
    category_num: int = 0
    """Categories that there is room for (original: 40); 0: as many as the data has."""
    downs: int = 0
    """How often G's encoder halves images; 0: as often as it can be done, 8 times for 256, 7 for 384."""
    width: int = 64
    """Channels of G's first layer (original); they double up to 8 times."""
    d_width: int = 64
    """Channels of D's first layer (original); they double three times."""
    embedding_dim: int = 128
    """Length of a category's embedding (original)."""
    norm: Literal["batch", "instance"] = "batch"
    """Normalization in G and D: batch (original) or instance."""
    dropout: float = 0.5
    """In the first three layers of G's decoder (original); in [0, 1)."""
    self_attention: bool = False
    """One layer of self-attention in G's encoder, after its third halving."""
    d_spectral_norm: bool = False
    """Spectral normalization on all layers of D, instead of `norm`."""

    l1_weight: float = 100.0
    """Weight of the mean absolute difference from the target, values in [-1, 1] (original)."""
    l1_ramp_epochs: float = 1.0
    """Epochs over which that weight rises from 0 (original: none)."""
    const_weight: float = 5.0
    """Weight of the mean squared difference of bottleneck features, averaged over space (original: 15)."""
    const_of: Literal["real", "fake"] = "real"
    """Whose features are to be those of the source: real, the target's; or fake, the result's (original)."""
    const_ramp_epochs: float = 1.0
    """Epochs over which that weight rises from 0 (original: none)."""
    perceptual_weight: float = 0.02
    """Weight of the distance in VGG16's relu1_2 and relu2_2 (original: none). It needs ImageNet's weights."""
    category_weight: float = 1.0
    """Weight of the category's cross entropy, the same in D, for the mean over reals and fakes, and in G, for
    fakes (original, which also takes unpaired glyphs)."""
    lr: float = 0.0002
    """Adam's learning rate for G and D (pix2pix; original: 0.001, with 0.0002 as its floor)."""
    schedule: int = 10
    """Epochs after which the learning rate halves, again and again (original); 0: never."""
    lr_floor: float = 0.00001
    """What it never falls below, in (0, lr]."""
    beta1: float = 0.5
    """Adam's first beta (original), in [0, 1)."""
    g_updates: int = 1
    """Updates of G per step (original: 2)."""

    own_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("train_path", "source_side", "held_out", "held_out_seed", "augment"),
        "networks": (
            "image_size", "channels", "category_num", "downs", "width", "d_width", "embedding_dim", "norm",
            "dropout", "self_attention", "d_spectral_norm",
        ),
        "losses": ("l1_weight", "const_weight", "const_of", "perceptual_weight", "category_weight"),
        "optimizers": ("lr", "lr_floor", "beta1"),
        "schedule": ("l1_ramp_epochs", "const_ramp_epochs", "schedule", "g_updates"),
        "evaluation": ("val_images",),
    }  # fmt: skip
    refused_on_resume: ClassVar[frozenset[str]] = TrainingConfig.refused_on_resume | {
        "image_size", "channels", "category_num", "downs", "width", "d_width", "embedding_dim", "norm",
        "self_attention", "d_spectral_norm",
    }  # fmt: skip
    at_least_one: ClassVar[frozenset[str]] = TrainingConfig.at_least_one | {
        "val_images", "width", "d_width", "embedding_dim", "g_updates",
    }  # fmt: skip
    not_negative: ClassVar[frozenset[str]] = TrainingConfig.not_negative | {
        "augment", "category_num", "downs", "l1_weight", "l1_ramp_epochs", "const_weight",
        "const_ramp_epochs", "perceptual_weight", "category_weight", "schedule",
    }  # fmt: skip

    def facts(self) -> Facts:
        from fastgan.monitor.facts import Facts

        return Facts(
            adversarial="bce",
            value_range=(-1.0, 1.0),
            advice={
                "gan_ignored": "lower --l1_weight",
                "term_dominates category_loss": "lower --category_weight",
                "term_dominates l1_loss": "lower --l1_weight",
                "discriminator_wins": "--d_spectral_norm true, or a smaller --d_width",
            },
        )

    @property
    def generator_terms(self) -> tuple[str, ...]:
        perceptual = ("perceptual_loss",) if self.perceptual_weight > 0 else ()
        return ("G_loss", "category_loss", "l1_loss", "const_loss", *perceptual)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < SMALLEST_SIZE:
            raise ValueError(f"image_size must be at least {SMALLEST_SIZE}, got {self.image_size}")
        halvings(self.image_size, self.downs)
        check_seed("held_out_seed", self.held_out_seed)
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must lie in (0, 1), got {self.held_out}")
        for name in ("dropout", "beta1"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 < self.lr_floor <= self.lr:
            raise ValueError(f"lr_floor must lie in (0, lr = {self.lr}], got {self.lr_floor}")


# The defaults of the original's train.py, unet.py and dataset.py, which has neither perceptual loss nor
# ramps. Its second batch, of sources with random categories and therefore without targets, is left out.
PAPER = Zi2ZiConfig(
    exp_name="zi2zi-paper",
    channels=3,
    category_num=40,
    batch_size=16,
    num_epochs=100,
    augment=0.2,
    l1_ramp_epochs=0.0,
    const_weight=15.0,
    const_of="fake",
    const_ramp_epochs=0.0,
    perceptual_weight=0.0,
    lr=0.001,
    lr_floor=0.0002,
    g_updates=2,
    workers=4,
    sample_interval=0,
    eval_interval=0,
    checkpoint_interval=0,
)

# Takes minutes on two CPU cores: two target fonts of matplotlib's wheel at 64x64, narrow networks.
DEMO = Zi2ZiConfig(
    exp_name="zi2zi-demo",
    train_path="builtin:glyphs",
    held_out=0.15,
    image_size=64,
    width=32,
    d_width=16,
    batch_size=16,
    num_epochs=19,
    augment=0.1,
    perceptual_weight=0.0,
    lr=0.0005,
    schedule=6,
    ema_decay=0.99,
    log_interval=20,
    sample_interval=380,
    eval_interval=380,
    checkpoint_interval=380,
)

PRESETS = {"paper": PAPER, "demo": DEMO}
