"""Builds the native libraries with CMakeLists.txt, which is the only place that lists sources and flags.

Environment:
    FASTGAN_BUILD=none      pure-Python install: Triton and PyTorch implementations only
    FASTGAN_CUDA=ON|OFF     require or skip the CUDA library (default: when nvcc is found and torch has CUDA)
    FASTGAN_CUDA_ARCHS      CUDA architectures, as in "80;90" (default: see CMakeLists.txt)
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import setuptools

if int(setuptools.__version__.partition(".")[0]) < 77:
    raise SystemExit(
        f"Building fastgan needs setuptools >= 77, and this environment has {setuptools.__version__}: "
        'pip install "setuptools>=77", or leave build isolation on'
    )

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.editable_wheel import editable_wheel

# The public repository, such as "https://github.com/OWNER/fastgan". While it is empty, the metadata has no
# URLs, and PyPI's page has the names of files in the sdist instead of links.
REPOSITORY = ""
ROOT = Path(__file__).parent.resolve()
BUILD = os.environ.get("FASTGAN_BUILD", "native")
if BUILD not in ("native", "none"):
    raise SystemExit(f"FASTGAN_BUILD must be 'native' or 'none', got {BUILD!r}")


class CMakeBuild(build_ext):
    """Configures and builds once, then puts the libraries into the package folder."""

    def run(self) -> None:
        missing = [*_missing_torch(), *(name for name in ("cmake", "ninja") if not _find_tool(name))]
        if missing:
            raise SystemExit(
                f"Building fastgan's native kernels needs {', '.join(missing)}. Install what is missing "
                "(pip install cmake ninja torch) and use --no-build-isolation, leave build isolation on "
                "(any torch >= 2.10 will do, for its headers: the library uses the stable ABI), "
                "or set FASTGAN_BUILD=none for a pure-Python install."
            )
        import torch

        # setuptools deletes build_temp after an editable install; everything would be compiled again next
        # time.
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
        # Output is not captured, so that the compiler's own message appears on the screen.
        if subprocess.run([_tool("cmake"), *arguments], env=_environment()).returncode != 0:
            raise SystemExit(
                "Building fastgan's native kernels failed; the compiler's message stands above. "
                "FASTGAN_BUILD=none installs without native kernels."
            )


def _names_vanished_programs(cache: Path) -> bool:
    """Whether the cache names compilers or tools that no longer exist, such as those of an isolated build."""
    if not cache.exists():
        return False
    entries = [line.partition("=") for line in cache.read_text().splitlines()]
    programs = [value for key, _, value in entries if key.endswith(":FILEPATH") and value.startswith("/")]
    return any(not Path(program).exists() for program in programs)


def _missing_torch() -> list[str]:
    try:
        import torch
    except ImportError as error:
        return [f"torch >= 2.10 (import torch: {error})"]
    return [] if torch.__version__ >= (2, 10) else [f"torch >= 2.10 (this is {torch.__version__})"]


def _tool(name: str) -> str:
    path = _find_tool(name)
    assert path, name
    return path


def _find_tool(name: str) -> str | None:
    """The path of cmake or ninja: that of this environment, beside its Python, or else the system's."""
    beside_python = Path(sys.executable).parent / name
    return str(beside_python) if beside_python.exists() else shutil.which(name)


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(_tool("ninja")).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


class StableWheel(bdist_wheel):
    """One wheel for all versions: the libraries use neither Python's ABI nor torch's unstable one."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if BUILD == "native":
            self.root_is_pure = False
            self.py_limited_api = "cp310"


class EditableWheel(editable_wheel):
    """Puts a folder on the path that contains only links to fastgan's modules, so that type checkers find it.

    For folders mapped by `package_dir`, setuptools would install an import hook, which type checkers do not
    run; with the root itself on the path, `import kernels` would work from everywhere. Links to the mapped
    folders are created in `fastgan`; an sdist does not contain them.
    """

    def finalize_options(self) -> None:
        links = {
            ".editable/fastgan": "fastgan",
            ".editable/fastgan_command.py": "fastgan_command.py",
            "fastgan/kernels": "kernels",
            "fastgan/bench": "benchmarks",
        }
        for link, target in links.items():
            (ROOT / link).parent.mkdir(exist_ok=True)
            if not (ROOT / link).is_symlink():
                (ROOT / link).symlink_to(Path("..", target), target_is_directory=True)
        self.distribution.package_dir = {"": ".editable"}
        super().finalize_options()


def _long_description() -> str:
    """README.md with relative links replaced, which would not work on PyPI's page."""

    def absolute(link: re.Match[str]) -> str:
        picture, text, target = link.groups()
        if REPOSITORY:
            return f"{picture}[{text}]({REPOSITORY}/{'raw' if picture else 'blob'}/HEAD/{target})"
        if picture:
            return f"*({text}: `{target}`)*"
        return f"`{target}`" if text == target else f"{text} (`{target}`)"

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^<!--.*?-->\n|<!--.*?-->", "", text, flags=re.MULTILINE)  # the markers of `make tables`
    text = re.sub(r"(!?)\[([^][]*)\]\((?!https?:|#)([^()\s]+)\)", absolute, text)
    return text if REPOSITORY else f"{text}\nFiles named here are in the source distribution.\n"


setup(
    long_description=_long_description(),
    long_description_content_type="text/markdown",
    project_urls={
        "Repository": REPOSITORY,
        "Issues": f"{REPOSITORY}/issues",
        "Documentation": f"{REPOSITORY}/blob/HEAD/docs/losses.md",
        "Changelog": f"{REPOSITORY}/blob/HEAD/CHANGELOG.md",
    }
    if REPOSITORY
    else {},
    py_modules=["fastgan_command"],
    # Excluded: an editable install leaves links to the mapped folders in `fastgan`.
    packages=[
        *find_packages(include=["fastgan", "fastgan.*"], exclude=["fastgan.kernels*", "fastgan.bench*"]),
        "fastgan.kernels",
        "fastgan.bench",
        "fastgan.bench.ops",
        "fastgan.bench.public",
    ],
    package_dir={"fastgan.kernels": "kernels", "fastgan.bench": "benchmarks"},
    ext_modules=[Extension("fastgan._C", sources=[], py_limited_api=True)] if BUILD == "native" else [],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": StableWheel, "editable_wheel": EditableWheel},
)
