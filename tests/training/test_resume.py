"""Resuming: with changed options, without a checkpoint, and without side effects if refused."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import shutil
import types
import typing

import pytest
import torch
from torch import nn

from fastgan._folder_lock import NAME
from fastgan.recipes import RECIPES, load_recipe
from fastgan.training.checkpoint import load_checkpoint, state_of, write_checkpoint
from fastgan.training.config import to_plain, write_config
from fastgan.training.loop import train
from fastgan.training.processes.runtime import Runtime
from fastgan.training.resume import resume_from
from fastgan.training.statistics import report
from tests.recipes.starganv2_folders import write_images, write_latents

from .toy import Toy, rows, toy_config


@pytest.fixture
def config(tmp_path):
    return toy_config(tmp_path, num_steps=4, log_interval=1)


class Killed(BaseException):
    """An exception that nothing in a run catches."""


def killed_at(monkeypatch, step_to_die, config):
    """A run that leaves the same files as one killed in this step."""
    step_of = Toy.train_step

    def dies(self, batch, step, generator):
        if step == step_to_die:
            raise Killed
        return step_of(self, batch, step, generator)

    with monkeypatch.context() as patch:
        patch.setattr(Toy, "train_step", dies)
        with pytest.raises(Killed):
            train(Toy, config)


def test_what_others_take_from_the_folder_is_that_of_the_checkpoint_again(config, monkeypatch):
    def dies(self, folder, tensors):
        raise Killed

    def saves(self, folder, tensors):
        (folder / "for_use").write_text(str(self.state["steps_seen"]))

    monkeypatch.setattr(Toy, "save_for_use", dies)
    with pytest.raises(Killed):
        train(Toy, dataclasses.replace(config, checkpoint_interval=4))
    monkeypatch.setattr(Toy, "save_for_use", saves)
    folder = train(Toy, dataclasses.replace(config, resume="auto"))
    assert (folder / "for_use").read_text() == "4"


# --- auto ---------------------------------------------------------------------------------------------------


def test_auto_is_the_one_command_for_start_and_restart(config, monkeypatch, capsys):
    uninterrupted = load_checkpoint(train(Toy, config))
    config = dataclasses.replace(config, exp_name="auto", resume="auto")
    killed_at(monkeypatch, 3, config)
    assert [row["step"] for row in rows(config.folder / "metrics.csv")] == ["1", "2", "3"]
    loaded = load_checkpoint(train(Toy, config))
    assert [row["step"] for row in rows(config.folder / "metrics.csv")] == ["1", "2", "3", "4"]
    for name, weights in uninterrupted.networks.items():
        for key in weights:
            assert torch.equal(weights[key], loaded.networks[name][key])
    capsys.readouterr()
    train(Toy, config)
    assert "nothing left to do: 4 steps are done, of 4" in capsys.readouterr().out
    assert len(rows(config.folder / "metrics.csv")) == 4


def test_a_run_killed_before_its_first_checkpoint_starts_anew_and_keeps_what_it_wrote(
    config, monkeypatch, capsys
):
    killed_at(monkeypatch, 1, config)
    written = (config.folder / "metrics.csv").read_text()
    (config.folder / "samples" / "step-00000001.incomplete.png").write_bytes(b"torn")
    with pytest.raises(FileExistsError, match="--resume auto"):
        train(Toy, config)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint to continue from; --resume auto"):
        train(Toy, dataclasses.replace(config, resume=True))
    assert (config.folder / "metrics.csv").read_text() == written
    train(Toy, dataclasses.replace(config, resume="auto"))
    assert [row["step"] for row in rows(config.folder / "metrics.csv")] == ["1", "2", "3", "4"]
    aside = config.folder / "without-checkpoint-1"
    assert not list(aside.rglob("*.incomplete*"))
    assert (aside / "metrics.csv").read_text() == written
    assert len(list(aside.glob("events.out.tfevents*"))) == 1
    assert f"kept in {aside}" in capsys.readouterr().out


@pytest.mark.parametrize("steps_to_do", [4, 8])
def test_what_a_killed_process_was_writing_is_removed(config, steps_to_do):
    folder = train(Toy, config)
    (folder / "checkpoints" / "step-00000006.safetensors.incomplete").mkdir()
    (folder / "checkpoints" / "step-00000006.safetensors.incomplete" / "half").write_bytes(b"half")
    for name in ("config.yaml", "metrics.csv", "report.html", "samples/step-00000004.png"):
        (folder / f"{name}.incomplete").write_bytes(b"half")
    (folder / "mine.incomplete").write_bytes(b"the user's")
    train(Toy, dataclasses.replace(config, resume="auto", num_steps=steps_to_do))
    assert [path.name for path in folder.rglob("*.incomplete*")] == ["mine.incomplete"]


def test_a_run_that_starts_anew_keeps_nothing_of_the_one_before(config, capsys):
    folder = train(Toy, config)
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    for name in ("model.safetensors", "report.html", "notes.txt"):
        (folder / name).write_text("before")
    train(Toy, dataclasses.replace(config, resume="auto", num_steps=2, sample_interval=2))
    aside = folder / "without-checkpoint-1"
    assert (aside / "model.safetensors").exists() and not (folder / "model.safetensors").exists()
    assert (aside / "report.html").read_text() == "before"
    assert "2 steps of batch size" in (folder / "report.html").read_text()
    assert (folder / "notes.txt").exists()
    assert [path.name for path in (folder / "samples").glob("*.png")] == ["step-00000002.png"]


def test_weights_and_samples_without_tables_are_of_an_earlier_run_too(config):
    folder = train(Toy, config)
    for path in (*(folder / "checkpoints").iterdir(), *folder.glob("*.csv")):
        path.unlink()
    train(Toy, dataclasses.replace(config, num_steps=2))
    assert (folder / "without-checkpoint-1" / "samples" / "step-00000004.png").exists()
    assert "num_steps: 4" in (folder / "without-checkpoint-1" / "config.yaml").read_text()
    assert "num_steps: 2" in (folder / "config.yaml").read_text()
    assert not (folder / "samples" / "step-00000004.png").exists()


def test_what_lies_in_the_folder_of_a_first_run_stays(config):
    folder = config.folder
    (folder / "samples").mkdir(parents=True)
    for name in ("samples/mine.png", "vgg.safetensors", "mine.csv.incomplete"):
        (folder / name).write_text("mine")
    train(Toy, config)
    for name in ("samples/mine.png", "vgg.safetensors", "mine.csv.incomplete"):
        assert (folder / name).read_text() == "mine"
    assert not (folder / "without-checkpoint-1").exists()


@pytest.mark.parametrize("name", ["config.yaml", "report.html", "model.safetensors"])
def test_what_a_first_run_would_write_over_is_refused_or_kept_aside(config, name, capsys):
    config.folder.mkdir(parents=True)
    (config.folder / name).write_text("lr: 0.5  # mine\n")
    with pytest.raises(FileExistsError, match="is of no run that could be continued") as error:
        train(Toy, config)
    assert str(error.value).startswith(f"{config.folder / name} ")
    assert ("give it by --config" in str(error.value)) == (name == "config.yaml")
    assert (config.folder / name).read_text() == "lr: 0.5  # mine\n"
    assert not (config.folder / "checkpoints").exists()
    train(Toy, dataclasses.replace(config, resume="auto"))
    assert (config.folder / "without-checkpoint-1" / name).read_text() == "lr: 0.5  # mine\n"
    assert "started anew; what was written before is kept in" in capsys.readouterr().out


def test_the_options_of_a_start_that_was_killed_are_no_hindrance(config):
    config.folder.mkdir(parents=True)
    write_config(dataclasses.replace(config, resume="auto"), config.folder / "config.yaml")
    train(Toy, config)
    assert not (config.folder / "without-checkpoint-1").exists()


def test_a_checkpoint_whose_name_has_another_step_is_set_aside_with_a_warning(config):
    checkpoints = train(Toy, config) / "checkpoints"
    shutil.copy(checkpoints / "step-00000002.safetensors", checkpoints / "step-99999999.safetensors")
    config = dataclasses.replace(config, resume=True, num_steps=6)
    with pytest.warns(RuntimeWarning, match=r"step-99999999.safetensors is of step 2, not of that in its"):
        train(Toy, config)
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "step-00000004.safetensors", "step-00000006.safetensors", "step-99999999.safetensors.damaged",
    ]  # fmt: skip
    train(Toy, config)  # without another warning


def test_a_checkpoints_values_are_shown_shortly(config):
    checkpoint = load_checkpoint(train(Toy, config))
    checkpoint.config |= {"exp_name": "x" * 10**6, "balance_ratio": [7] * 10**6}
    changes = resume_from(Toy(config, Runtime(config)), checkpoint)
    assert len(changes) == 2 and all(len(text) < 200 for text in changes)


def test_a_checkpoint_without_rows_is_a_run_too(config):
    (train(Toy, config) / "metrics.csv").unlink()
    with pytest.raises(FileExistsError, match="--resume true"):
        train(Toy, config)


@pytest.mark.parametrize(
    "count, job, continues", [("1", "this", True), ("1", "another", False), ("0", "this", False)]
)
def test_torchruns_restarts_go_on_with_what_their_job_began(config, monkeypatch, count, job, continues):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
    killed_at(monkeypatch, 3, config)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
    if continues:
        assert load_checkpoint(train(Toy, config)).step == 4
        return
    with pytest.raises(FileExistsError):
        train(Toy, config)
    # The following restart is refused, too.
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    if job == "another":
        with pytest.raises(FileExistsError):
            train(Toy, config)


def test_another_jobs_refused_start_does_not_end_the_restarts(config, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    killed_at(monkeypatch, 3, config)
    for other in ("another", None):
        if other:
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", other)
        else:
            monkeypatch.delenv("TORCHELASTIC_RUN_ID")
        with pytest.raises(FileExistsError):
            train(Toy, config)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert load_checkpoint(train(Toy, config)).step == 4


def test_a_new_job_of_the_same_name_that_was_refused_is_so_in_its_restarts(config, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    killed_at(monkeypatch, 3, config)
    for count in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        with pytest.raises(FileExistsError):
            train(Toy, config)


def test_a_restart_killed_while_it_loads_does_not_end_the_restarts(config, monkeypatch):
    def dies(*arguments):
        raise Killed

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    killed_at(monkeypatch, 3, config)
    for count, place in enumerate(("prepare_run_folder", "_checkpoint_to_resume"), start=1):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(f"fastgan.training.loop.{place}", dies)
            train(Toy, config)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "3")
    assert load_checkpoint(train(Toy, config)).step == 4


def test_rows_that_were_cut_off_do_not_stop_a_resume(config):
    folder = train(Toy, config)
    with (folder / "metrics.csv").open("a") as file:
        file.write("5,0.1")
    (folder / "warnings.csv").write_text("step,warning\n1,a\n,\nx,y\n3")
    train(Toy, dataclasses.replace(config, resume=True, num_steps=5))
    assert [row["step"] for row in rows(folder / "metrics.csv")] == ["1", "2", "3", "4", "5"]
    assert (folder / "warnings.csv").read_text().split() == ["step,warning", "1,a"]


# --- config.yaml --------------------------------------------------------------------------------------------


class OtherToy(Toy):
    name = "other"


class WideToy(Toy):
    def __init__(self, config, runtime):
        super().__init__(config, runtime)
        self.networks["discriminator"] = nn.Linear(17, 1)


@pytest.mark.parametrize("recipe", [OtherToy, WideToy])
def test_a_failed_resume_leaves_the_folder_as_it_is(config, recipe):
    folder = train(Toy, config)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != NAME}
    with pytest.raises(
        ValueError, match="other" if recipe is OtherToy else r"(?s)does not fit .*; .* num_steps 4 -> 8"
    ):
        train(recipe, dataclasses.replace(config, resume=True, num_steps=8))
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != NAME}


@pytest.mark.parametrize("name", ["config.yaml", "config.yaml.incomplete", "metrics.csv.incomplete"])
def test_links_out_of_the_folder_are_replaced_not_followed(config, tmp_path, name):
    folder = train(Toy, config)
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    train(Toy, dataclasses.replace(config, resume=True, num_steps=6))
    assert outside.read_text() == "precious"
    assert not (folder / "config.yaml").is_symlink()
    assert "num_steps: 6" in (folder / "config.yaml").read_text()


@pytest.mark.parametrize("name", ["warnings.csv", "metrics.csv", "evaluation.csv"])
def test_tables_that_are_dangling_links_create_nothing_outside(config, tmp_path, monkeypatch, name):
    monkeypatch.setattr(Toy, "watch", lambda self, step, metrics: "mind")
    folder = train(Toy, config)
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "outside")
    train(Toy, dataclasses.replace(config, resume=True, num_steps=8))
    assert not (tmp_path / "outside").exists()
    assert not (folder / name).is_symlink() and rows(folder / name)[-1]["step"] == "8"


def test_a_new_runs_warnings_do_not_follow_a_dangling_link(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Toy, "watch", lambda self, step, metrics: "mind")
    config.folder.mkdir()
    (config.folder / "warnings.csv").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match=str(config.folder / "warnings.csv")):
        train(Toy, config)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("suffix", [".incomplete.png", ".png.incomplete", ".png"])
def test_sample_grids_are_not_written_through_links(config, tmp_path, suffix):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (config.folder / "samples").mkdir(parents=True)
    (config.folder / "samples" / f"step-00000004{suffix}").symlink_to(outside)
    folder = train(Toy, config)
    assert outside.read_text() == "precious"
    grid = folder / "samples" / "step-00000004.png"
    assert not grid.is_symlink() and grid.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("part", ["samples", "checkpoints"])
@pytest.mark.parametrize("is_there", [True, False])
def test_folders_of_a_run_that_are_links_are_refused(config, tmp_path, part, is_there):
    outside = tmp_path / "outside"
    if is_there:
        outside.mkdir()
    config.folder.mkdir()
    (config.folder / part).symlink_to(outside)
    with pytest.raises(OSError, match=f"{config.folder / part} is a link"):
        train(Toy, config)
    assert not (list(outside.iterdir()) if is_there else outside.exists())


def test_a_config_that_cannot_be_written_leaves_the_old_one(config, monkeypatch):
    from fastgan.training import config as configs

    folder = train(Toy, config)
    before = (folder / "config.yaml").read_text()

    def fills_the_disk(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(configs.yaml, "safe_dump", fills_the_disk)
    with pytest.raises(OSError, match="No space left"):
        train(Toy, dataclasses.replace(config, resume=True, num_steps=8))
    assert (folder / "config.yaml").read_text() == before


# --- options that change ------------------------------------------------------------------------------------


def test_a_learning_rate_that_changes_is_used_and_told(config, capsys):
    train(Toy, config)
    changed = dataclasses.replace(config, resume=True, num_steps=5, lr=0.5)
    loaded = load_checkpoint(train(Toy, changed))
    assert "resumed with: num_steps 4 -> 5, lr 0.001 -> 0.5" in capsys.readouterr().out
    assert {group["lr"] for state in loaded.optimizers.values() for group in state["param_groups"]} == {0.5}
    before = load_checkpoint(loaded.path.with_name("step-00000004.safetensors"))
    moved = (loaded.networks["discriminator"]["bias"] - before.networks["discriminator"]["bias"]).abs()
    assert moved.item() > 0.01, "a step of Adam is about as large as its learning rate"


def test_what_stays_the_same_is_not_told(config, capsys):
    train(Toy, config)
    train(Toy, dataclasses.replace(config, resume=True))
    assert "resumed with" not in capsys.readouterr().out


def test_rows_of_a_run_whose_terms_change_stay_in_one_table(config, monkeypatch):
    folder = train(Toy, config)

    def with_other_terms(self, *arguments):
        report("loss_d", 1.0)
        report("penalty", 2.0)

    monkeypatch.setattr(Toy, "train_step", with_other_terms)
    train(Toy, dataclasses.replace(config, resume=True, num_steps=5))
    table = rows(folder / "metrics.csv")
    assert [row["penalty"] for row in table] == [""] * 4 + ["2"]
    assert table[0]["loss_g"] and not table[-1]["loss_g"]


def test_a_balance_that_keeps_something_may_set_in_later(config, monkeypatch):
    build = Toy.__init__

    def balanced(self, config, runtime):
        build(self, config, runtime)
        self.keep_balance(self.loss)

    monkeypatch.setattr(Toy, "__init__", balanced)
    train(Toy, config)
    for balance in ("adaptive", "every_step"):
        train(Toy, dataclasses.replace(config, resume=True, balance=balance))


SMALL = {
    "stegastamp": {"image_size": 32, "secret_size": 8},
    "dcgan": {"g_width": 4, "d_width": 4, "frechet": "off"},
    "enhancenet": {"width": 4, "blocks": 1, "variant": "E"},
    "zi2zi": {"width": 4, "d_width": 4},
    "starganv2": {"base_width": 4, "max_width": 8},
}


@pytest.mark.parametrize("name", RECIPES)
def test_each_option_of_each_recipe_is_told_or_refused_with_both_values(name, tmp_path):
    recipe_class = load_recipe(name)
    config = dataclasses.replace(recipe_class.presets["demo"], accelerator="cpu", **SMALL[name])
    recipe = recipe_class(config, Runtime(config))
    path = write_checkpoint(state_of(recipe, 1), tmp_path, keep=1)
    fresh = {name: _options(optimizer) for name, optimizer in recipe.optimizers.items()}
    for option, value in to_plain(recipe.config).items():
        loaded = load_checkpoint(path)
        loaded.config[option] = "before"
        for state in loaded.optimizers.values():
            for group in state["param_groups"]:
                group |= {"lr": 7.0, "weight_decay": 7.0, "eps": 7.0, "weight_clip": 7.0}
        expected = f"{option} before -> {value}"
        if option in config.refused_on_resume:
            with pytest.raises(ValueError, match=re.escape(expected)):
                resume_from(recipe, loaded)
        else:
            assert resume_from(recipe, loaded) == ([] if option in ("resume", "checkpoint") else [expected])
            assert fresh == {name: _options(optimizer) for name, optimizer in recipe.optimizers.items()}


def _options(optimizer):
    return [
        {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
    ]


# --- which options are refused ------------------------------------------------------------------------------

# Other values of options, where the type alone does not give one, with what they need.
OTHER_VALUES = {
    ("enhancenet", "d_channels"): {"d_channels": (4, 8)},
    ("starganv2", "domains"): {"domains": ("day", "night", "dawn")},
    ("starganv2", "data"): {
        "data": "latents",
        "train_path": "latents",
        "domains": ("a", "b"),
        "image_size": 16,
    },
    ("starganv2", "downs"): {"downs": 2},
    ("stegastamp", "d_channels"): {"d_channels": (4, 8)},
    ("zi2zi", "category_num"): {"category_num": 50},
    ("zi2zi", "downs"): {"downs": 4},
}
NOT_VARIED = {
    ("enhancenet", "variant"),  # E has no discriminator, which a resumed run of another variant then misses
    ("starganv2", "latent_channels"),  # which must be that of the files
}
# Raised where a value is not allowed, or needs downloaded weights.
UNABLE = (ValueError, FileNotFoundError)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Returns a function that makes small recipes, of the demo's options but for those given."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", ("day", "night", "dawn"), count=4)
    write_latents(tmp_path / "latents", count=4)
    changes_by_recipe = {
        "enhancenet": {"variant": "PA"},
        "starganv2": {"train_path": "images", "val_path": "", "domains": ("day", "night")},
    }
    # VGG's weights, which have no influence here, are not there.
    monkeypatch.setattr("fastgan.recipes.enhancenet.recipe.EnhanceNet._perceptual_loss", lambda self: None)

    def fetch(address):
        raise FileNotFoundError(f"{address}: tests download nothing")

    monkeypatch.setattr("fastgan.losses._backbones.fetch", fetch)

    def build(name, **changes):
        recipe_class = load_recipe(name)
        preset = dataclasses.replace(recipe_class.presets["demo"], accelerator="cpu")
        options = SMALL[name] | changes_by_recipe.get(name, {}) | changes
        config = dataclasses.replace(preset, **options)
        return recipe_class(config, Runtime(config))

    return build


def structure(recipe):
    """The shapes of all weights and the kinds of optimizers: what a checkpoint must fit."""
    weights = {name: network.state_dict() for name, network in recipe.networks.items() if name != "balance"}
    shapes = {(name, key): value.shape for name in weights for key, value in weights[name].items()}
    return shapes, {name: type(optimizer) for name, optimizer in recipe.optimizers.items()}


def other_values(kind, value):
    """Values of this type that differ from the given one; it may be that not all are allowed."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        candidates = arguments
    elif origin in (typing.Union, types.UnionType):
        candidates = [None] + [other for each in arguments for other in other_values(each, value)]
    elif kind is bool:
        candidates = (False, True)
    elif kind is int:
        candidates = (2 * (value or 0), (value or 0) + 1, (value or 0) // 2)
    elif kind is float:
        candidates = (2 * (value or 0) + 0.125, (value or 0) / 2)
    else:
        candidates = ()
    return [candidate for candidate in candidates if candidate != value]


def changes_of(name, option, config):
    """Each change of one option that can be tried."""
    if (name, option) in OTHER_VALUES:
        return [OTHER_VALUES[name, option]]
    kind = typing.get_type_hints(type(config))[option]
    return [{option: value} for value in other_values(kind, getattr(config, option))]


@pytest.mark.parametrize("name", RECIPES)
def test_refused_options_are_those_that_change_shapes_or_the_kind_of_optimizer(name, build):
    original = build(name)
    refused = original.config.refused_on_resume
    assert refused <= {field.name for field in dataclasses.fields(original.config)}
    varied = {option for option in refused if (name, option) not in NOT_VARIED}
    unchanged = set(varied)
    for option in varied:
        for changes in changes_of(name, option, original.config):
            with contextlib.suppress(*UNABLE):
                if structure(build(name, **changes)) != structure(original):
                    unchanged.discard(option)
                    break
    assert not unchanged


@pytest.mark.parametrize("name", RECIPES)
def test_options_that_are_not_refused_change_neither(name, build):
    original = build(name)
    sections = original.config.in_sections()
    options = {o for title, names in sections.items() if title not in ("run", "data") for o in names}
    options -= original.config.refused_on_resume | {o for recipe, o in NOT_VARIED if recipe == name}

    def check(changes):
        """Tries changes together, and in halves where not all are allowed."""
        try:
            changed = build(name, **changes)
        except UNABLE:
            items = list(changes.items())
            if len(items) > 1:
                check(dict(items[: len(items) // 2]))
                check(dict(items[len(items) // 2 :]))
        else:
            assert structure(changed) == structure(original), f"one of these is to be refused: {changes}"

    alternatives = [changes_of(name, option, original.config) for option in sorted(options)]
    for changes in itertools.zip_longest(*alternatives):
        check({option: value for each in changes if each for option, value in each.items()})
