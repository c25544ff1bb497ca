"""The `fastgan` command."""

from __future__ import annotations

import contextlib
import io
import os
import pkgutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fastgan._arguments import Parser
from fastgan._completion import SHELLS, completion
from fastgan._extras import how_to_install
from fastgan._names import LAYOUT, printable
from fastgan.recipes import RECIPES, all_recipes, load_recipe
from fastgan.training.console import lasting_console
from fastgan.training.processes.world import is_main_process
from fastgan.training.registration import GROUPS, Registration
from fastgan.training.signals import Interrupted, leaving_at_once

# The extra of pyproject.toml that brings a package, if it is not that of the command.
EXTRAS = {
    "diffusers": "vae", "huggingface_hub": "hub", "onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx"
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    with lasting_console(), _one_line_warnings():
        try:
            return _main(arguments)
        except KeyboardInterrupt:
            print("fastgan: ended by SIGINT", file=sys.stderr)
            return 128 + signal.SIGINT


def _main(arguments: list[str]) -> int:
    words, command, rest = _find(COMMANDS, arguments)
    if isinstance(command, dict):
        words, command, rest = _find(command_tree(all_recipes()), arguments)
    try:
        if isinstance(command, dict):
            return _choose(" ".join(words), command, rest)
        return _call(command, rest)
    except Interrupted as interruption:
        if is_main_process():
            print(f"fastgan: {interruption}", file=sys.stderr)
        return interruption.exit_code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("fastgan"):
            raise
        extra = EXTRAS.get(error.name) or ("bench" if words[1:2] == ["bench"] else "train")
        problem = f"{' '.join(words[:2])} needs {error.name}, which is not installed"
        print(f"{problem}: {how_to_install(extra)}", file=sys.stderr)
        return 1


def _find(command: Any, arguments: list[str]) -> tuple[list[str], Any, list[str]]:
    """The words that name a command, the node of the tree that they lead to, and the remaining arguments."""
    words = ["fastgan"]
    while isinstance(command, dict) and arguments and arguments[0] in command:
        words.append(arguments[0])
        command, arguments = command[arguments[0]][1], arguments[1:]
    return words, command, arguments


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Shows warnings as errors are shown: the text, without the line of Python code."""
    before = warnings.formatwarning
    warnings.formatwarning = _format_warning
    try:
        yield
    finally:
        warnings.formatwarning = before


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"fastgan: warning: {printable(' '.join(str(message).split()))}\n"


def _choose(prog: str, commands: dict[str, Any], arguments: list[str]) -> int:
    """Prints help or an error where the arguments name none of the commands."""
    parser = Parser(prog=prog, description="Losses, recipes and tools of GAN training, by fastgan.")
    if prog == "fastgan":
        from fastgan import __version__

        parser.add_argument("--version", action="version", version=f"fastgan {__version__}")
        parser.add_argument(
            "--print_shtab",
            metavar="SHELL",
            choices=SHELLS,
            help=f"print completions for {', '.join(SHELLS)}",
        )
    choices = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (text, _) in commands.items():
        choices.add_parser(name, help=text.replace("%", "%%"))
    # This exits with help or an error, unless there are no arguments that it takes for a command.
    shell = getattr(parser.parse_args(arguments), "print_shtab", None)
    if shell is None:
        parser.print_help(sys.stderr)
        return 2
    print(completion(commands, shell))
    return 0


def _call(function: str | Callable[[list[str]], int], arguments: list[str]) -> int:
    if callable(function):
        return function(arguments)
    try:
        resolved = pkgutil.resolve_name(function)
    except Exception as error:
        if function.startswith("fastgan."):
            raise
        print(f"fastgan: error: {_printable_error(error)}, for the command of {function}", file=sys.stderr)
        return 1
    try:
        return resolved(arguments)
    except (ValueError, OSError) as error:
        print(f"fastgan: error: {_printable_error(error)}", file=sys.stderr)
        return 1


def _info(arguments: list[str]) -> int:
    Parser(prog="fastgan info", description=COMMANDS["info"][0]).parse_args(arguments)
    from fastgan.info import describe

    print(describe())
    return 0


def _resume(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan resume",
        description="Goes on with a run. Options of its recipe (see `fastgan train RECIPE --help`) that are "
        "given count from then on; all others are the run's own.",
        usage="fastgan resume RUN [--checkpoint STEP] [--OPTION VALUE ...]",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder, such as runs/first")
    run = parser.parse_args(arguments[:1] or arguments).run
    from fastgan.training.run_options import recipe_of_run

    folder = Path(os.path.abspath(run))
    try:
        recipe = recipe_of_run(folder)
    except (OSError, ValueError) as error:
        print(f"fastgan: error: {_printable_error(error)}", file=sys.stderr)
        return 1
    run_arguments = ["--runs_path", str(folder.parent), "--exp_name", folder.name, "--resume", "true"]
    return _train(recipe, [*run_arguments, *arguments[1:]])


def _train(name: str, options: list[str]) -> int:
    with leaving_at_once():
        return _train_recipe(name, options)


def _train_recipe(name: str, options: list[str]) -> int:
    from fastgan.training.command_line import parse_config
    from fastgan.training.processes.rendezvous import tell_of_failed_start
    from fastgan.training.processes.runtime import ProcessFailed

    try:
        with _usage_error_told():
            recipe = load_recipe(name)
            config = parse_config(
                recipe.config_class, recipe.presets, options, f"fastgan train {recipe.name}", recipe.name,
                say=print if is_main_process() else lambda text: None,
            )  # fmt: skip
        # Only now, since torchvision takes longer to import than help or an error should take.
        from fastgan.training.loop import train

        folder = train(recipe, config)
    except ProcessFailed as error:
        return _failed(error, error.prints)
    except (ValueError, OSError, FloatingPointError) as error:
        return _failed(error, tell_of_failed_start(str(error)))
    if is_main_process():
        print(f"results in {printable(folder)}{_report_after_training(folder, recipe.name)}")
    return 0


def _failed(error: Exception, prints: bool) -> int:
    if prints:
        print(f"fastgan: error: {_printable_error(error)}", file=sys.stderr)
    return 1


@contextlib.contextmanager
def _usage_error_told() -> Iterator[None]:
    """Has one of several processes print an error in the options, which argparse would print in each."""
    printed = io.StringIO()
    try:
        with contextlib.nullcontext() if is_main_process() else contextlib.redirect_stderr(printed):
            yield
    except SystemExit as left:
        if left.code:
            from fastgan.training.processes.rendezvous import tell_of_failed_start

            if tell_of_failed_start(printed.getvalue().strip()):
                sys.stderr.write(printed.getvalue())
        raise


def _report_after_training(folder: Path, title: str) -> str:
    """Writes the report and returns its place as text. A failure only warns: the training is finished."""
    try:
        from fastgan.training.report import write_report

        return f", report in {printable(write_report(folder, title))}"
    except Exception as error:
        print(
            f"fastgan: warning: there is no report: {_printable_error(error)}; "
            f"`fastgan report {printable(folder)}` tries again",
            file=sys.stderr,
        )
        return ""


def _printable_error(error: Exception) -> str:
    """An error's text made safe to print: it may contain names of files from anywhere."""
    return printable(error, keep=LAYOUT)


def _report(arguments: list[str]) -> int:
    parser = Parser(prog="fastgan report", description=COMMANDS["report"][0])
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder, such as runs/first")
    run = parser.parse_args(arguments).run
    from fastgan.training.report import write_report

    try:
        print(printable(write_report(run, run.name)))
    except (OSError, ValueError) as error:
        print(f"fastgan: error: {_printable_error(error)}", file=sys.stderr)
        return 1
    return 0


def _train_command(recipe: str) -> Callable[[list[str]], int]:
    return lambda arguments: _train(recipe, arguments)


def command_tree(recipes: Mapping[str, Registration]) -> dict[str, tuple[str, Any]]:
    """All commands by name: a line of help, and the function, or the tree of subcommands.

    Functions whose modules import much are given by name, "MODULE:FUNCTION".
    """
    tree: dict[str, tuple[str, Any]] = {
        "info": ("versions, what was built, which implementation serves which device", _info),
        "train": (
            "train a recipe; `fastgan train RECIPE --help` explains every option",
            {name: (recipe.help, _train_command(name)) for name, recipe in recipes.items()},
        ),
        "resume": ("go on with the run in a folder; options that are given count from then on", _resume),
        "report": ("write RUN/report.html anew", _report),
        "export": (
            "a run's networks for use elsewhere: safetensors, onnx, or pt2 (torch.export)",
            "fastgan.training.export:main",
        ),
        "diagnose": (
            "what is wrong with a run, or any trainer's CSV or TensorBoard file, and what each curve says",
            "fastgan.training.diagnose:main",
        ),
        "compare": ("one page for several runs: curves, options, figures", "fastgan.training.compare:main"),
        **{name: (text, {}) for name, text in GROUPS.items()},
        "data": (
            GROUPS["data"],
            {
                "shard": (
                    "a folder in shards, which training reads from a disk or a URL",
                    "fastgan.training.shards.writer:main",
                )
            },
        ),
        "bench": ("time ops against their peers; or recipes, demos, stegastamp", "fastgan.bench.run:main"),
    }
    for recipe in recipes.values():
        for words, command in recipe.commands.items():
            *group, name = words.split()
            if (tree[group[0]][1] if group else tree).setdefault(name, command) is not command:
                left_out = printable(f"{command[1]} is left out, since another command is named {words!r}")
                print(f"fastgan: warning: {left_out}", file=sys.stderr)
    return tree


# Without other distributions' recipes, which are searched only if these commands do not match.
COMMANDS = command_tree(RECIPES)


if __name__ == "__main__":
    sys.exit(main())
