"""Two machines that share nothing form one run: one folder, one output, the numbers of one process."""

from __future__ import annotations

import pytest
import torch

from fastgan.recipes import load_recipe
from fastgan.training.command_line import parse_config
from fastgan.training.loop import train
from tests.nodes import run_nodes
from tests.recipes.runs import newest

SHARED = (
    "--num_epochs 0 --num_steps 5 --log_interval 5 --sample_interval 5 --eval_interval 5 "
    "--checkpoint_interval 5 --accelerator cpu --workers 1 --ema_decay 0.9"
)
# All with a gradient penalty where the recipe has one. Where a gradient is nearly 0, Adam's first steps
# follow its rounding errors: StarGAN v2's seed has none such.
OPTIONS = {
    "dcgan": "--train_path builtin:digits/train --val_path builtin:digits/val --image_size 32 --g_width 2 "
    "--d_width 4 --z_dim 6 --collapse_images 8 --frechet off --r1_weight 1 --r1_interval 2 --d_norm instance",
    "enhancenet": "--train_path builtin:photographs/train --val_path builtin:photographs/val --crop 64 "
    "--width 4 --blocks 2 --val_images 2 --turn true --variant E "
    "--balance every_step",
    "starganv2": "--train_path builtin:domains/train --val_path builtin:domains/val --image_size 16 "
    "--base_width 2 --max_width 4 --downs 1 --mapping_width 8 --style_dim 5 --z_dim 6 --eval_images 4 "
    "--eval_draws 2 --classifier_steps 3 --r1_interval 2 --ds_margin 9 --seed 6",
    "stegastamp": "--train_path builtin:photographs/train --val_path builtin:photographs/val --crop fit "
    "--image_size 32 --secret_size 20 --val_images 2 --lpips_loss_scale 0 --no_im_loss_steps 2 "
    "--seed 3 --adversarial nonsaturating --r1_weight 1 --rnd_trans 0 --rnd_bri 0 --rnd_noise 0 --rnd_sat 0 "
    "--rnd_hue 0 --no_jpeg true --contrast_low 1 --contrast_high 1 --blur_gaussian 0 --blur_line 0",
    "zi2zi": "--train_path builtin:glyphs --image_size 32 --width 4 --d_width 2 --embedding_dim 6 "
    "--perceptual_weight 0 --norm instance --dropout 0 --augment 0",
}

# StegaStamp draws for each process; the joined draws make it the computation of one process.
JOINT = """
import sys
import torch
from fastgan.cli import main
from fastgan.recipes.stegastamp.recipe import StegaStamp

secret_of = StegaStamp.random_secret

def joint_secret(self, count, generator):
    if count * self.runtime.shares != 6:
        return secret_of(self, count, generator)
    return self.runtime.part(secret_of(self, 6, generator))

StegaStamp.random_secret = joint_secret
StegaStamp.joint_draws = True
"""
EACH = JOINT + "sys.exit(max([main(['train', *words.split()]) for words in sys.argv[1:]]))"


def options(recipe, **changes):
    size = {} if "global_batch_size" in changes else {"batch_size": 2}
    given = {"exp_name": recipe, **size, **changes}
    return [recipe, *SHARED.split(), *OPTIONS[recipe].split(), *(
        word for name, value in given.items() for word in (f"--{name}", str(value))
    )]  # fmt: skip


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two machines that train each recipe."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "each.py").write_text(EACH)
    program = [str(folder / "each.py"), *(" ".join(options(recipe)) for recipe in OPTIONS)]
    return run_nodes(folder, program, (1, 2))


