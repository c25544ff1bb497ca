"""`fastgan bench verdicts`: are faults named that were planted in short runs, and healthy runs left alone?

Each recipe's demo, shortened to a few hundred steps, is trained as it is and with one fault at a time. Rules'
bounds may be set by what runs of the seeds in CALIBRATION_SEEDS show; results count on the other seeds, of
which no rule has seen a run.
"""

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
import functools
import multiprocessing
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan._arguments import Parser, at_least_one
from fastgan._tables import rows_of
from fastgan.bench.rows import conclude, merge_rows
from fastgan.losses import AdversarialLoss, PerceptualLoss
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.facts import read_facts
from fastgan.recipes import load_recipe
from fastgan.training.built_in import data_folder
from fastgan.training.data import find_local_images
from fastgan.training.loop import train
from fastgan.training.measurement import describe_machine
from fastgan.training.recipe import Recipe

CALIBRATION_SEEDS = (0, 1, 2, 3, 4)
# Of which 0 and 3 are in the calibration half; runs of the others were judged once, with all bounds fixed.
HEALTHY_SEEDS = (0, 3, 5, 6, 7)
FAULT_SEEDS = (0, 5, 6)
ALARMING = ("fault", "warning")

Options = dict[str, Any]
Plant = Callable[[type[Recipe]], type[Recipe]]
AnyRun = TypeVar("AnyRun")


class Healthy(NamedTuple):
    """A shortened demo."""

    recipe: str
    options: Options
    plant: Plant | None = None
    data: Callable[[Path], Options] | None = None
    """Writes data into a folder; returns the options that name it."""


class Fault(NamedTuple):
    """One thing done wrong in a shortened demo."""

    variant: str
    """The key in HEALTHY of what it is planted in."""
    names: tuple[str, ...]
    """The verdicts that name it, any of them, each as NAME or "NAME SUBJECT"."""
    options: Options | None = None
    plant: Plant | None = None
    data: Callable[[Path], Options] | None = None


# --- what options cannot plant ------------------------------------------------------------------------------


def once_made(change: Callable[[Any], None]) -> Plant:
    """A recipe that is changed after it was made."""

    def plant(recipe_class: type[Recipe]) -> type[Recipe]:
        def __init__(self: Any, *args: Any) -> None:
            recipe_class.__init__(self, *args)
            change(self)

        return type(recipe_class.__name__, (recipe_class,), {"__init__": __init__})

    return plant


def with_method(name: str, method: Callable[..., Any]) -> Plant:
    """A recipe whose method of this name is replaced; the new one gets the old one, bound, first."""

    def plant(recipe_class: type[Recipe]) -> type[Recipe]:
        old: Any = getattr(recipe_class, name)
        replaced = lambda self, *args: method(old.__get__(self), *args)  # noqa: E731
        return type(recipe_class.__name__, (recipe_class,), {name: replaced})

    return plant


def unwarped_reals(_: Any, image: Tensor, *stamped: Tensor) -> tuple[Tensor, Tensor]:
    """Reals as they are, beside stamped images that went through warp and borders."""
    return image, stamped[-1]


class _OneSignFlipped(AdversarialLoss):
    """G's loss takes high scores for fakes where D's takes them for reals, or the other way round."""

    def generator(self, fake_logits: Any, *_: Any, **__: Any) -> Tensor:
        loss: Tensor = super().generator(-fake_logits)
        return loss


class _Saturating(AdversarialLoss):
    """G minimizes log(1 - D(G(z))), whose gradient vanishes where D is certain."""

    def generator(self, fake_logits: Any, *_: Any, **__: Any) -> Tensor:
        return -F.softplus(fake_logits).mean()


def _adversarial(kind: type[AdversarialLoss]) -> Plant:
    def change(recipe: Any) -> None:
        old = recipe.adversarial
        recipe.adversarial = kind(
            old.kind, old.critic_sign, real_label=old.real_label, fake_label=old.fake_label
        )

    return once_made(change)


def _swap_labels(recipe: Any) -> None:
    old = recipe.adversarial
    recipe.adversarial = AdversarialLoss(old.kind, real_label=old.fake_label, fake_label=old.real_label)


