"""Compiles the libraries' sources against the headers of the oldest torch that fastgan supports.

`make test` runs this whenever a source changes. Nothing is linked, so only headers are needed: they come from
the smallest wheel, that for macOS (80 MB, cached under build/). CUDA sources are included if nvcc is found,
unless FASTGAN_CUDA is set.
Usage: check_headers.py [VERSION ...]
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
OLDEST = "2.10.0"


def main(versions: list[str]) -> int:
    failed = [version for version in versions if not check(version)]
    return 1 if failed else 0


def check(version: str) -> bool:
    """Whether every source compiles; prints the compiler's messages for those that do not."""
    torch_folder = headers(version)
    cuda = os.environ.get("FASTGAN_CUDA") or ("ON" if shutil.which("nvcc") else "OFF")
    with tempfile.TemporaryDirectory() as build:
        subprocess.run(
            [
                tool("cmake"), "-G", "Ninja", "-S", ROOT, "-B", build,
                f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", f"-DFASTGAN_TORCH_DIR={torch_folder}",
                f"-DFASTGAN_CUDA={cuda}", "-DFASTGAN_CUDA_ARCHS=90", "-DFASTGAN_TESTS=OFF",
                "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
            ],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        commands = json.loads((Path(build) / "compile_commands.json").read_text())
        commands = [entry for entry in commands if str(torch_folder) in entry["command"]]
        if not commands:
            raise RuntimeError(f"no source is compiled with {torch_folder}")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(compile_one, commands))
    for message in filter(None, results):
        print(message)
    kinds = "C++ and CUDA" if cuda == "ON" else "C++"
    failures = sum(message is not None for message in results)
    print(f"torch {version}: {len(results) - failures} of {len(results)} {kinds} sources compile")
    return not failures


def compile_one(entry: dict[str, str]) -> str | None:
    """The compiler's message, or None on success. Objects are written to the (temporary) build folder."""
    command = shlex.split(entry["command"])
    if entry["file"].endswith(".cu"):
        # To PTX and without optimization: the rest of a compilation, most of its time, reads no headers. Of
        # nvcc's stages, -Xcicc reaches the one that optimizes (tried with 13.0).
        command = [word for word in command if not word.startswith("--generate-code")]
        command += ["--generate-code=arch=compute_90,code=compute_90", "-Xcicc=-O0", "-Xcompiler=-O0"]
    else:
        command.append("-fsyntax-only")
    Path(entry["directory"], entry["output"]).parent.mkdir(parents=True, exist_ok=True)
    finished = subprocess.run(command, cwd=entry["directory"], capture_output=True, text=True)
    return None if finished.returncode == 0 else finished.stderr


def headers(version: str) -> Path:
    """A folder that CMake accepts as an installed torch of this version."""
    folder = ROOT / "build" / f"torch-{version}"
    torch_folder = folder / "torch"
    if torch_folder.exists():
        return torch_folder
    with tempfile.TemporaryDirectory() as download_folder:
        subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                "--platform", "macosx_11_0_arm64", "--python-version", "3.11", "--implementation", "cp",
                "--dest", download_folder, f"torch=={version}",
            ],
            check=True,
        )  # fmt: skip
        (wheel,) = Path(download_folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.startswith("torch/include/")]
            archive.extractall(folder / "partial", members)
    # CMakeLists.txt takes this file as a sign of a torch with CUDA. Every wheel has the stable ABI's CUDA
    # headers.
    library = folder / "partial" / "torch" / "lib" / "libtorch_cuda.so"
    library.parent.mkdir()
    library.touch()
    (folder / "partial" / "torch").rename(torch_folder)
    return torch_folder


def tool(name: str) -> str:
    beside_python = Path(sys.executable).parent / name
    return str(beside_python) if beside_python.exists() else name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [OLDEST]))
