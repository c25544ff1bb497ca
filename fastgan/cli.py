"""The `fastgan` command."""

from __future__ import annotations

import sys

USAGE = """usage: fastgan COMMAND ...

  info                     versions, what was built, which implementation serves which device
  train RECIPE ...         train a recipe; `fastgan train RECIPE --help` explains every option
  stegastamp encode ...    hide a message in a photograph
  stegastamp decode ...    find it again
  report RUN               write RUN/report.html anew
  bench [OP] ...           time every op against its peers
  demo                     train a small StegaStamp, hide a message, find it through a real JPEG
"""


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
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
        "bench": _bench,
    }
    if command not in commands:
        print(f"fastgan: unknown command {command!r}\n\n{USAGE}", end="", file=sys.stderr)
        return 2
    return commands[command](rest)


def _info(arguments: list[str]) -> int:
    from fastgan.info import describe

    print(describe())
    return 0


def _train(arguments: list[str]) -> int:
    from fastgan.recipes import RECIPES, load_recipe

    if not arguments or arguments[0] not in RECIPES:
        found = f"got {arguments[0]!r}" if arguments else "none given"
        print(f"fastgan train: name one of the recipes: {', '.join(RECIPES)} ({found})", file=sys.stderr)
        return 2
    from fastgan.training.config import parse_config
    from fastgan.training.loop import Interrupted, train

    recipe = load_recipe(arguments[0])
    try:
        config = parse_config(
            recipe.config_class, recipe.presets, arguments[1:], f"fastgan train {recipe.name}"
        )
        folder = train(recipe, config)
    except Interrupted as stopped:
        print(f"fastgan: {stopped}", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"fastgan: error: {error}", file=sys.stderr)
        return 1
    print(f"results in {folder}")
    return 0


def _bench(arguments: list[str]) -> int:
    from fastgan.bench.run import main as bench

    return bench(arguments)


if __name__ == "__main__":
    sys.exit(main())
