"""The `fastgan` command."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from pathlib import Path

from fastgan._extras import how_to_install
from fastgan.training.names import LAYOUT, printable

USAGE = """usage: fastgan COMMAND ...

  info                     versions, what was built, which implementation serves which device
  train RECIPE ...         train a recipe; `fastgan train RECIPE --help` explains every option
  resume RUN ...           go on with the run in a folder; options that are given count from then on
  stegastamp encode ...    hide a message in a photograph
  stegastamp decode ...    find it again
  sample RECIPE ...        pictures from a trained dcgan, zi2zi or starganv2
  upscale IN OUT ...       a photograph made larger by a trained enhancenet
  data glyphs ...          training data for zi2zi, rendered from fonts
  data encode-latents ...  training data for starganv2, images encoded by a VAE
  report RUN               write RUN/report.html anew
  bench [OP ...]           time ops against their peers; or recipes, demos, stegastamp
  demo                     train a small StegaStamp, hide a message, find it through a real JPEG
"""


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # As stderr: a name must not fail what is done. It flushes what may have nowhere to go.
        with contextlib.suppress(OSError):
            sys.stdout.reconfigure(errors="backslashreplace")
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if command == "--version":
        import fastgan

        print(f"fastgan {fastgan.__version__}")
        return 0
    commands = {
        "info": _info,
        "train": _train,
        "resume": _resume,
        "stegastamp": _stegastamp,
        "sample": _sample,
        "upscale": _upscale,
        "data": _data,
        "report": _report,
        "bench": _bench,
        "demo": _demo,
    }
    if command not in commands:
        print(f"fastgan: unknown command {command!r}\n\n{USAGE}", end="", file=sys.stderr)
        return 2
    try:
        return commands[command](rest)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("fastgan"):
            raise
        extra = "vae" if error.name == "diffusers" else "bench" if command == "bench" else "train"
        wanted = f"fastgan {command} needs {error.name}, which is not installed"
        print(f"{wanted}: {how_to_install(extra)}", file=sys.stderr)
        return 1


def _info(arguments: list[str]) -> int:
    from fastgan.info import describe

    print(describe())
    return 0


def _train(arguments: list[str]) -> int:
    from fastgan.recipes import RECIPES

    if not arguments or arguments[0] not in RECIPES:
        found = f"got {arguments[0]!r}" if arguments else "none given"
        print(f"fastgan train: name one of the recipes: {', '.join(RECIPES)} ({found})", file=sys.stderr)
        return 2
    from fastgan.training.console import lasting_console
    from fastgan.training.signals import leaving_at_once

    with lasting_console(), leaving_at_once():
        return _train_recipe(arguments[0], arguments[1:])


def _resume(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        print("usage: fastgan resume RUN_FOLDER [options of its recipe]", file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    from fastgan.training.run_options import recipe_of_run

    folder = Path(os.path.abspath(arguments[0]))
    try:
        recipe = recipe_of_run(folder)
    except (OSError, ValueError) as error:
        print(f"fastgan: error: {_shown(error)}", file=sys.stderr)
        return 1
    of_run = ["--runs_path", str(folder.parent), "--exp_name", folder.name, "--resume", "true"]
    return _train([recipe, *of_run, *arguments[1:]])


def _train_recipe(name: str, options: list[str]) -> int:
    from fastgan.recipes import load_recipe
    from fastgan.training.config import parse_config
    from fastgan.training.loop import Interrupted, train
    from fastgan.training.runtime import ProcessFailed
    from fastgan.training.world import is_main_process

    recipe = load_recipe(name)
    try:
        config = parse_config(
            recipe.config_class, recipe.presets, options, f"fastgan train {recipe.name}",
            say=print if is_main_process() else lambda text: None,
        )  # fmt: skip
        folder = train(recipe, config)
    except Interrupted as stopped:
        if is_main_process():
            print(f"fastgan: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except (ValueError, OSError, FloatingPointError, ProcessFailed) as error:
        print(f"fastgan: error: {_shown(error)}", file=sys.stderr)
        return 1
    if is_main_process():
        print(f"results in {printable(folder)}{_report_after_training(folder, recipe.name)}")
    return 0


def _report_after_training(folder: Path, title: str) -> str:
    """Where the report is; or why there is none: the training is finished all the same."""
    try:
        from fastgan.training.report import write_report

        return f", report in {printable(write_report(folder, title))}"
    except Exception as error:
        print(
            f"fastgan: warning: there is no report: {_shown(error)}; `fastgan report {printable(folder)}` "
            "tries again",
            file=sys.stderr,
        )
        return ""


def _shown(error: Exception) -> str:
    """An error's text, in which names of files may have come from anywhere."""
    return printable(error, keep=LAYOUT)


def _stegastamp(arguments: list[str]) -> int:
    from fastgan.recipes.stegastamp_commands import main as stegastamp

    return stegastamp(arguments)


# What `fastgan sample NAME` and `fastgan data NAME` call.
SAMPLERS = {
    "dcgan": "fastgan.recipes.dcgan_commands:sample",
    "zi2zi": "fastgan.recipes.zi2zi_commands:sample",
    "starganv2": "fastgan.recipes.starganv2_commands:sample",
}
DATA = {
    "glyphs": "fastgan.recipes.zi2zi_glyphs:main",
    "encode-latents": "fastgan.recipes.starganv2_latents:main",
}


def _sample(arguments: list[str]) -> int:
    return _one_of("sample", "recipes", SAMPLERS, arguments)


def _upscale(arguments: list[str]) -> int:
    return _call("fastgan.recipes.enhancenet_commands:upscale", arguments)


def _data(arguments: list[str]) -> int:
    return _one_of("data", "kinds of data", DATA, arguments)


def _one_of(command: str, kinds: str, functions: dict[str, str], arguments: list[str]) -> int:
    """Calls the function that the first argument names with the others."""
    if not arguments or arguments[0] not in functions:
        found = f"got {arguments[0]!r}" if arguments else "none given"
        named = ", ".join(functions)
        print(f"fastgan {command}: name one of the {kinds}: {named} ({found})", file=sys.stderr)
        return 2
    return _call(functions[arguments[0]], arguments[1:])


def _call(function: str, arguments: list[str]) -> int:
    module, name = function.split(":")
    try:
        return getattr(importlib.import_module(module), name)(arguments)
    except (ValueError, OSError) as error:
        print(f"fastgan: error: {_shown(error)}", file=sys.stderr)
        return 1


def _report(arguments: list[str]) -> int:
    from fastgan.training.report import write_report

    if len(arguments) != 1:
        print("usage: fastgan report RUN_FOLDER", file=sys.stderr)
        return 2
    try:
        print(printable(write_report(Path(arguments[0]), Path(arguments[0]).name)))
    except (OSError, ValueError) as error:
        print(f"fastgan: error: {_shown(error)}", file=sys.stderr)
        return 1
    return 0


def _demo(arguments: list[str]) -> int:
    from fastgan.recipes.stegastamp_demo import main as demo

    return demo(arguments)


def _bench(arguments: list[str]) -> int:
    from fastgan.bench.run import main as bench

    return bench(arguments)


if __name__ == "__main__":
    sys.exit(main())
