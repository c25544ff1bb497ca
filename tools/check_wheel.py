"""`make wheel`: builds sdist and wheel, audits the wheel, and tests it with three versions of torch.

The wheel is built from the unpacked sdist, which reveals files missing there. abi3audit checks that its
libraries only use Python's stable ABI, torch-abi-audit that they only use torch's. Each torch version gets a
fresh virtual environment in a temporary folder; the smoke test runs outside the repository.
Usage: check_wheel.py [WHEEL]    (default: build one)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TORCH_VERSIONS = ("torch==2.10.0", "torch==2.13.0", "torch")
# Checks that the private APIs of torch that fastgan uses mean the same in each version.
INTERNALS_TEST = ROOT / "tests" / "test_torch_internals.py"

SMOKE_TEST = """
import torch, fastgan
from fastgan.losses import yuv_color_l2
from fastgan.info import describe

x, y = torch.rand(2, 2, 3, 40, 50)
x.requires_grad_()
(gradient,) = torch.autograd.grad(yuv_color_l2(x, y, edge_gain=10.0, backend="native"), x)
(expected,) = torch.autograd.grad(yuv_color_l2(x, y, edge_gain=10.0, backend="reference"), x)
torch.testing.assert_close(gradient, expected)
from fastgan.ops import jpeg_round_trip
expected = jpeg_round_trip(x, 50, backend="reference")
torch.testing.assert_close(jpeg_round_trip(x, 50, backend="native"), expected)
# Discriminator steps with penalties in one graph, with fastgan's convolution and activation.
from fastgan.losses import gradient_penalty, r1_penalty_of
from fastgan.ops import bias_leaky_relu, convert_convolutions
class Activation(torch.nn.Module):
    def forward(self, x):
        return bias_leaky_relu(x, slope=0.2)
torch.manual_seed(0)
critic = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), Activation(), torch.nn.Conv2d(8, 1, (38, 48))).double()
convert_convolutions(critic)
real, fake = torch.rand(2, 2, 3, 40, 50).double()
for penalty in (
    lambda: r1_penalty_of(critic, real),
    # Equal samples: the random interpolation has no influence.
    lambda: gradient_penalty(critic, real, real.clone()),
):
    def step():
        return critic(fake).mean() - critic(real).mean() + 10 * penalty()
    expected = torch.autograd.grad(step(), critic.parameters(), allow_unused=True)
    found = torch.autograd.grad(
        torch.compile(step, fullgraph=True, backend="aot_eager")(), critic.parameters(), allow_unused=True
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)
import fastgan.kernels, fastgan.bench, fastgan.compat.basicsr
# Modules that need the extra [train] are in the wheel, even if they cannot be imported here.
import importlib.metadata
files = {str(file) for file in importlib.metadata.files("fastgan")}
assert {"fastgan/recipes/stegastamp/recipe.py", "fastgan/training/loop.py"} <= files
print(describe())
"""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def build() -> Path:
    dist = ROOT / "dist"
    for stale in dist.glob("fastgan-*"):
        stale.unlink()
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist)
    (wheel,) = dist.glob("fastgan-*.whl")
    return wheel


def audit(wheel: Path) -> None:
    """Checks that the libraries use no symbol that another Python or torch might lack or change."""
    if "cp310-abi3" not in wheel.name:
        raise SystemExit(f"{wheel.name} is not tagged cp310-abi3")
    run(sys.executable, "-m", "abi3audit", "--strict", "--summary", wheel)
    if sys.version_info < (3, 11):
        print("torch-abi-audit needs Python 3.11: left out")
        return
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        archive.extractall(folder, libraries)
        # Like its console script; the package cannot be run with -m.
        command = "import sys; from torch_abi_audit.cli import main; sys.exit(main())"
        for library in libraries:
            run(sys.executable, "-c", command, "--check", "torch", "--verbose", Path(folder, library))


def main(arguments: list[str]) -> None:
    wheel = Path(arguments[0]).resolve() if arguments else build()
    audit(wheel)
    for torch_version in TORCH_VERSIONS:
        with tempfile.TemporaryDirectory() as folder:
            environment = Path(folder) / "a venv with spaces"
            venv.create(environment, with_pip=True)
            python = environment / "bin" / "python"
            run(python, "-m", "pip", "install", "--quiet", torch_version, "numpy", "pytest")
            run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
            run(python, "-c", SMOKE_TEST, cwd=Path(folder))
            shutil.copy(INTERNALS_TEST, folder)
            run(python, "-m", "pytest", "-q", INTERNALS_TEST.name, cwd=Path(folder))
            print(f"{wheel.name} works beside {torch_version}\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
