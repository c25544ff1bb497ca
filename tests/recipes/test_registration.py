"""Registrations of recipes, and recipes that other distributions add by entry points."""

from __future__ import annotations

import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastgan import recipes
from fastgan.cli import COMMANDS, main
from fastgan.recipes import RECIPES, Registration, load_recipe
from fastgan.training.built_in import data_folder
from fastgan.training.loop import train
from tests.training import toy

ROOT = Path(__file__).parents[2]
PACKAGE = """
from fastgan.recipes import Registration

def sample(arguments):
    print("sampled", *arguments)
    return 0

def write(folder):
    (folder / "toys.txt").write_text("bear")

RECIPE = Registration(
    "toy_gan.recipe:Toy",
    "100% toys",
    commands={"sample toy": ("a toy", "toy_gan:sample"), "play": ("with toys", "toy_gan.nothing:play")},
    built_in_data={"toys": "toy_gan:write"},
    model="toy_gan.model:ToyModel",
)
"""


MODEL = """
import torch
from fastgan.training.model import Model
from toy_gan.recipe import ToyConfig

class ToyModel(Model):
    recipe, config_class, names = "toy", ToyConfig, ("generator",)

    @classmethod
    def make_networks(cls, config, weights):
        layers = torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 16)
        return {"generator": torch.nn.Sequential(*layers)}

    def exported(self):
        return {}

    def play(self):
        return self.generator(torch.ones(1, 4))
"""


def distribution(folder: Path, name: str, entry_points: str) -> None:
    """Creates the metadata of a distribution, as pip does."""
    about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)


def recipe(entry_point: str) -> str:
    return f"[fastgan.recipes]\n{entry_point}\n"


@pytest.fixture
def site(tmp_path):
    """A folder with an installed recipe, `toy`, and its package."""
    folder = tmp_path / "site"
    (folder / "toy_gan").mkdir(parents=True)
    (folder / "toy_gan" / "__init__.py").write_text(PACKAGE)
    shutil.copy(toy.__file__, folder / "toy_gan" / "recipe.py")
    (folder / "toy_gan" / "model.py").write_text(MODEL)
    distribution(folder, "toy-gan", recipe("toy = toy_gan:RECIPE"))
    return folder


@pytest.fixture
def installed(site, monkeypatch):
    """Makes the installed recipe visible to this process."""
    recipes.other_recipes.cache_clear()
    monkeypatch.syspath_prepend(str(site))
    yield site
    recipes.other_recipes.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "toy_gan"]:
        del sys.modules[name]


def listing(capsys, *words: str) -> str:
    """A help's text, in one line."""
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", RECIPES)
def test_all_that_a_recipe_names_is_there(name):
    registration, loaded = RECIPES[name], load_recipe(name)
    assert loaded.name == name and set(registration.demos) <= loaded.presets.keys()
    model = registration.load_model()
    assert (model.recipe, model.config_class, model.names) == (name, loaded.config_class, loaded.for_use)
    functions = [function for _, function in registration.commands.values()]
    for function in (*functions, *registration.built_in_data.values()):
        assert callable(pkgutil.resolve_name(function))
    # The class is also an attribute of its package.
    assert getattr(sys.modules[f"fastgan.recipes.{name}"], loaded.__name__) is loaded
    with pytest.raises(ImportError):
        exec(f"from fastgan.recipes.{name} import nothing")


def test_the_packages_and_their_commands_are_found():
    packages = {path.parent.name for path in Path(recipes.__file__).parent.glob("*/__init__.py")}
    assert RECIPES.keys() == packages >= {"dcgan", "enhancenet", "starganv2", "stegastamp", "zi2zi"}
    assert {"stegastamp", "upscale", "demo"} < COMMANDS.keys()
    assert COMMANDS["sample"][1].keys() >= {"dcgan", "starganv2", "zi2zi"}
    assert COMMANDS["data"][1].keys() >= {"encode-latents", "glyphs"}


COMMAND = ("a toy", "toy_gan:sample")


