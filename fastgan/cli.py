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


def _bench(arguments: list[str]) -> int:
    from fastgan.bench.run import main as bench

    return bench(arguments)


if __name__ == "__main__":
    sys.exit(main())