def _optimize_a_copy(recipe: Any) -> None:
    """D's optimizer holds the weights of another network, as of one that was replaced later."""
    (group,) = recipe.optimizers["discriminator"].param_groups
    group["params"] = [*copy.deepcopy(recipe.discriminator).parameters()]


def _freeze_half(recipe: Any) -> None:
    parameters = [*recipe.generator.parameters()]
    for parameter in parameters[: len(parameters) // 2]:
        parameter.requires_grad_(False)


def _in_minus_one_to_one(batches: Callable[..., Any], start_step: int) -> Iterable[Tensor]:
    with_range = batches(start_step)
    try:
        for image in with_range:
            yield image * 2 - 1
    finally:
        with_range.close()


def _in_zero_to_one(as_trained: Callable[..., Any], image: Tensor) -> Tensor:
    return as_trained(image) / 2 + 0.5


def random_features(value_range: tuple[float, float], layer: str, **options: Any) -> Plant:
    """Perceptual losses of a random VGG, so that no weights are needed."""

    def loss(_: Any) -> PerceptualLoss:
        return PerceptualLoss([layer], value_range=value_range, backbone=None, **options)

    return with_method("_perceptual_loss", loss)


def _eight_images(folder: Path) -> Options:
    folder.mkdir(parents=True, exist_ok=True)
    for path in find_local_images(data_folder("builtin:digits/train"))[:8]:
        shutil.copyfile(path, folder / path.name)
    return {"train_path": str(folder)}


def _few_of_each_domain(folder: Path) -> Options:
    """So few that an epoch is short, as the weight of ds falls once per epoch."""
    for source in sorted(data_folder("builtin:domains/train").iterdir()):
        (folder / source.name).mkdir(parents=True, exist_ok=True)
        for path in find_local_images(source)[:160]:
            shutil.copyfile(path, folder / source.name / path.name)
    return {"train_path": str(folder)}


# Of Stable Diffusion's VAE, whose latents the factor 0.18215 scales to one (Rombach et al. 2022).
LATENT_DEVIATION = 5.49


def _latents(folder: Path) -> Options:
    """Two domains of smooth random fields, which differ in the mean of each channel."""
    for domain, name in enumerate(("a", "b")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(domain)
        means = random.normal(size=(4, 1, 1))
        for index in range(64):
            coarse = torch.from_numpy(random.normal(size=(1, 4, 4, 4)))
            field = F.interpolate(coarse, (16, 16), mode="bicubic")[0].numpy()
            latent = means + field + 0.1 * random.normal(size=field.shape)
            np.save(folder / name / f"{index:02d}.npy", (LATENT_DEVIATION * latent / 1.2).astype(np.float32))
    return {"train_path": str(folder)}


# --- healthy runs and faults --------------------------------------------------------------------------------

SHORT: Options = {
    "num_epochs": 0, "log_interval": 5, "sample_interval": 10**6, "checkpoint_interval": 10**6, "workers": 1,
    "accelerator": "cpu",
}  # fmt: skip
# Learning rates at which G leaves its grey start within a hundred steps; at the demo's it takes thousands.
DCGAN: Options = SHORT | {
    "num_steps": 180, "batch_size": 32, "g_width": 24, "d_width": 12, "lr_g": 0.002, "lr_d": 0.0005,
    "frechet": "off", "ema_decay": 0.95, "eval_interval": 45, "collapse_after": 100,
}  # fmt: skip
STEGASTAMP: Options = SHORT | {
    "num_steps": 160, "image_size": 32, "batch_size": 8, "secret_size": 8, "no_im_loss_steps": 50,
    "lr_warmup_steps": 10, "lr_decay_steps": 0, "l2_loss_ramp": 50, "l2_loss_scale": 20.0, "G_loss_ramp": 50,
    "rnd_trans": 0.05, "rnd_trans_ramp": 1, "eval_interval": 40, "val_images": 24,
    # A D that lives, in place of the original's.
    "adversarial": "hinge", "r1_weight": 1.0, "d_optimizer": "adam", "lr_d": 0.0002, "beta1_d": 0.0,
    "beta2_d": 0.99, "d_grad_clip": 0.0, "d_activation": "leaky_relu", "d_channels": (16, 32, 64, 128),
    "G_loss_scale": 0.05,
}  # fmt: skip
STARGAN: Options = SHORT | {
    "num_steps": 140, "image_size": 16, "base_width": 16, "max_width": 32, "mapping_width": 32,
    "batch_size": 8, "eval_interval": 50, "eval_images": 16, "eval_draws": 2, "classifier_steps": 1,
}  # fmt: skip
ZI2ZI: Options = SHORT | {
    "num_steps": 140, "image_size": 32, "width": 16, "d_width": 8, "batch_size": 16, "val_images": 64,
    "l1_ramp_epochs": 0.5, "const_ramp_epochs": 0.5, "eval_interval": 80,
}  # fmt: skip
ENHANCENET: Options = SHORT | {
    "num_steps": 120, "crop": 48, "width": 16, "blocks": 4, "batch_size": 8, "lr_decay_steps": 0,
    "eval_interval": 60, "val_size": 64,
}  # fmt: skip
ENHANCENET_PA: Options = ENHANCENET | {
    "variant": "PA", "d_channels": (8, 16, 32), "d_dense": 64, "batch_size": 4, "lr_d": 0.0005,
    "perceptual_layers": ("pool2",), "perceptual_weights": (0.2,), "normalize_features": False,
    "adversarial_weight": 0.01, "eval_interval": 40,
}  # fmt: skip

HEALTHY: dict[str, Healthy] = {
    "dcgan": Healthy("dcgan", DCGAN),
    "stegastamp": Healthy("stegastamp", STEGASTAMP),
    "starganv2": Healthy("starganv2", STARGAN, data=_few_of_each_domain),
    "starganv2 of latents": Healthy(
        "starganv2",
        STARGAN | {"data": "latents", "val_path": "", "num_steps": 60},
        data=_latents,
    ),
    "zi2zi": Healthy("zi2zi", ZI2ZI),
    "enhancenet": Healthy("enhancenet", ENHANCENET),
    "enhancenet PA": Healthy(
        "enhancenet", ENHANCENET_PA, random_features((0, 1), "pool2", network="vgg19", weights=[0.2])
    ),
}

# Enough for what is seen in the weights or in the data.
BRIEF: Options = {"num_steps": 60}
# In D's loss or in G's: the same weight counts in both.
CATEGORY = ("term_dominates D_category_loss", "term_dominates category_loss")
UNSCALED: Options = BRIEF | {"latent_scale": 1.0}

FAULTS: dict[str, Fault] = {
    # Beside fakes in the encoder's geometry, whose borders are filled with the image, a D of so few steps and
    # pixels does not see the warp (probe_auc_null 0.5), and no harm is done.
    "D gets unwarped reals": Fault(
        "stegastamp",
        ("shortcut",),
        {"num_steps": 180, "rnd_trans": 0.25},
        with_method("seen_by_discriminator", unwarped_reals),
    ),
    "critic's sign flipped for G": Fault(
        "stegastamp", ("not_adversarial",), {"num_steps": 90}, plant=_adversarial(_OneSignFlipped)
    ),
    "critic's sign flipped for G, dcgan": Fault(
        "dcgan", ("not_adversarial",), {"num_steps": 100}, plant=_adversarial(_OneSignFlipped)
    ),
    "real and fake labels swapped for D": Fault(
        "dcgan", ("not_adversarial",), {"num_steps": 100}, plant=once_made(_swap_labels)
    ),
    "weight clip 1e-4": Fault(
        "stegastamp",
        ("critic_dead",),
        {
            "num_steps": 130,
            "adversarial": "wgan",
            "r1_weight": 0.0,
            "d_optimizer": "rmsprop",
            "lr_d": 0.00001,
            "d_weight_clip": 1e-4,
            "d_grad_clip": 0.25,
            "d_activation": "relu",
            "d_channels": (8, 16, 32, 64),
        },
    ),
    "weight clip 1e-4, dcgan": Fault(
        "dcgan",
        ("critic_dead",),
        {
            "loss": "wgan",
            "real_label": 1.0,
            "d_weight_clip": 1e-4,
            "optimizer": "rmsprop",
            "lr_d": 5e-5,
            "lr_g": 5e-5,
            "d_norm": "none",
            "num_steps": 100,
        },
    ),
    "lr_d 1e-7": Fault("dcgan", ("steps_too_small D",), BRIEF | {"lr_d": 1e-7}),
    "lr_d 1e-7, stegastamp": Fault("stegastamp", ("steps_too_small D",), {"lr_d": 1e-7, "num_steps": 110}),
    "lr_d 1e-1": Fault("dcgan", ("steps_too_large D", "diverging"), BRIEF | {"lr_d": 1e-1}),
    "G's adversarial weight x 1e-4": Fault(
        "stegastamp", ("gan_ignored",), {"G_loss_scale": 0.05e-4, "G_loss_ramp": 20, "l2_loss_ramp": 20}
    ),
    "G's adversarial weight x 1e-4, starganv2": Fault(
        "starganv2", ("gan_ignored",), {"w_adv": 1e-4, "num_steps": 100}
    ),
    "G's adversarial weight x 1e3": Fault(
        "starganv2", ("term_dominates adv",), {"w_adv": 1e3, "num_steps": 100}
    ),
    "G's adversarial weight x 1e3, enhancenet": Fault(
        "enhancenet PA", ("term_dominates G_loss",), {"adversarial_weight": 10.0, "num_steps": 100}
    ),
    "D not in its optimizer": Fault("dcgan", ("not_learning D",), BRIEF, plant=once_made(_optimize_a_copy)),
    "half of G frozen": Fault("zi2zi", ("not_learning G",), BRIEF, plant=once_made(_freeze_half)),
    "images in [-1, 1] for [0, 1]": Fault(
        "enhancenet", ("value_range images",), BRIEF, plant=with_method("batches", _in_minus_one_to_one)
    ),
    "images in [0, 1] for [-1, 1]": Fault(
        "dcgan", ("value_range images",), BRIEF, plant=with_method("as_trained", _in_zero_to_one)
    ),
    "perceptual term of [0, 1] for [-1, 1]": Fault(
        "zi2zi",
        ("value_range perceptual",),
        BRIEF | {"perceptual_weight": 0.02, "batch_size": 8},
        random_features((0, 1), "relu1_2"),
    ),
    "R1 x 1e4": Fault("stegastamp", ("penalty_dominates",), {"r1_weight": 1e4, "num_steps": 140}),
    "R1 x 1e4, starganv2": Fault("starganv2", ("penalty_dominates",), {"r1_weight": 0.5e4, "num_steps": 100}),
    "preset unstable": Fault(
        "dcgan",
        ("generator_wins", "mode_collapse"),
        {
            "lr_d": 0.002,
            "lr_g": 0.004,
            "n_g_steps": 2,
            "real_label": 0.9,
            "fake_label": 0.1,
            "ema_decay": 0.0,
        },
    ),
    # Of two evaluations in which D knows them by heart.
    "8 training images": Fault("dcgan", ("discriminator_overfits",), {"num_steps": 270}, data=_eight_images),
    "latents not scaled": Fault("starganv2 of latents", ("value_range latents",), UNSCALED),
    "weight of ds not decayed": Fault(
        "starganv2", ("not_decayed",), {"ds_decay_epochs": 1e6, "num_steps": 80}
    ),
    "category weight x 100": Fault("zi2zi", CATEGORY, {"category_weight": 100.0}),
    # At the demo's learning rate of G: at a higher one, Adam makes large steps of vanishing gradients.
    "saturating loss, strong D": Fault(
        "dcgan",
        ("discriminator_wins",),
        {"d_width": 32, "lr_g": 0.0002, "num_steps": 100},
        _adversarial(_Saturating),
    ),
    "n_critic 20": Fault(
        "dcgan", ("discriminator_wins",), {"n_critic": 20, "num_steps": 80, "batch_size": 16}
    ),
}


# --- training and judging -----------------------------------------------------------------------------------


class Run(NamedTuple):
    name: str
    """Of the fault, or of the healthy variant."""
    seed: int

    @property
    def fault(self) -> Fault | None:
        return FAULTS.get(self.name)

    @property
    def half(self) -> str:
        return "calibration" if self.seed in CALIBRATION_SEEDS else "report"

    def folder(self, runs: Path) -> Path:
        kept = "".join(c if c.isalnum() else "-" for c in self.name)
        return runs / f"{kept}-{self.seed}"


def all_runs(seeds: Iterable[int] | None = None, only: str | None = None) -> list[Run]:
    """Healthy runs of five seeds and faulty ones of three, or of the given seeds."""
    healthy = [Run(name, seed) for name in HEALTHY for seed in seeds or HEALTHY_SEEDS]
    faulty = [Run(name, seed) for name in FAULTS for seed in seeds or FAULT_SEEDS]
    return [run for run in (*healthy, *faulty) if only in (None, run.name)]


def train_run(run: Run, runs: Path) -> str:
    """Trains one run in this process; returns what it failed with, or ""."""
    torch.set_num_threads(1)
    fault, folder = run.fault, run.folder(runs)
    healthy = HEALTHY[fault.variant if fault else run.name]
    recipe_class: type[Recipe] = load_recipe(healthy.recipe)
    options = healthy.options | {"seed": run.seed, "exp_name": folder.name, "runs_path": str(runs)}
    for part in (healthy, fault):
        if part is not None:
            data = part.data(runs / "data" / folder.name) if part.data else {}
            options |= (part.options or {}) | data
            recipe_class = part.plant(recipe_class) if part.plant else recipe_class
    return train_briefly(recipe_class, options, folder, f"{run.name} {run.seed}")


def train_briefly(recipe_class: type[Recipe], options: Options, folder: Path, name: str) -> str:
    """Trains the demo with other options, anew; returns what it failed with, or "".

    Of the folder only its tables and facts stay. A run that ends with a number that is not finite has not
    failed: its tables are judged up to there.
    """
    shutil.rmtree(folder, ignore_errors=True)
    begin = time.process_time()
    try:
        train(recipe_class, dataclasses.replace(recipe_class.presets["demo"], **options))
    except FloatingPointError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
    except Exception:
        return f"{name}:\n{traceback.format_exc()}"
    finally:
        for part in ("checkpoints", "tensorboard", "samples"):
            shutil.rmtree(folder / part, ignore_errors=True)
    print(f"{name}: {time.process_time() - begin:.0f} s of CPU time", file=sys.stderr, flush=True)
    return ""


def judge_run(run: Run, runs: Path) -> dict[str, Any]:
    """What rules say of a trained run, as a row for the file of results.

    Raises:
        FileNotFoundError: it was not trained there.
    """
    folder, fault = run.folder(runs), run.fault
    if not is_trained(folder):
        raise FileNotFoundError(f"{folder} holds no run of {run.name!r}, seed {run.seed}")
    steps, verdicts = said_of(folder)
    alarms = [v for v in verdicts if v["severity"] in ALARMING]
    row_of_run: dict[str, Any] = {
        "run": run.name, "seed": run.seed, "half": run.half, "is_fault": fault is not None,
        "recipe": HEALTHY[fault.variant if fault else run.name].recipe, "steps": steps, "verdicts": verdicts,
    }  # fmt: skip
    if fault is None:
        return row_of_run | {"right": not alarms}
    naming = [v["said"] for v in alarms if {v["name"], f"{v['name']} {v['subject']}"} & {*fault.names}]
    others = {v["name"] for v in alarms} - {name.split()[0] for name in fault.names}
    return row_of_run | {
        "names": list(fault.names), "right": bool(naming), "named_at": min(naming, default=None),
        "beside": sorted(others),
    }  # fmt: skip


def is_trained(folder: Path) -> bool:
    """Whether a folder has what a run's verdicts are read from."""
    return read_facts(folder) is not None and (folder / "metrics.csv").exists()


def said_of(folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """The last logged step of a run, and all verdicts that were said while it trained, first to last."""
    diagnosis, said = Diagnosis(read_facts(folder)), []
    tables = (folder / name for name in ("metrics.csv", "evaluation.csv"))
    rows = [row for table in tables if table.exists() for row in rows_of(table)]
    for step, row in sorted(rows, key=lambda row: row[0]):
        said += [(step, verdict) for verdict in diagnosis.add(step, row)]
    return diagnosis.history.step, [
        {"name": v.name, "subject": v.subject, "severity": v.severity, "since": v.step, "said": step}
        for step, v in said
    ]


def main(arguments: list[str]) -> int:
    parser = Parser(prog="fastgan bench verdicts", description=__doc__)
    parser.add_argument("--runs_path", type=Path, default=Path("runs/verdicts"), help="folder of the runs")
    parser.add_argument(
        "--seeds", type=int, nargs="+",
        help=f"default: {HEALTHY_SEEDS} of healthy runs, {FAULT_SEEDS} of faults; bounds were set on "
        f"{CALIBRATION_SEEDS}",
    )  # fmt: skip
    parser.add_argument("--only", choices=[*HEALTHY, *FAULTS], metavar="RUN", help="a fault or healthy run")
    parser.add_argument("--judge", action="store_true", help="judge the runs that are there; train none")
    parser.add_argument("--processes", type=at_least_one, default=1, help="runs at a time, each on one core")
    parser.add_argument("--output", type=Path, help="folder for verdicts-<device name>.json")
    options = parser.parse_args(arguments)
    runs = all_runs(options.seeds, options.only)
    failed = []
    if not options.judge:
        train_one = functools.partial(train_run, runs=options.runs_path)
        failed = [f"{run.name} {run.seed}" for run in train_all(runs, train_one, options.processes)]
    machine = describe_machine("cpu")
    rows = []
    for run in runs:
        try:
            rows.append(judge_run(run, options.runs_path) | machine)
        except FileNotFoundError as error:
            print(error)
            failed.append(f"{run.name} {run.seed}")
    print("\n".join(lines(rows)))
    path = None
    if options.output and rows:
        path = merge_rows(rows, options.output, "verdicts", machine["device"], ("run", "seed"))
    return conclude(path, failed)


def train_all(runs: Sequence[AnyRun], train_one: Callable[[AnyRun], str], processes: int) -> list[AnyRun]:
    """Trains runs, so many at a time, in processes of their own; returns those that failed, and says why."""
    failed = []
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context, _without_output) as pool:
        for run, error in zip(runs, pool.map(train_one, runs), strict=True):
            if error:
                print(error)
                failed.append(run)
    return failed


def _without_output() -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process lives)


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each fault and healthy variant, of either half of the seeds, and the sums."""
    text = []
    for half in ("calibration", "report"):
        counted = [row for row in rows if row["half"] == half]
        if not counted:
            continue
        text += ["", f"{half} half: seeds {', '.join(map(str, sorted({row['seed'] for row in counted})))}"]
        for name in dict.fromkeys(row["run"] for row in counted):
            of_name = [row for row in counted if row["run"] == name]
            right = sum(row["right"] for row in of_name)
            if of_name[0]["is_fault"]:
                steps = ", ".join(str(row["named_at"] or "never") for row in of_name)
                beside = ", ".join(sorted({other for row in of_name for other in row["beside"]}))
                text.append(
                    f"  {name:<42} named in {right} of {len(of_name)}, at step {steps}"
                    + (f"; also: {beside}" if beside else "")
                )
            else:
                alarms = sorted({v["name"] for row in of_name for v in _alarms(row)})
                text.append(
                    f"  {name:<42} healthy, left alone in {right} of {len(of_name)}"
                    + (f"; false: {', '.join(alarms)}" if alarms else "")
                )
        text.append("  " + summary(counted))
    return text


def summary(rows: list[dict[str, Any]]) -> str:
    """How many faults were named, and how many healthy runs had an alarm."""
    faults, healthy = [r for r in rows if r["is_fault"]], [r for r in rows if not r["is_fault"]]
    named, alarmed = sum(row["right"] for row in faults), sum(not row["right"] for row in healthy)
    return (
        f"{named} of {len(faults)} faults named right, "
        f"false alarms in {alarmed} of {len(healthy)} healthy runs"
    )


def _alarms(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [verdict for verdict in row["verdicts"] if verdict["severity"] in ALARMING]