@pytest.mark.parametrize(
    "fields, error, message",
    [
        *(
            (
                {"commands": {words: COMMAND}},
                ValueError,
                f"a name in commands must be one word, or one after sample or data, got {words!r}",
            )
            for words in ("", "Sample", "make toys", "sample toy again", "data --toys", 3)
        ),
        ({"commands": [COMMAND]}, TypeError, f"commands must be a dict, got {[COMMAND]}"),
        ({"commands": None}, TypeError, "commands must be a dict, got None"),
        (
            {"commands": {"play": "ab"}},
            TypeError,
            "commands['play'] must be a tuple of help and function, got 'ab'",
        ),
        (
            {"commands": {"play": ("with", "toy_gan:play", "toys")}},
            TypeError,
            "commands['play'] must be a tuple of help and function, got ('with', 'toy_gan:play', 'toys')",
        ),
        (
            {"commands": {"play": (None, "toy_gan.play_with_toys_of_a_kind")}},
            TypeError,
            "the help in commands['play'] must be a str, got None",
        ),
        (
            {"commands": {"play": ("with toys", len)}},
            TypeError,
            "the function in commands['play'] must be a str, got <built-in function len>",
        ),
        (
            {"commands": {"play": ("with toys", "toy_gan.play_with_toys_of_a_kind")}},
            ValueError,
            "the function in commands['play'] must be 'MODULE:NAME', got 'toy_gan.play_with_toys_of_a_kind'",
        ),
        ({"built_in_data": "toys"}, TypeError, "built_in_data must be a dict, got 'toys'"),
        (
            {"built_in_data": {"../toys": "toy_gan:write"}},
            ValueError,
            "a name in built_in_data must be one word in lower case, got '../toys'",
        ),
        ({"built_in_data": {"toys": 3}}, TypeError, "built_in_data['toys'] must be a str, got 3"),
        (
            {"built_in_data": {"toys": "toy_gan:"}},
            ValueError,
            "built_in_data['toys'] must be 'MODULE:NAME', got 'toy_gan:'",
        ),
        ({"demos": "demo"}, TypeError, "demos must be a tuple of str, got 'demo'"),
        ({"demos": ["demo"]}, TypeError, "demos must be a tuple of str, got ['demo']"),
        ({"demos": ("demo", 3)}, TypeError, "demos must be a tuple of str, got ('demo', 3)"),
        ({"help": None}, TypeError, "help must be a str, got None"),
        ({"model": "toy_gan"}, ValueError, "model must be 'MODULE:NAME', got 'toy_gan'"),
        ({"model": None}, TypeError, "model must be a str, got None"),
        ({"recipe": "toy_gan"}, ValueError, "recipe must be 'MODULE:NAME', got 'toy_gan'"),
        ({"recipe": None}, TypeError, "recipe must be a str, got None"),
    ],
)
def test_a_malformed_field_is_refused_with_recipe_field_and_value(fields, error, message):
    with pytest.raises(error) as raised:
        Registration(**{"recipe": "toy_gan.recipe:Toy", "help": "toys"} | fields)
    assert str(raised.value) == f"recipe {fields.get('recipe', 'toy_gan.recipe:Toy')}: {message}"


def test_a_malformed_registration_of_another_distribution_is_listed_with_its_error(installed, capsys):
    distribution(installed, "malformed-gan", recipe("malformed = toy_gan.malformed:RECIPE"))
    malformed = PACKAGE.replace('built_in_data={"toys": "toy_gan:write"}', 'demos="demo"')
    (installed / "toy_gan" / "malformed.py").write_text(malformed)
    message = "TypeError: recipe toy_gan.recipe:Toy: demos must be a tuple of str, got 'demo'"
    assert message in listing(capsys, "train")


def test_registrations_can_be_members_of_sets():
    assert len({*RECIPES.values(), *RECIPES.values()}) == len(RECIPES)


def test_a_recipe_from_outside_is_listed_and_trained(site, tmp_path):
    def fastgan(*arguments: str) -> str:
        path = os.pathsep.join((str(site), str(ROOT), os.environ.get("PYTHONPATH", "")))
        done = subprocess.run(
            [sys.executable, "-m", "fastgan", *arguments],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "toy 100% toys" in " ".join(fastgan("train", "--help").split())
    output = fastgan("train", "toy", "--num_steps", "2", "--log_interval", "1", "--accelerator", "cpu")
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"results in {Path('runs') / folder.name}" in output
    assert [row["step"] for row in toy.rows(folder / "metrics.csv")] == ["1", "2"]
    assert "results in" in fastgan("resume", str(folder), "--num_steps", "3")


def test_its_commands_and_its_data_are_found(installed, tmp_path, monkeypatch, capsys):
    assert "toy a toy" in listing(capsys, "sample")
    assert main(["sample", "toy", "--num", "3"]) == 0
    assert capsys.readouterr().out == "sampled --num 3\n"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (data_folder("builtin:toys") / "toys.txt").read_text() == "bear"
    with pytest.raises(ValueError, match="must be one of digits, .*, toys, got 'faces'"):
        data_folder("builtin:faces")
    # A missing module of its own is its own error, not a missing extra of fastgan.
    assert main(["play"]) == 1
    assert capsys.readouterr().err == (
        "fastgan: error: No module named 'toy_gan.nothing', for the command of toy_gan.nothing:play\n"
    )


def test_its_models_are_loaded(installed, tmp_path, monkeypatch):
    import fastgan

    recipe = load_recipe("toy")
    run = train(recipe, recipe.config_class(runs_path=str(tmp_path), num_steps=2, accelerator="cpu"))
    assert not (run / "model.safetensors").exists(), "its recipe has no `for_use`"
    model = fastgan.load(run)
    assert type(model).__name__ == "ToyModel" and model.play().shape == (1, 16)
    model.save(tmp_path / "toy.safetensors")
    assert torch.equal(fastgan.load(tmp_path / "toy.safetensors").play(), model.play())
    monkeypatch.setattr(recipe, "for_use", ("generator",))
    run = train(recipe, recipe.config_class(runs_path=str(tmp_path / "2"), num_steps=2, accelerator="cpu"))
    assert torch.equal(fastgan.load(run / "model.safetensors").play(), fastgan.load(run).play())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("", "the recipe toy_gan.recipe:Toy has no model: its Registration names no class for it"),
        (
            'model="toy_gan.model:Nothing",',
            "the model of the recipe 'toy', toy_gan.model:Nothing, cannot be loaded: AttributeError",
        ),
    ],
)
def test_one_without_a_usable_model_says_so(installed, tmp_path, changed, message):
    import fastgan
    from fastgan.training.weights import write_weights

    (installed / "toy_gan" / "__init__.py").write_text(
        PACKAGE.replace('model="toy_gan.model:ToyModel",', changed)
    )
    metadata = {"format": "fastgan-model-1", "recipe": "toy", "config": "{}"}
    write_weights(tmp_path / "toy.safetensors", {"x": torch.ones(1)}, metadata)
    with pytest.raises(ValueError, match=message):
        fastgan.load(tmp_path / "toy.safetensors")