def test_two_machines_print_and_write_once(nodes):
    main, other = nodes
    assert (main.code, other.code) == (0, 0), main.errors[-3000:] + other.errors[-3000:]
    for recipe in OPTIONS:
        assert main.out.count(f"results in runs/{recipe}") == 1
        assert (main.folder / "runs" / recipe / "report.html").exists()
    assert main.out.count("3 processes") == len(OPTIONS)
    assert other.out == "" and "fastgan" not in other.errors
    assert not (other.folder / "runs").exists()
    cached = [*(other.folder / ".cache" / "fastgan").glob("*/*")]
    assert {path.name for path in cached if path.is_dir()} == {"digits", "photographs", "domains", "glyphs"}


@pytest.mark.parametrize("recipe", OPTIONS)
def test_two_machines_compute_what_one_process_does(nodes, recipe, tmp_path, monkeypatch):
    names = {"__name__": "joint"}
    if recipe == "stegastamp":
        from fastgan.recipes.stegastamp.recipe import StegaStamp

        for name in ("random_secret", "joint_draws"):
            monkeypatch.setattr(StegaStamp, name, getattr(StegaStamp, name))  # so that it is undone
        exec(JOINT, names)
    recipe_class = load_recipe(recipe)
    words = options(recipe, batch_size=6, runs_path=tmp_path)[1:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        folder = train(recipe_class, parse_config(recipe_class.config_class, recipe_class.presets, words, ""))
    finally:
        torch.set_num_threads(threads)
    one, many = newest(folder), newest(nodes[0].folder / "runs" / recipe)
    assert one.keys() == many.keys()
    for key in one:
        if key.startswith(("networks", "averages")):
            torch.testing.assert_close(
                many[key], one[key], rtol=1e-5, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}"
            )


def test_a_run_goes_on_from_what_rank_0_has(tmp_path):
    """The command itself; the other machine has neither the checkpoint nor the run's options.

    Both of torchrun's ways to find each other lead to the same run.
    """
    command = ["-m", "fastgan", "train", *options("dcgan", num_steps=2, checkpoint_interval=2)]
    first = run_nodes(tmp_path, command, (1, 1), backend="static")
    assert [node.code for node in first] == [0, 0], first[0].errors[-3000:] + first[1].errors[-3000:]
    goes_on = [
        "-m",
        "fastgan",
        "train",
        "dcgan",
        "--exp_name",
        "dcgan",
        "--resume",
        "auto",
        "--num_steps",
        "4",
    ]
    main, other = run_nodes(tmp_path, goes_on, (1, 1))
    assert (main.code, other.code) == (0, 0), main.errors[-3000:] + other.errors[-3000:]
    assert "taken from runs/dcgan/config.yaml" in main.out and other.out == ""
    assert (main.folder / "runs" / "dcgan" / "checkpoints" / "step-00000004.safetensors").exists()
    assert not (other.folder / "runs").exists()


@pytest.mark.parametrize("option", ["--config", "--train_path"])
def test_what_is_missing_on_one_machine_ends_all_within_seconds(tmp_path, option):
    """Before the processes know each other, as for --config, and after it, as for the data."""
    for number in (0, 1):
        (tmp_path / f"node-{number}").mkdir()
    if option == "--config":
        (tmp_path / "node-0" / "here").write_text("num_steps: 2\n")
    else:
        (tmp_path / "node-0" / "here").symlink_to(tmp_path / "pictures")
        from tests.recipes.photographs import write_photographs

        write_photographs(tmp_path / "pictures")
    words = options("dcgan")
    if option == "--train_path":
        words[words.index("--train_path") + 1] = words[words.index("--val_path") + 1] = "here"
    else:
        words += ["--config", "here"]
    main, other = run_nodes(tmp_path, ["-m", "fastgan", "train", *words], (1, 2))
    assert main.code != 0 and other.code != 0
    assert max(main.seconds, other.seconds) < 60, "with the start of Python, and torchrun's own end"
    errors = [line for line in main.errors.splitlines() if line.startswith("fastgan: error: ")]
    assert (len(errors) == 1 and "here" in errors[0] and "rank 1: " in errors[0]) or "rank 2: " in errors[0]
    assert "fastgan: error" not in other.errors
