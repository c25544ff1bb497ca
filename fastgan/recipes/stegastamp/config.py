"""StegaStamp's hyper-parameters: the names of the original's train.py, and where each default comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fastgan.losses.adversarial import Kind
from fastgan.recipes.stegastamp.networks import image_height_width
from fastgan.training.config import TrainingConfig

if TYPE_CHECKING:
    from fastgan.monitor.facts import Facts

Rounding = Literal["straight_through", "cubic", "at_zero", "polynomial", "noise", "none"]


@dataclass(frozen=True)
class StegaStampConfig(TrainingConfig):
    """StegaStamp: invisible hyperlinks in physical photographs (Tancik et al., CVPR 2020).

    Defaults are those of the original's train.py unless said otherwise. A ramp of r steps raises its
    value linearly from 0.
    """

    train_path: str = ""
    """Folder with training photographs, searched recursively; or shards of one, in a folder or at a URL."""
    val_path: str = ""
    """Folder with held-out photographs; empty: every tenth of train_path (64 at most) is held out."""
    val_images: int = 64
    """Held-out images to evaluate; more than there are gives more cuts of each."""
    image_size: int = 400
    """Height and width, a multiple of 16."""
    crop: Literal["fit", "random"] = "fit"
    """fit: scale and cut the centre, as the original; random: random parts, mirrored."""
    secret_size: int = 20
    """Bits of the secret (paper: 100)."""
    paired_secrets: bool = True
    """Draw a batch's secrets as pairs that differ in every bit (not in the original, which draws each alone).
    Every secret is still uniform, and the expected gradient the same; but what the decoder says of a bit
    whatever the image, which hides the signal from it until it can read, cancels within a pair."""
    lr: float = 0.0001
    """Adam's learning rate for encoder and decoder."""
    lr_warmup_steps: int = 0
    """First steps, at least 0, over which lr rises from nothing (not in the original); 0: none. Adam's first
    steps are as large as lr whatever the gradient: a high lr can drive the image out of [0, 1], where it has
    none."""
    lr_decay_steps: int = 0
    """Steps at the end over which lr falls to a tenth, along a cosine (not in the original), in
    [0, num_steps], or the steps of num_epochs; 0: none."""

    no_im_loss_steps: int = 500
    """First steps with the secret loss alone: no image losses, no adversarial term, D not updated."""
    no_im_loss_bit_acc: float = 1.0
    """End that phase earlier, once the logged bit accuracy reaches this (not in the original)."""
    ramps_after_no_im_loss: bool = False
    """Count the ramps of l2, LPIPS and G from the end of the first phase, so that they set in gently whenever
    it ends. The original counts from step 0."""
    l2_loss_scale: float = 1.5
    """Weight of the YUV L2 loss."""
    l2_loss_ramp: int = 20000
    """Ramp of l2_loss_scale."""
    l2_edge_gain: float = 10.0
    """Extra weight of the border in the L2 loss."""
    l2_edge_ramp: int = 20000
    """Ramp of l2_edge_gain, after l2_edge_delay."""
    l2_edge_delay: int = 60000
    """Step at which l2_edge_gain starts to rise."""
    lpips_loss_scale: float = 1.0
    """Weight of LPIPS (AlexNet); 0: not computed, and its weights are not needed."""
    lpips_loss_ramp: int = 20000
    """Ramp of lpips_loss_scale."""
    secret_loss_scale: float = 1.0
    """Weight of the secret's binary cross entropy."""
    secret_loss_ramp: int = 1
    """Ramp of secret_loss_scale."""
    G_loss_scale: float = 1.0
    """Weight of the adversarial term."""
    G_loss_ramp: int = 20000
    """Ramp of G_loss_scale."""
    y_scale: float = 1.0
    """Weight of Y in the L2 loss."""
    u_scale: float = 1.0
    """Weight of U in the L2 loss."""
    v_scale: float = 1.0
    """Weight of V in the L2 loss."""

    no_gan: bool = False
    """Train without a discriminator."""
    adversarial: Kind = "wgan"
    """wgan (original), wgan-gp, hinge, nonsaturating, bce, lsgan or relativistic."""
    critic_sign: Literal[1, -1] = -1
    """-1: D is high for fakes (original: D minimizes D(real) - D(fake)); +1: high for real ones."""
    n_critic: int = 1
    """Updates of D per step, each on fresh secrets."""
    d_optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    """rmsprop (original) or adam."""
    lr_d: float = 0.00001
    """Learning rate of D."""
    beta1_d: float = 0.5
    """Adam's first beta for D."""
    beta2_d: float = 0.999
    """Adam's second beta for D."""
    tf_epsilon: bool = True
    """RMSprop as in TensorFlow: epsilon inside the square root, the average starting at one."""
    d_grad_clip: float = 0.25
    """Clip D's gradients by value; 0: not."""
    d_weight_clip: float = 0.01
    """Clip D's weights after its step, for adversarial=wgan."""
    gp_weight: float = 10.0
    """Weight of the gradient penalty, for adversarial=wgan-gp (Gulrajani et al.)."""
    r1_weight: float = 0.0
    """Weight of the R1 penalty; 0: none."""
    d_channels: tuple[int, ...] = (8, 16, 32, 64)
    """Widths of D's layers (original); e.g. [8, 16, 32, 64, 128, 256] for a stronger one."""
    d_activation: Literal["relu", "leaky_relu"] = "relu"
    """relu (original) or leaky_relu."""
    d_spectral_norm: bool = False
    """Spectral norm on D's layers."""

    borders: Literal["no_edge", "black", "white", "random", "randomrgb", "image"] = "black"
    """What fills the border that un-warping opens: no_edge, black, white, random, randomrgb, image."""
    rnd_trans: float = 0.1
    """Largest displacement of the corners, as a part of the width, in [0, 0.5)."""
    rnd_trans_ramp: int = 10000
    """Ramp of rnd_trans."""
    rnd_bri: float = 0.3
    """Brightness offset, +-."""
    rnd_bri_ramp: int = 1000
    """Ramp of rnd_bri."""
    rnd_sat: float = 1.0
    """Largest desaturation."""
    rnd_sat_ramp: int = 1000
    """Ramp of rnd_sat."""
    rnd_hue: float = 0.1
    """Offset of each colour channel, +-."""
    rnd_hue_ramp: int = 1000
    """Ramp of rnd_hue."""
    rnd_noise: float = 0.02
    """Largest standard deviation of the noise."""
    rnd_noise_ramp: int = 1000
    """Ramp of rnd_noise."""
    contrast_low: float = 0.5
    """Lowest contrast factor, in [0, contrast_high]."""
    contrast_high: float = 1.5
    """Highest contrast factor, at least contrast_low."""
    contrast_ramp: int = 1000
    """Ramp of the contrast's range."""
    jpeg_quality: float = 25.0
    """Lowest JPEG quality, in [1, 100]."""
    jpeg_quality_ramp: int = 1000
    """Ramp from quality 100 to jpeg_quality."""
    no_jpeg: bool = False
    """Leave JPEG out."""
    jpeg_rounding: Rounding = "straight_through"
    """Gradient of JPEG's rounding: straight_through, cubic, polynomial, noise, at_zero (original), none."""
    blur_gaussian: float = 0.25
    """Probability of a Gaussian blur, in [0, 1 - blur_line]."""
    blur_line: float = 0.25
    """Probability of a motion blur, in [0, 1 - blur_gaussian]."""

    own_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("train_path", "val_path", "crop"),
        "networks": ("image_size", "secret_size", "d_channels", "d_activation", "d_spectral_norm"),
        "losses": (
            "paired_secrets", "secret_loss_scale", "l2_loss_scale", "l2_edge_gain", "y_scale", "u_scale",
            "v_scale", "lpips_loss_scale", "G_loss_scale", "no_gan", "adversarial", "critic_sign",
            "gp_weight", "r1_weight",
        ),
        "optimizers": (
            "lr", "d_optimizer", "lr_d", "beta1_d", "beta2_d", "tf_epsilon", "d_grad_clip", "d_weight_clip",
        ),
        "schedule": (
            "lr_warmup_steps", "lr_decay_steps", "no_im_loss_steps", "no_im_loss_bit_acc",
            "ramps_after_no_im_loss", "secret_loss_ramp", "l2_loss_ramp", "l2_edge_ramp", "l2_edge_delay",
            "lpips_loss_ramp", "G_loss_ramp", "n_critic",
        ),
        "distortions": (
            "borders", "rnd_trans", "rnd_trans_ramp", "rnd_bri", "rnd_bri_ramp", "rnd_sat", "rnd_sat_ramp",
            "rnd_hue", "rnd_hue_ramp", "rnd_noise", "rnd_noise_ramp", "contrast_low", "contrast_high",
            "contrast_ramp", "jpeg_quality", "jpeg_quality_ramp", "no_jpeg", "jpeg_rounding",
            "blur_gaussian", "blur_line",
        ),
        "evaluation": ("val_images",),
    }  # fmt: skip
    refused_on_resume: ClassVar[frozenset[str]] = TrainingConfig.refused_on_resume | {
        "image_size", "secret_size", "d_optimizer", "d_channels", "d_spectral_norm",
    }  # fmt: skip
    at_least_one: ClassVar[frozenset[str]] = TrainingConfig.at_least_one | {
        "secret_size", "n_critic", "val_images",
    }  # fmt: skip

    def facts(self) -> Facts:
        from fastgan.monitor.facts import Facts

        return Facts(
            adversarial=None if self.no_gan else self.adversarial,
            critic_sign=self.critic_sign,
            value_range=(0.0, 1.0),
            penalties={"r1_penalty": self.r1_weight},
            chance={"bit_acc": 0.5},
            advice={
                "critic_dead": "--adversarial hinge --r1_weight 1 --d_optimizer adam --lr_d 0.0002 "
                "--beta1_d 0 --d_activation leaky_relu, and more --d_channels",
                "stuck": "another --seed, another --lr (0.0001 to 0.001), fewer bits (--secret_size), or a "
                "longer --no_im_loss_steps",
                "shortcut": "--borders other than no_edge: D then sees real and stamped images in the same "
                "geometry",
                "gan_ignored": "raise --G_loss_scale until share_G_loss is a few hundredths",
                "discriminator_wins": "--r1_weight 1 or more, or a lower --lr_d",
            },
        )

    @property
    def generator_terms(self) -> tuple[str, ...]:
        lpips = ("lpips_loss",) if self.lpips_loss_scale > 0 else ()
        return ("secret_loss", "image_loss", *lpips, *(() if self.no_gan else ("G_loss",)))

    def __post_init__(self) -> None:
        super().__post_init__()
        image_height_width(self.image_size)
        if self.lr_warmup_steps < 0:
            raise ValueError(f"lr_warmup_steps must be at least 0, got {self.lr_warmup_steps}")
        if not self.num_epochs:  # otherwise the recipe checks, which knows the steps
            self.check_lr_decay_steps(self.num_steps)
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must lie in [1, 100], got {self.jpeg_quality}")
        if not 0 <= self.contrast_low <= self.contrast_high:
            raise ValueError(
                "contrast_low must not be negative nor above contrast_high, "
                f"got {self.contrast_low} and {self.contrast_high}"
            )
        if not 0 <= self.rnd_trans < 0.5:  # from 0.5 on, corners could cross
            raise ValueError(f"rnd_trans must lie in [0, 0.5), got {self.rnd_trans}")
        if self.blur_gaussian < 0 or self.blur_line < 0 or self.blur_gaussian + self.blur_line > 1:
            raise ValueError(
                "blur_gaussian and blur_line are probabilities of one choice, "
                f"got {self.blur_gaussian} and {self.blur_line}"
            )

    def check_lr_decay_steps(self, num_steps: int) -> None:
        """Raises a ValueError if the learning rate would decay for more steps than the run has."""
        if not 0 <= self.lr_decay_steps <= num_steps:
            of = f" of {self.num_epochs} epochs" if self.num_epochs else ""
            raise ValueError(
                f"lr_decay_steps must lie in [0, num_steps = {num_steps}{of}], got {self.lr_decay_steps}"
            )


