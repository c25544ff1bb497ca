"""Builds the native libraries by driving CMakeLists.txt, which is the one place that names sources and flags.

Environment:
    FASTGAN_BUILD=none      pure-Python install: Triton and PyTorch implementations only
    FASTGAN_CUDA=ON|OFF     require or skip the CUDA library (default: when nvcc is found and torch has CUDA)
    FASTGAN_CUDA_ARCHS      CUDA architectures, as in "80;90" (default: see CMakeLists.txt)
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
BUILD = os.environ.get("FASTGAN_BUILD", "native")
if BUILD not in ("native", "none"):
    raise SystemExit(f"FASTGAN_BUILD must be 'native' or 'none', got {BUILD!r}")


class CMakeBuild(build_ext):
    """Configures and builds once, then puts the libraries into the package folder."""

    def run(self) -> None:
        try:
            import torch
        except ImportError as error:
            raise SystemExit(
                "Building fastgan's native kernels needs torch >= 2.10 for its headers, and this "
                f"environment has none ({error}). Install torch first and use --no-build-isolation, "
                "leave build isolation on (any torch will do: the library uses the stable ABI), "
                "or set FASTGAN_BUILD=none for a pure-Python install."
            ) from error

        # Of an editable install setuptools would throw it away, and all be compiled again.
        build_folder = ROOT / "build" / "editable" if self.editable_mode else Path(self.build_temp).resolve()
        build_folder = build_folder / "cmake"
        build_folder.mkdir(parents=True, exist_ok=True)
        configure = [
            "-G", "Ninja", "-S", str(ROOT), "-B", str(build_folder),
            f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
            f"-DFASTGAN_TORCH_DIR={Path(torch.__file__).parent}",
            "-DFASTGAN_TESTS=OFF",
        ]  # fmt: skip
        if _names_vanished_programs(build_folder / "CMakeCache.txt"):
            configure.append("--fresh")
        for option in ("FASTGAN_CUDA", "FASTGAN_CUDA_ARCHS"):
            value = os.environ.get(option)
            configure.append(f"-D{option}={value}" if value else f"-U{option}")
        self._cmake(configure)
        self._cmake(["--build", str(build_folder)])

        package = Path(self.get_ext_fullpath("fastgan._C")).resolve().parent
        package.mkdir(parents=True, exist_ok=True)
        for stale in package.glob("_C*.abi3.so"):
            stale.unlink()
        self._cmake(["--install", str(build_folder), "--prefix", str(package)])

    def get_outputs(self) -> list[str]:
        package = Path(self.get_ext_fullpath("fastgan._C")).parent
        return [str(library) for library in sorted(package.glob("_C*.abi3.so"))]

    @staticmethod
    def _cmake(arguments: list[str]) -> None:
        # The compiler's own message is the useful one: it goes to the screen, and the install stops.
        if subprocess.run([_tool("cmake"), *arguments], env=_environment()).returncode != 0:
            raise SystemExit(
                "Building fastgan's native kernels failed; the compiler's message stands above. "
                "FASTGAN_BUILD=none installs without native kernels."
            )


def _names_vanished_programs(cache: Path) -> bool:
    """Whether an earlier configuration used compilers or tools that are gone, such as an isolated build's."""
    if not cache.exists():
        return False
    entries = [line.partition("=") for line in cache.read_text().splitlines()]
    programs = [value for key, _, value in entries if key.endswith(":FILEPATH") and value.startswith("/")]
    return any(not Path(program).exists() for program in programs)


def _tool(name: str) -> str:
    """Cmake and ninja of this environment (pip installs them beside its Python), or the system's."""
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if not found:
        raise SystemExit(f"Building fastgan needs {name}: pip install {name}")
    return found


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(_tool("ninja")).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


class StableWheel(bdist_wheel):
    """The libraries use neither Python's ABI nor torch's unstable one: one wheel for all of them."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if BUILD == "native":
            self.root_is_pure = False
            self.py_limited_api = "cp310"


setup(
    packages=[
        "fastgan",
        "fastgan.augment",
        "fastgan.compat",
        "fastgan.kernels",
        "fastgan.losses",
        "fastgan.models",
        "fastgan.ops",
        "fastgan.optim",
        "fastgan.recipes",
        "fastgan.reference",
        "fastgan.training",
        "fastgan.bench",
        "fastgan.bench.ops",
    ],
    package_dir={"fastgan.kernels": "kernels", "fastgan.bench": "benchmarks"},
    ext_modules=[Extension("fastgan._C", sources=[], py_limited_api=True)] if BUILD == "native" else [],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": StableWheel},
)
