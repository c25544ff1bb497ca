"""Static checkers resolve `fastgan.kernels` and `fastgan.bench`, which are links to other folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="of a source tree")


def test_mypy_finds_wrong_names_in_kernels_and_benchmarks(tmp_path):
    pytest.importorskip("mypy")
    lines = {
        "from fastgan.kernels import nothing": 'Module "fastgan.kernels" has no attribute "nothing"',
        "from fastgan.kernels.yuv_l2 import absent": '"fastgan.kernels.yuv_l2" has no attribute "absent"',
        "from fastgan.bench.harness import absent": '"fastgan.bench.harness" has no attribute "absent"',
        "from fastgan.kernels.yuv_l2 import mean_factor; mean_factor('image')": 'expected "Tensor"',
        "from fastgan.losses import BinaryLoss; BinaryLoss(real=1.5)": 'expected "bool"',
        "from fastgan.losses import absent": 'Module "fastgan.losses" has no attribute "absent"',
        "from fastgan.kernels.yuv_l2 import yuv_l2_backward": None,
        "from PIL import Image; picture = Image.open('photo.png')": None,
        "from fastgan.recipes.enhancenet.model import EnhanceNetModel as E; e = E.load('run')": None,
        "large: Image.Image = e.upscale(picture); several = e.upscale([picture])[0].size": None,
        "wrong: int = e.upscale(picture)": 'expression has type "Image", variable has type "int"',
        "e.upscale('photo.png')": 'Value of type variable "Given" of "upscale"',
        "from fastgan.recipes.stegastamp.model import StegaStampModel as S; s = S.load('run')": None,
        "stamped, residual = s.encode(picture, 'hi', residual=True); stamped.save('stamped.png')": None,
        "s.encode(picture, 'hi').absent": '"Image" has no attribute "absent"',
        "s.decode(picture).upper()": 'has no attribute "upper"',
    }
    file = tmp_path / "wrong.py"
    file.write_text("\n".join(lines))
    # In a cache of its own: each time, the options of `make lint` would make mypy read all of torch anew.
    options = ["--config-file", "pyproject.toml", "--follow-imports=silent", "--cache-dir=build/mypy"]
    command = [sys.executable, "-m", "mypy", *options, file]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    for number, message in enumerate(lines.values(), start=1):
        # From its cache mypy repeats the errors of a file like this one with the folder in which it was then.
        place = f"{os.sep}{file.name}:{number}: error"
        errors = [line for line in finished.stdout.splitlines() if place in line]
        assert bool(errors) == (message is not None), finished.stdout + finished.stderr
        assert message is None or message in errors[0]


def test_ruff_takes_the_aliases_for_first_party(tmp_path):
    text = "import torch\nimport fastgan.kernels\nfrom fastgan.bench import harness\n"
    ruff = Path(sys.executable).parent / "ruff"
    if not ruff.exists():
        pytest.skip("ruff is not installed")
    for folder in ("tests", "kernels", "benchmarks"):
        command = [ruff, "check", "--select", "I", "--diff", "--stdin-filename", f"{folder}/imports.py", "-"]
        finished = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)
        assert "+\n import fastgan.kernels" in finished.stdout, finished.stdout + finished.stderr