# The original's scripts/base.sh.
PAPER = StegaStampConfig(
    exp_name="stegastamp-paper",
    secret_size=100,
    num_steps=140000,
    no_im_loss_steps=1500,
    rnd_trans=0.1,
    rnd_trans_ramp=10000,
    l2_loss_scale=2.0,
    l2_loss_ramp=15000,
    lpips_loss_scale=1.5,
    lpips_loss_ramp=15000,
    G_loss_scale=0.5,
    G_loss_ramp=15000,
    secret_loss_scale=1.5,
    y_scale=1.0,
    u_scale=100.0,
    v_scale=100.0,
    borders="white",
    jpeg_quality=50.0,
    l2_edge_gain=10.0,
    l2_edge_ramp=10000,
    l2_edge_delay=80000,
)

# Takes minutes on two CPU cores: small images, a short secret, mild geometry and colour, JPEG as in the
# paper.
DEMO = StegaStampConfig(
    exp_name="demo",
    train_path="builtin:photographs/train",
    val_path="builtin:photographs/val",
    image_size=64,
    crop="random",
    secret_size=32,
    batch_size=12,
    num_steps=1600,
    lr=0.0005,
    lr_warmup_steps=100,
    lr_decay_steps=1050,
    ema_decay=0.99,
    no_im_loss_steps=400,
    no_im_loss_bit_acc=0.9,
    ramps_after_no_im_loss=True,
    l2_loss_scale=120.0,
    l2_loss_ramp=800,
    l2_edge_gain=0.0,
    lpips_loss_scale=0.0,
    secret_loss_scale=1.0,
    # Weighed like luma, chroma takes the whole stamp, as large coloured blotches; from 8 on luma takes it, as
    # lines that cost more SSIM.
    u_scale=4.0,
    v_scale=4.0,
    # A critic that lives: with weights clipped to 0.01, the original's scores every image about 0 (fault
    # critic_dead). Here hinge loss and R1 bound D, not clipping; Adam with StyleGAN's betas, LeakyReLU and
    # twice the original's widths let it learn within a thousand steps.
    adversarial="hinge",
    r1_weight=1.0,
    d_optimizer="adam",
    lr_d=0.0002,
    beta1_d=0.0,
    beta2_d=0.99,
    d_grad_clip=0.0,
    d_weight_clip=0.0,
    d_channels=(16, 32, 64, 128),
    d_activation="leaky_relu",
    # About a twentieth of the encoder's gradient (share_G_loss).
    G_loss_scale=0.05,
    G_loss_ramp=800,
    borders="white",
    rnd_trans=0.02,
    rnd_trans_ramp=1000,
    rnd_bri=0.1,
    rnd_sat=0.3,
    rnd_hue=0.03,
    contrast_low=0.8,
    contrast_high=1.2,
    jpeg_quality=50.0,
    blur_gaussian=0.05,
    blur_line=0.05,
    log_interval=100,
    sample_interval=800,
    eval_interval=800,
    checkpoint_interval=800,
)

PRESETS = {"paper": PAPER, "demo": DEMO}