@pytest.mark.parametrize(
    "value, said",
    [
        ("nowhere_gan:RECIPE", "ModuleNotFoundError: No module named 'nowhere_gan'"),
        ("toy_gan:NOTHING", "AttributeError: "),
        ("toy_gan:sample", "TypeError: must be a Registration, got function"),
        ("a b c", ""),
    ],
)
def test_a_broken_one_says_so_where_it_is_listed_and_asked_for(value, said, installed, capsys):
    distribution(installed, "broken-gan", recipe(f"broken = {value}"))
    said = f"cannot be loaded from {value} of broken-gan: {said}"
    listed = listing(capsys, "train")
    assert f"broken {said}" in listed and "dcgan images from noise" in listed
    assert "toy 100% toys" in listed
    assert main(["train", "broken"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fastgan: error: the recipe 'broken': {said}")
    assert error.count("\n") == 1
    # Other recipes are not affected.
    for words in (["sample", "toy"], ["--print_shtab", "bash"]):
        assert main(words) == 0
        assert not capsys.readouterr().err


def test_one_that_cannot_be_imported_when_it_is_needed_is_one_line(installed, capsys):
    (installed / "toy_gan" / "recipe.py").write_text("import nowhere_gan")
    assert "toy 100% toys" in listing(capsys, "train")
    assert main(["train", "toy"]) == 1
    assert capsys.readouterr().err == (
        "fastgan: error: the recipe 'toy' cannot be loaded from toy_gan.recipe:Toy: ModuleNotFoundError: "
        "No module named 'nowhere_gan'\n"
    )


def test_names_that_are_taken_stay_whose_they_are(installed, capsys):
    distribution(installed, "other-gan", recipe("dcgan = toy_gan:RECIPE\ntoys = toy_gan.others:RECIPE"))
    (installed / "toy_gan" / "others.py").write_text(PACKAGE.replace('"sample toy"', '"sample dcgan"'))
    assert load_recipe("dcgan").__module__ == "fastgan.recipes.dcgan.recipe"
    assert main(["train", "toys"]) == 1
    assert "the recipe 'toys' is named 'toy' in its class" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    output = capsys.readouterr()
    assert "dcgan of other-gan left out, since another recipe has its name" in " ".join(output.out.split())
    assert "toy_gan:sample is left out, since another command is named 'sample dcgan'" in output.err
    with pytest.raises(ValueError, match="there is no recipe 'no'; there are: dcgan, .*, toy"):
        load_recipe("no")


def test_damaged_metadata_is_told_if_it_is_of_a_recipe(installed, capsys):
    distribution(installed, "damaged-gan", "[fastgan.recipes]\nno equals sign\n")
    distribution(installed, "someone-elses", "[others]\nno equals sign\n")
    (installed / "odd-1.0.dist-info").mkdir()
    (installed / "odd-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff[fastgan.recipes]")
    listed = listing(capsys, "train")
    assert "damaged-gan cannot be loaded from its entry_points.txt: TypeError: " in listed
    assert "toy 100% toys" in listed and "someone" not in listed


def test_a_name_that_looks_like_an_option_is_left_out(installed, capsys):
    distribution(installed, "option-gan", recipe("--help = toy_gan:RECIPE"))
    listed = listing(capsys, "train")
    assert "usage: fastgan train" in listed
    assert "left out: option-gan gives a recipe no usable name" in listed
