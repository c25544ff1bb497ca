"""StarGAN v2's hyper-parameters, and where each default comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fastgan.recipes.starganv2.networks import check_size
from fastgan.training.config import TrainingConfig

if TYPE_CHECKING:
    from fastgan.monitor.facts import Facts

# Losses whose halves are independent: wgan needs clipping or a penalty, relativistic pairs reals with fakes.
Adversarial = Literal["hinge", "nonsaturating", "bce", "lsgan"]
# The kinds of style in each update of a step: of references ("ref") or from noise ("lat").
STYLE_KINDS = {"joint": (("ref", "lat"),), "in_turn": (("lat",), ("ref",))}


@dataclass(frozen=True)
class StarGANv2Config(TrainingConfig):
    """StarGAN v2: diverse image synthesis for multiple domains (Choi et al., CVPR 2020), images or latents.

    D minimizes (D_ref + D_lat) / 2 + r1_weight R1; generator, mapping network and style encoder together
    minimize w_adv (adv_ref + adv_lat) + w_sty (sty_ref + sty_lat) + w_cyc (cyc_ref + cyc_lat) + w_id id
    - lambda_ds (ds_ref + ds_lat), where "ref" takes the style from a reference and "lat" from noise; with
    updates=in_turn each kind by itself. Defaults are the paper's for AFHQ, 256x256 images, unless said
    otherwise; the preset `paper` follows the authors' code, `latents` is for 4x32x32 latents.
    """

    num_steps: int = 100000
    """Steps to train. Where it is given and num_epochs is not, it counts, and num_epochs becomes 0; both on
    the command line are an error."""
    batch_size: int = 8
    """Sources per step and process."""
    ema_decay: float = 0.999
    """Decay of the moving averages of generator, mapping network and style encoder, in [0, 1); 0: none."""

    train_path: str = ""
    """Folder with one folder per domain, each searched recursively; or shards of one, in a folder or
    at a URL."""
    val_path: str = ""
    """The same, held out; empty: every tenth file of each domain (64 at most) is held out."""
    domains: tuple[str, ...] = ()
    """Names of the domains' folders, at least two; empty: all of train_path, sorted."""
    data: Literal["images", "latents"] = "images"
    """images; or latents, one a file, stored unscaled as `fastgan data encode-latents` writes them:
    .safetensors, .pt, .pth or .npz with one tensor (or with one named "latent"), or .npy."""
    image_size: int = 256
    """Height and width of images or latents, a power of two and at least 8."""
    latent_channels: int = 4
    """Channels, for data=latents."""
    latent_scale: float = 0.18215
    """Factor of latents when they are read (Stable Diffusion's)."""
    crop: Literal["fit", "random", "slight"] = "fit"
    """Of images: fit: scale and cut the centre; random: random parts, of up to four times image_size,
    mirrored; slight: half of the images whole, squeezed, of the others parts of 0.8 to 1 of the area,
    mirrored (authors' code)."""
    vae: str = ""
    """Folder of a diffusers AutoencoderKL that decodes latents for sample pictures; empty: a preview, whose
    colours mean nothing."""

    z_dim: int = 16
    """Length of the mapping network's noise."""
    style_dim: int = 64
    """Length of a style code."""
    base_width: int = 64
    """Channels at full size, doubled at each halving (original: 2**14 / image_size)."""
    max_width: int = 512
    """Bound of the channels."""
    downs: int = 0
    """Halvings within the generator; 0: as many as leave 16x16."""
    mapping_width: int = 512
    """Width of the mapping network's layers."""

    updates: Literal["joint", "in_turn"] = "joint"
    """Order within a step. joint: D once, then generator, mapping network and style encoder once, on both
    kinds of styles. in_turn: D on "lat", D on "ref", each with R1; then all three on "lat", with the identity
    term; then the generator alone on "ref" (authors' code, whose maintainer found results much worse where
    the style encoder learned from "ref", too: issue 44)."""
    adversarial: Adversarial = "hinge"
    """hinge (not the paper's), nonsaturating (paper), bce or lsgan."""
    w_adv: float = 1.0
    """Weight of the adversarial terms."""
    w_sty: float = 1.0
    """Weight of the style's reconstruction."""
    w_cyc: float = 1.0
    """Weight of the cycle's reconstruction."""
    w_id: float = 1.0
    """Weight of the source's reconstruction in its own style (not in the paper); 0: not computed."""
    w_ds: float = 1.0
    """Weight of the difference between two translations, which is maximized, in the first epoch (paper: 2 for
    AFHQ, 1 for CelebA-HQ)."""
    ds_margin: float = 0.5
    """That difference counts up to here (not in the paper); 0: however large. In units of the networks, whose
    images are in [-1, 1]."""
    ds_decay_epochs: float = 0.0
    """lambda_ds = w_ds (1 - (epoch - 1) / ds_decay_epochs), at least 0, with epochs counted from 1; 0: as
    many as the run has (authors' code: falls with every step, over 100000)."""
    r1_weight: float = 0.5
    """Weight of the mean squared gradient of D on reals: half of the paper's gamma, 1; 0: none."""
    r1_interval: int = 16
    """Steps between R1 penalties, which then count as many times (paper: 1)."""
    lr: float = 0.0001
    """Adam's learning rate for generator, style encoder and discriminator."""
    lr_mapping: float = 0.000001
    """And for the mapping network."""
    beta1: float = 0.0
    """Adam's first beta."""
    beta2: float = 0.99
    """Adam's second beta."""
    weight_decay: float = 0.0001
    """Adam's weight decay."""

    eval_images: int = 32
    """Held-out images of each domain to translate in an evaluation."""
    eval_draws: int = 5
    """Translations of each, at least 2 (paper: 10)."""
    classifier_steps: int = 300
    """Steps that the classifier of an evaluation is trained on the real domains, with batches of 64."""

    own_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("train_path", "val_path", "domains", "data", "crop", "latent_scale", "vae"),
        "networks": (
            "image_size", "latent_channels", "z_dim", "style_dim", "base_width", "max_width", "downs",
            "mapping_width",
        ),
        "losses": (
            "adversarial", "w_adv", "w_sty", "w_cyc", "w_id", "w_ds", "ds_margin", "r1_weight", "r1_interval",
        ),
        "optimizers": ("lr", "lr_mapping", "beta1", "beta2", "weight_decay"),
        "schedule": ("updates", "ds_decay_epochs"),
        "evaluation": ("eval_images", "eval_draws", "classifier_steps"),
    }  # fmt: skip
    refused_on_resume: ClassVar[frozenset[str]] = TrainingConfig.refused_on_resume | {
        "domains", "data", "image_size", "latent_channels", "z_dim", "style_dim", "base_width",
        "max_width", "downs", "mapping_width",
    }  # fmt: skip
    at_least_one: ClassVar[frozenset[str]] = TrainingConfig.at_least_one | {
        "latent_channels", "z_dim", "style_dim", "base_width", "max_width", "mapping_width", "r1_interval",
        "eval_images", "classifier_steps",
    }  # fmt: skip
    positive: ClassVar[frozenset[str]] = TrainingConfig.positive | {
        "lr", "lr_mapping", "latent_scale",
    }  # fmt: skip
    not_negative: ClassVar[frozenset[str]] = TrainingConfig.not_negative | {
        "w_adv", "w_sty", "w_cyc", "w_id", "w_ds", "ds_margin", "ds_decay_epochs", "r1_weight",
        "weight_decay", "downs",
    }  # fmt: skip

    def facts(self) -> Facts:
        from fastgan.monitor.facts import Facts

        return Facts(
            adversarial=self.adversarial,
            adversarial_term="adv",
            generator_loss="adv_lat_loss",
            value_range=(-1.0, 1.0) if self.data == "images" else None,
            is_standardized=self.data == "latents",
            penalties={"r1_penalty": self.r1_weight},
            decaying=("lambda_ds",) if self.w_ds > 0 else (),
            advice={
                "not_decayed": "lower --ds_decay_epochs, or leave it at 0: as many as the run has",
                "value_range latents": "--latent_scale: one over the latents' standard deviation",
                "gan_ignored": "raise --w_adv",
                "discriminator_wins": "raise --r1_weight, or lower --r1_interval to 1",
            },
        )

    @property
    def generator_terms(self) -> tuple[str, ...]:
        # The identity loss does not go through G's images: it keeps its ratio to the cycle's.
        return ("adv", "sty", "cyc", "ds")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.image_size)
        if self.eval_draws < 2:
            raise ValueError(f"eval_draws must be at least 2, to differ, got {self.eval_draws}")
        if self.vae and self.data != "latents":
            raise ValueError(f"vae decodes latents, which data={self.data} has none of, got {self.vae!r}")
        if self.crop != "fit" and self.data != "images":
            raise ValueError(f"crop is for images, which data={self.data} has none of, got {self.crop!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """C H W of the images or latents."""
        channels = 3 if self.data == "images" else self.latent_channels
        return channels, self.image_size, self.image_size


# As the authors' code trains on AFHQ, except that lambda_ds falls once per epoch, not with every step. For
# CelebA-HQ w_ds is 1, and the generator another: see networks.py.
PAPER = StarGANv2Config(
    exp_name="starganv2-paper",
    crop="slight",
    ema_warmup=False,
    updates="in_turn",
    adversarial="nonsaturating",
    w_id=0.0,
    w_ds=2.0,
    ds_margin=0.0,
    r1_interval=1,
    sample_interval=5000,
    eval_interval=10000,
    checkpoint_interval=10000,
)

# 4x32x32: the latents of Stable Diffusion's VAE for 256x256 images.
LATENTS = StarGANv2Config(
    exp_name="starganv2-latents",
    data="latents",
    image_size=32,
    base_width=256,
    downs=2,
)

# Takes minutes on two CPU cores: small pictures of two rendered domains, narrow networks, high learning
# rates, and the highest weight on cycle consistency, because there is little time.
DEMO = StarGANv2Config(
    exp_name="starganv2-demo",
    train_path="builtin:domains/train",
    val_path="builtin:domains/val",
    image_size=32,
    base_width=16,
    max_width=64,
    mapping_width=64,
    style_dim=16,
    z_dim=8,
    num_steps=1150,
    w_cyc=3.0,
    w_id=2.0,
    lr=0.0015,
    lr_mapping=0.0001,
    ema_decay=0.995,
    log_interval=50,
    sample_interval=115,
    eval_interval=115,
    checkpoint_interval=575,
    eval_images=50,
)

PRESETS = {"paper": PAPER, "latents": LATENTS, "demo": DEMO}
