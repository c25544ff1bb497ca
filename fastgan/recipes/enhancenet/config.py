"""EnhanceNet's hyper-parameters, and where each default comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fastgan.losses.perceptual import layer_index, layer_names
from fastgan.recipes.enhancenet.networks import check_scale
from fastgan.training.balance import Balance
from fastgan.training.config import TrainingConfig

if TYPE_CHECKING:
    from fastgan.monitor.facts import Facts

NETWORK = "vgg19"
MOST_BLOCKS = 1000  # a hundred times the paper's
# Weights of the generator's adversarial term by variant (the paper's supplement, table 2).
PAPER_ADVERSARIAL_WEIGHTS = {"PA": 1.0, "PAT": 2.0}


@dataclass(frozen=True)
class EnhanceNetConfig(TrainingConfig):
    """EnhanceNet: super-resolution through automated texture synthesis (Sajjadi et al., ICCV 2017).

    Defaults are the paper's unless said otherwise; :mod:`fastgan.recipes.enhancenet.networks` tells where
    networks and resampling differ. Where the paper is silent, or sources disagree:

    * Data: tensorpack's port takes COCO's photographs whose shorter side has at least 384 pixels, makes the
      square at their centre 256x256, and cuts crops of 128x128 from that. Here crops are cut from photographs
      as they are, in which textures are larger: for the paper's scale prepare the photographs so.
    * Features: their normalization in the texture term is read in several ways. Here each layer's are divided
      by one number, for both terms, see normalize_features.
    * Texture: squared differences of Gram matrices are averaged over their entries; others add them up.
    * Balance: no published source was found for the threshold of D's loss, 0.3; it is this project's.
    """

    variant: Literal["E", "P", "PA", "PAT"] = "E"
    """What G minimizes. E: the mean squared error; P: distances in VGG's features; PA: these and the
    adversarial loss; PAT: these and the texture loss. All but E need VGG19's ImageNet weights."""
    scale: Literal[2, 4] = 4
    """How many times as high and wide images become: 2 or 4."""
    train_path: str = ""
    """Folder with training photographs at high resolution, searched recursively; or shards of one,
    in a folder or at a URL."""
    val_path: str = ""
    """Folder with held-out photographs; empty: every tenth of train_path (64 at most) is held out."""
    val_images: int = 8
    """Held-out photographs to evaluate on, the first ones."""
    val_size: int = 1024
    """Held-out photographs are cut to at most this height and width, at the centre; 0: never."""
    crop: int = 128
    """Height and width of the parts of photographs to train on, a multiple of scale, at least twice it (the
    paper's inputs are 32x32, which makes 128 at scale 4), and as large as the layers of VGG19 need; smaller
    photographs are skipped, each with a warning."""
    turn: bool = False
    """Turn the crops at random by multiples of 90 degrees (not in the paper), for few photographs; they are
    mirrored in any case."""
    width: int = 64
    """Channels of G's layers."""
    blocks: int = 10
    """Residual blocks of G, at most 1000."""
    lr: float = 0.0001
    """Adam's learning rate for G (tensorpack's port)."""
    lr_d: float = 0.0001
    """Adam's learning rate for D."""
    lr_decay_steps: int = 0
    """Steps at the end over which both fall to a hundredth, along a cosine (not in the paper); 0: none."""
    beta1: float = 0.9
    """Adam's first beta, for both, in [0, 1) (the paper names none: Adam's own)."""

    perceptual_layers: tuple[str, ...] = ("pool2", "pool5")
    """Layers of VGG19 for the perceptual loss, for P, PA and PAT."""
    perceptual_weights: tuple[float, ...] = (0.2, 0.02)
    """Weight of the mean squared distance in each of them (supplement, table 2)."""
    texture_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1")
    """Layers of VGG19 for the texture loss, for PAT. The paper's conv1_1, conv2_1 and conv3_1, which in the
    networks it builds on include the ReLU."""
    texture_weights: tuple[float, ...] = (80.5, 1074.0, 4295.0)
    """Weight of the mean squared distance of Gram matrices in each of them. Gram matrices are divided here by
    channels C times pixels of a patch P, in the paper not: its weights 3e-7, 1e-6 and 1e-6 (supplement, table
    2) times (C P)^2 are these, with C = 64, 128, 256 and P = 16 * 16."""
    texture_patch: int = 16
    """Height and width of the patches of features that have a Gram matrix each."""
    normalize_features: bool = True
    """Scale the features of each layer to a mean of one, as the paper does and its weights expect; their
    means are measured on the first 16 training samples, when the run starts. false: as VGG has them."""
    adversarial_weight: float | None = None
    """Weight of G's adversarial term; null: the paper's, 1 for PA and 2 for PAT."""
    adversarial: Literal["bce", "lsgan", "nonsaturating", "hinge"] = "bce"
    """Game of PA and PAT: bce (paper), lsgan (mean squared error), nonsaturating or hinge."""
    balance: Balance = "threshold"
    """Who trains. threshold: the half of D's loss on reals or on fakes counts while above balance_threshold
    (the paper trains D while its performance is below a threshold that it does not name); every_step; ratio:
    balance_ratio updates of D and G; adaptive: D trains while it knows fewer reals than balance_target."""
    d_loss_weight: float = 1.0
    """Factor on D's loss, the sum of its halves (paper; so does tensorpack's port, as twice their mean).
    Adam's steps hardly feel it."""
    d_channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Widths of D's pairs of convolutions; each pair halves the image."""
    d_dense: int = 1024
    """Width of D's hidden dense layer."""
    log_d_after: bool = True
    """Log also what D says of the same images after its step, for one more forward of D on the reals."""

    own_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("train_path", "val_path", "crop", "turn"),
        "networks": ("scale", "width", "blocks", "d_channels", "d_dense"),
        "losses": (
            "variant", "perceptual_layers", "perceptual_weights", "texture_layers", "texture_weights",
            "texture_patch", "normalize_features", "adversarial", "adversarial_weight", "d_loss_weight",
        ),
        "optimizers": ("lr", "lr_d", "beta1"),
        "schedule": ("lr_decay_steps",),
        "evaluation": ("val_images", "val_size", "log_d_after"),
    }  # fmt: skip
    refused_on_resume: ClassVar[frozenset[str]] = TrainingConfig.refused_on_resume | {
        "scale", "width", "blocks", "d_channels", "d_dense",
    }  # fmt: skip
    at_least_one: ClassVar[frozenset[str]] = TrainingConfig.at_least_one | {
        "width", "blocks", "val_images", "texture_patch", "d_dense",
    }  # fmt: skip
    not_negative: ClassVar[frozenset[str]] = TrainingConfig.not_negative | {
        "val_size", "lr_decay_steps", "adversarial_weight",
    }  # fmt: skip
    positive: ClassVar[frozenset[str]] = TrainingConfig.positive | {
        "lr", "lr_d", "d_loss_weight",
    }  # fmt: skip

    @property
    def is_perceptual(self) -> bool:
        return self.variant != "E"

    @property
    def is_adversarial(self) -> bool:
        return self.variant in PAPER_ADVERSARIAL_WEIGHTS

    @property
    def has_texture(self) -> bool:
        return self.variant == "PAT"

    @property
    def G_loss_weight(self) -> float:
        """The weight of G's adversarial term."""
        if self.adversarial_weight is not None:
            return self.adversarial_weight
        return PAPER_ADVERSARIAL_WEIGHTS.get(self.variant, 0.0)

    def facts(self) -> Facts:
        from fastgan.monitor.facts import Facts

        return Facts(
            adversarial=self.adversarial if self.is_adversarial else None,
            value_range=(0.0, 1.0),
            advice={
                "discriminator_wins": "--balance threshold with a higher --balance_threshold, or a lower "
                "--lr_d",
                "gan_ignored": "raise --adversarial_weight until share_G_loss is a few hundredths",
            },
        )

    @property
    def generator_terms(self) -> tuple[str, ...]:
        pixels = () if self.is_perceptual else ("mse_loss",)
        perceptual = ("perceptual_loss",) if self.is_perceptual else ()
        texture = ("texture_loss",) if self.has_texture else ()
        return (*pixels, *perceptual, *texture, *(("G_loss",) if self.is_adversarial else ()))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self.scale)
        if self.crop < 2 * self.scale or self.crop % self.scale:
            raise ValueError(
                f"crop must be a multiple of scale = {self.scale}, at least twice that, got {self.crop}"
            )
        if self.blocks > MOST_BLOCKS:
            raise ValueError(f"blocks must be at most {MOST_BLOCKS}, got {self.blocks}")
        if not 0 <= self.beta1 < 1:
            raise ValueError(f"beta1 must lie in [0, 1), got {self.beta1}")
        if self.is_perceptual:
            self._check_layers("perceptual", 1)
        if self.has_texture:
            self._check_layers("texture", self.texture_patch)

    def _check_layers(self, kind: str, smallest: int) -> None:
        layers, weights = getattr(self, f"{kind}_layers"), getattr(self, f"{kind}_weights")
        if not layers or len(set(layers)) != len(layers) or len(weights) != len(layers):
            raise ValueError(
                f"{kind}_weights must be one for each of {kind}_layers, which must differ, got "
                f"{weights} for {layers}"
            )
        if min(weights) < 0:
            raise ValueError(f"{kind}_weights must not be negative, got {weights}")
        for layer in layers:
            before = layer_names(NETWORK)[: layer_index(layer, NETWORK) + 1]
            needed = smallest * 2 ** sum(name.startswith("pool") for name in before)
            if self.crop < needed:
                raise ValueError(f"crop must be at least {needed} for {layer}, got {self.crop}")


# The paper's networks, losses and weights, crops of 4 * 32 pixels, and a D that does not train while it wins.
# Batch size and learning rate are those of tensorpack's port; the number of steps and the threshold of 0.3
# are this project's.
PAPER = EnhanceNetConfig(
    exp_name="enhancenet-paper",
    variant="PAT",
    batch_size=16,
    num_steps=300000,
    workers=4,
    log_interval=100,
    sample_interval=2000,
    eval_interval=5000,
    checkpoint_interval=5000,
)

# Takes minutes on two CPU cores: squared error, half the width, a higher learning rate with decay.
DEMO = EnhanceNetConfig(
    exp_name="enhancenet-demo",
    train_path="builtin:photographs/train",
    val_path="builtin:photographs/val",
    crop=96,
    turn=True,
    width=32,
    batch_size=16,
    num_steps=900,
    lr=0.001,
    lr_decay_steps=750,
    ema_decay=0.99,
    log_interval=50,
    sample_interval=300,
    eval_interval=300,
    checkpoint_interval=450,
)

PRESETS = {"paper": PAPER, "demo": DEMO}
