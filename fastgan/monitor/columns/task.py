"""Does it learn the task? Terms of G's loss, accuracies, and figures beside what takes no skill."""

from __future__ import annotations

import math
import re

from fastgan.monitor.columns._column import STYLES, TASK, Column
from fastgan.monitor.curve import Curve, number
from fastgan.monitor.rules.terms import STUCK, STUCK_FROM, STUCK_FROM_STEP

BITS_BY_CHANCE = 0.5
TERMS = {
    "secret": f"cross entropy of the message's bits; {number(math.log(2))} if they are guessed",
    "image": "distance of the stamped image from the image, over its colour channels",
    "lpips": "perceptual distance (LPIPS); 0 for equal images",
    "mse": "mean squared error of pixels",
    "l1": "mean absolute error of pixels",
    "l2": "mean squared error of pixels",
    "perceptual": "distance of features of a trained network",
    "texture": "distance of the features' Gram matrices, patch by patch",
    "const": "squared distance between the encoder's features of source and output",
    "category": "cross entropy of the category that D reads from G's output",
    "id": "mean absolute error of images that were translated with their own style",
    "Y": "squared error of luma", "U": "squared error of the colour channel U",
    "V": "squared error of the colour channel V",
}  # fmt: skip
STYLE_TERMS = {
    "sty": "How far the style read from a translation is from the one asked for",
    "cyc": "How far an image is from itself after a translation there and back",
}


def _weighted(match: re.Match[str], curve: Curve) -> str:
    return curve.weighted()


def _bits(match: re.Match[str], curve: Curve) -> str:
    facts, step = curve.facts, curve.history.step
    chance = facts.chance.get(curve.name, BITS_BY_CHANCE)
    if curve.now is None or curve.now >= chance + STUCK:
        return ""
    patience = int(min(STUCK_FROM * (facts.num_steps or math.inf), STUCK_FROM_STEP))
    normal = f"which is normal until step {patience}" if step < patience else "which is no longer normal"
    return f"It has learned nothing yet, {normal}."


def _beside_baseline(match: re.Match[str], curve: Curve) -> str:
    for suffix in ("_bicubic", "_of_source"):
        base = curve.latest(curve.name + suffix)
        if base is not None and curve.now is not None:
            ahead = (curve.now > base) == (match[1] in HIGHER_IS_BETTER)
            side = "better" if ahead else "worse"
            return f"That is {side} than {curve.name + suffix}, {number(base)}, which takes no skill."
    return ""


MEASURES = {
    "psnr": "Peak signal to noise ratio in dB", "ssim": "Structural similarity, 1 for equal images",
    "lpips": "Perceptual distance (LPIPS), 0 for equal images", "l1": "Mean absolute error of pixels",
}  # fmt: skip
HIGHER_IS_BETTER = ("psnr", "ssim")
BASES = {"source": "unchanged source", "bicubic": "bicubic interpolation"}

COLUMNS = (
    Column(
        r"bit_acc", TASK, "The part of the message's bits that the decoder reads right.", _bits,
        chance=BITS_BY_CHANCE,
    ),
    Column(
        r"bit_acc_(.+)", TASK,
        r"The part of the message's bits that the decoder reads right, on held-out images (\1).", _bits,
        chance=BITS_BY_CHANCE,
    ),
    Column(
        r"str_acc(_.+)?", TASK,
        "The part of the messages that are read without a single wrong bit; 0 for long.",
    ),
    Column(
        r"D_category_loss", TASK,
        "D's cross entropy for the category of glyphs, the mean of real and of generated ones.",
    ),
    Column(r"D_accuracy_category", TASK, "The part of the real glyphs whose category D reads right."),
    Column(r"D_.+_loss", TASK, "A further term of D's loss, beside the game's."),
    *(
        Column(
            f"{term}_{kind}_loss", TASK, f"{what}, with styles from {styles}; lower is better.", _weighted
        )
        for term, what in STYLE_TERMS.items()
        for kind, styles in STYLES.items()
    ),
    *(
        Column(
            f"{term}_loss", TASK, rf"G's term \g<0>, unweighted: {what}; lower is better.", _weighted
        )
        for term, what in TERMS.items()
    ),
    Column(r".+_loss", TASK, r"G's term \g<0>, unweighted; lower is better.", _weighted),
    *(
        Column(rf"{measure}(_y|_rgb)?_(of_)?{base}", TASK, f"{what} of the {whose}: to be beaten.")
        for measure, what in MEASURES.items()
        for base, whose in BASES.items()
    ),
    *(
        Column(
            rf"({measure})(_y|_rgb)?", TASK,
            f"{what}; {'higher' if measure in HIGHER_IS_BETTER else 'lower'} is better.", _beside_baseline,
        )
        for measure, what in MEASURES.items()
    ),
    Column(
        r"l1_ratio(_worst)?", TASK,
        "Error of the drawn glyphs over that of the source glyphs as they are: 1 takes no skill, lower is "
        "better.",
    ),
    Column(
        r"fid|frechet_distance_of_random_features", TASK,
        "Distance between the features of generated and of held-out images, 0 if they are alike. Values "
        "compare only with the same count of images and the same features.",
    ),
    Column(
        r"classifier_acc", TASK,
        "Accuracy of the judge on real held-out images: the best that translated_acc can mean.",
    ),
    Column(
        r"translated_acc_(latent|reference)", TASK,
        r"The part of the translations (styles by \1) that the judge takes for the domain asked for; 0 if G "
        "leaves images as they are.",
    ),
    Column(
        r"cycle_l1", TASK, "Mean absolute error of held-out images after a translation there and back."
    ),
)  # fmt: skip
