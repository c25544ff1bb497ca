"""Public trainers that `fastgan bench trainers` runs."""

from __future__ import annotations

from fastgan.bench.public import autoencoders, restoration, style, translation
from fastgan.bench.public.base import Trainer, Training

__all__ = ["TRAINERS", "Trainer", "Training"]

TRAINERS = {
    "StarGAN v2": Trainer(
        "stargan-v2", "clovaai/stargan-v2", ("starganv2", "torch.optim"), translation.starganv2,
        "adv_loss, r1_reg, moving_average; four Adams",
    ),
    "CycleGAN": Trainer(
        "CUT", "taesungp/contrastive-unpaired-translation", ("pix2pix", "torch.optim"),
        translation.cut("cycle_gan"), "GANLoss of both sides and both discriminators; two Adams",
    ),
    "CUT": Trainer(
        "CUT", "taesungp/contrastive-unpaired-translation", ("pix2pix", "torch.optim"),
        translation.cut("cut"), "GANLoss of both sides; three Adams",
    ),
    "zi2zi": Trainer(
        "zi2zi-pytorch", "EuphoriaYan/zi2zi-pytorch", ("zi2zi", "torch.optim"), translation.zi2zi,
        "BinaryLoss; two Adams (CategoryLoss is plain PyTorch)",
    ),
    "BasicSR": Trainer(
        "BasicSR", "XPixelGroup/BasicSR", ("basicsr", "torch.optim"), restoration.basicsr,
        "L1Loss, GANLoss of both sides; two Adams",
    ),
    "Real-ESRGAN": Trainer(
        "Real-ESRGAN", "xinntao/Real-ESRGAN", ("basicsr", "torch.optim"), restoration.real_esrgan,
        "L1Loss, GANLoss of both sides; two Adams", beside=("BasicSR",),
    ),
    "R3GAN": Trainer(
        "R3GAN", "brownvc/R3GAN", ("r3gan", "torch.optim"), style.r3gan,
        "R1 and R2, bias and leaky ReLU of all layers; two Adams",
    ),
    "StudioGAN": Trainer(
        "PyTorch-StudioGAN", "POSTECH-CVLab/PyTorch-StudioGAN", ("studiogan", "torch.optim"), style.studiogan,
        "losses of both sides, cal_grad_penalty; two Adams", inside=("src",),
    ),
    "taming": Trainer(
        "taming-transformers", "CompVis/taming-transformers", ("taming", "torch.optim"), autoencoders.taming,
        "hinge_d_loss; two Adams (LPIPS drops features at random in training mode)",
    ),
    "latent-diffusion": Trainer(
        "latent-diffusion", "CompVis/latent-diffusion", ("ldm", "torch.optim"), autoencoders.latent_diffusion,
        "hinge_d_loss; two Adams (LPIPS drops features at random in training mode)",
        beside=("taming-transformers",),
    ),
    "Video Seal": Trainer(
        "videoseal", "facebookresearch/videoseal", ("videoseal", "torch.optim"), autoencoders.videoseal,
        "LPIPS with its VGG, hinge_d_loss; two AdamWs",
    ),
    "StyleGAN2-ADA": Trainer(
        "stylegan2-ada-pytorch", "NVlabs/stylegan2-ada-pytorch", ("stylegan2_ada", "torch.optim"),
        style.stylegan2_ada, "bias and leaky ReLU of all layers; two Adams",
    ),
    "StyleGAN3": Trainer(
        "stylegan3", "NVlabs/stylegan3", ("stylegan3", "torch.optim"), style.stylegan3,
        "bias and leaky ReLU of all layers (with StyleGAN2's networks); two Adams",
    ),
    "rosinality": Trainer(
        "stylegan2-pytorch", "rosinality/stylegan2-pytorch", ("rosinality", "torch.optim"), style.rosinality,
        "d_logistic_loss, d_r1_loss, g_nonsaturating_loss, accumulate; two Adams",
    ),
}  # fmt: skip
