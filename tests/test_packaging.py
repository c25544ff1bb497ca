"""Builds and installations: requirements, metadata, files of sdist and wheel, editable installs."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import fastgan

ROOT = Path(__file__).parents[1]
setuptools = pytest.importorskip("setuptools", minversion="77")
# The package as which each folder with modules is installed.
FOLDERS = {"fastgan": "fastgan", "kernels": "fastgan/kernels", "benchmarks": "fastgan/bench"}
STATIC = "training/report/static"  # what report.html is made of
UNTRACKED = (".*", "build", "dist", "runs", "__pycache__", "*.egg-info", "*.so")


def run(*arguments: object, folder: Path, python: object = sys.executable, **environment: str) -> str:
    """Runs Python without the variables that builds read, and returns its output."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("FASTGAN_", "PYTHONPATH"))
    }
    done = subprocess.run(
        [str(python), *map(str, arguments)], cwd=folder, env=inherited | environment, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def call_backend(folder: Path, call: str, **environment: str) -> str:
    """Evaluates `call` of the build backend in this folder, as pip does."""
    code = f"import build_backend; print(); print(build_backend.{call})"
    output = run("-c", code, folder=folder, PYTHONPATH=str(folder / "tools"), **environment)
    return output.splitlines()[-1]


def copy_of_the_repository(folder: Path, source: Path = ROOT) -> Path:
    return Path(shutil.copytree(source, folder, symlinks=True, ignore=shutil.ignore_patterns(*UNTRACKED)))


def files_of(folder: Path) -> set[str]:
    """Names of all files below a folder, without following links."""
    actual = ((Path(root) / file).relative_to(folder) for root, _, files in os.walk(folder) for file in files)
    return {file.as_posix() for file in actual if "__pycache__" not in file.parts}


def metadata(text: str) -> tuple[email.message.Message, str]:
    message = email.message_from_string(text)
    return message, message.get_payload()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return copy_of_the_repository(tmp_path_factory.mktemp("packaging") / "clone")


@pytest.fixture(scope="module")
def sdist(clone):
    """The unpacked sdist."""
    folder = clone.parent / "sdist"
    with tarfile.open(folder / call_backend(clone, f"build_sdist({str(folder)!r})")) as archive:
        names = archive.getnames()
        assert len(names) == len(set(names)) and not any(member.issym() for member in archive.getmembers())
        archive.extractall(folder)
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist):
    """The wheel without native libraries, built from the sdist."""
    folder = sdist.parent / "wheel"
    return folder / call_backend(sdist, f"build_wheel({str(folder)!r})", FASTGAN_BUILD="none")


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_only_a_native_build_requires_its_tools(clone, kind):
    call = f"get_requires_for_build_{kind}()"
    assert call_backend(clone, call, FASTGAN_BUILD="none") == "[]"
    assert call_backend(clone, call) == "['cmake>=3.25', 'ninja', 'torch>=2.10']"
    assert 'requires = ["setuptools>=77"]' in (clone / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    "lacking, said",
    [
        (
            "sys.modules['torch'] = None; sys.executable = '/nowhere/python'",
            r"torch >= 2\.10 \(import torch: .*\), cmake, ninja\.",
        ),
        ("torch.__version__ = TorchVersion('2.9.1')", r"needs torch >= 2\.10 \(this is 2\.9\.1\)"),
        ("setuptools.__version__ = '70.1'", r"needs setuptools >= 77, and this environment has 70\.1"),
    ],
    ids=["everything", "torch 2.10", "setuptools 77"],
)
def test_what_a_build_lacks_is_named(clone, lacking, said):
    code = f"""
import runpy, sys, torch, setuptools
from torch.torch_version import TorchVersion
{lacking}
sys.argv = ["setup.py", "build_ext"]
try:
    runpy.run_path("setup.py", run_name="__main__")
except SystemExit as error:
    print(error)
"""
    # The system's cmake is not this environment's.
    assert re.search(said, run("-c", code, folder=clone, PATH=""))


def test_every_file_is_in_the_sdist_and_in_the_wheel_once(clone, sdist, wheel):
    for folder in ("fastgan", "kernels", "benchmarks", "csrc", "docs", "examples", "tests", "tools"):
        expected = {
            name for name in files_of(clone / folder) if not re.fullmatch(r"results/.*(?<!\.json)", name)
        }
        assert files_of(sdist / folder) == expected
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "mkdocs.yml", "Makefile"):
        assert (sdist / name).is_file(), name
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    modules = [
        f"{installed}/{name}"
        for folder, installed in FOLDERS.items()
        for name in files_of(sdist / folder)
        if name.endswith(".py")
    ]
    static = {f"fastgan/{STATIC}/{name}" for name in files_of(sdist / "fastgan" / STATIC)}
    assert {f"fastgan/{STATIC}/{name}" for name in ("uPlot.js", "uPlot-LICENSE.txt", "page.css")} < static
    assert sorted(names) == sorted([*modules, *static, "fastgan/py.typed", "fastgan_command.py"])


def test_the_description_stands_by_itself(sdist, wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        message, description = metadata(archive.read(name).decode())
    assert message["Author"] and message["License-Expression"] and "Project-URL" not in message
    assert message["Description-Content-Type"] == "text/markdown"
    assert description.startswith("# fastgan")
    assert "<!--" not in description
    assert not re.findall(r"\]\((?!https?:)[^)]*\)", description), "links that lead nowhere"
    linked = re.findall(r"\]\((?!https?:|#)([^)]+)\)", (ROOT / "README.md").read_text())
    assert linked
    for file in linked:
        assert f"`{file}`" in description and (sdist / file).is_file()


def test_with_a_repository_links_lead_there(tmp_path):
    clone = copy_of_the_repository(tmp_path / "clone")
    script = (clone / "setup.py").read_text()
    (clone / "setup.py").write_text(
        script.replace('\nREPOSITORY = ""', '\nREPOSITORY = "https://example.org/fastgan"')
    )
    name = call_backend(clone, f"prepare_metadata_for_build_wheel({str(tmp_path)!r})", FASTGAN_BUILD="none")
    message, description = metadata((tmp_path / name / "METADATA").read_text())
    urls = message.get_all("Project-URL")
    assert "Repository, https://example.org/fastgan" in urls
    assert "Changelog, https://example.org/fastgan/blob/HEAD/CHANGELOG.md" in urls
    assert "](https://example.org/fastgan/raw/HEAD/docs/stegastamp-demo.jpg)" in description
    assert "[docs/support.md](https://example.org/fastgan/blob/HEAD/docs/support.md)" in description
    assert not re.findall(r"\]\((?!https?:)[^)]*\)", description)


@pytest.fixture(scope="module", params=["clone", "sdist"])
def editable(request, tmp_path_factory):
    """A folder of sources, and the Python into which it is installed editable; without torch."""
    folder = tmp_path_factory.mktemp("editable")
    clone = copy_of_the_repository(folder / "clone", request.getfixturevalue(request.param))
    name = call_backend(clone, f"build_editable({str(folder)!r})", FASTGAN_BUILD="none")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    (site_packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(folder / name) as archive:
        archive.extractall(site_packages)
    return clone, python


def test_an_editable_install_sees_new_files_and_no_folder_of_the_root(editable, tmp_path):
    clone, python = editable
    # Only the path of fastgan itself is used, because importing it needs torch.
    find = """
import importlib.util, sys, types
from importlib.machinery import PathFinder
spec = PathFinder.find_spec("fastgan")
package = sys.modules["fastgan"] = types.ModuleType("fastgan")
package.__path__ = spec.submodule_search_locations
for name in ("fastgan.kernels", "fastgan.bench", "fastgan.later", "fastgan.kernels.later"):
    print(importlib.util.find_spec(name) is not None, end=" ")
assert importlib.util.find_spec("fastgan_command")
print([importlib.util.find_spec(n) for n in ("kernels", "benchmarks", "tests", "tools", "setup")])
"""
    nothing = "[None, None, None, None, None]"
    assert run("-c", find, folder=tmp_path, python=python).strip() == f"True True False False {nothing}"
    (clone / "fastgan" / "later.py").touch()
    (clone / "kernels" / "later.py").touch()
    assert run("-c", find, folder=tmp_path, python=python).strip() == f"True True True True {nothing}"


def test_type_checkers_see_an_editable_install(editable, tmp_path):
    pytest.importorskip("mypy")
    _, python = editable
    (tmp_path / "script.py").write_text(
        "import fastgan\n"
        "from fastgan.bench.rows import file_name\n"
        "from fastgan.kernels.adversarial import adversarial\n"
        "fastgan.use(1)\n"
        "file_name(2, 'cpu')\n"
        "adversarial()\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", python, "--cache-dir", tmp_path, "script.py"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    actual = re.findall(r"^script\.py:(\d+): error: (.*)", checked.stdout, re.MULTILINE)
    assert [line for line, _ in actual] == ["4", "5", "6"], checked.stdout + checked.stderr
    assert '"str"' in actual[0][1] and '"str"' in actual[1][1] and "Missing" in actual[2][1]


USE = "import torch, fastgan; fastgan.ops.squared_norm(torch.rand(2, 3))"


def test_an_unbuilt_clone_says_where_it_is_and_what_to_do(clone):
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=clone, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if name != "FASTGAN_BACKEND"},
    )  # fmt: skip
    (message,) = (line for line in done.stderr.splitlines() if "RuntimeWarning" in line)
    assert (
        f"_C was not built with this installation (fastgan was imported from {clone / 'fastgan'}," in message
    )
    assert "run from another folder" in message and "`make`" in message and "`pip install -e .`" in message


def test_both_ways_to_ask_for_information_tell_of_the_other_fastgan(clone, tmp_path):
    command = "import sys; sys.path.pop(0); from fastgan.cli import main; main(['info'])"
    installed, here = Path(fastgan.__file__).resolve().parent, clone / "fastgan"
    by_command = run("-c", command, folder=clone)
    by_module = run("-m", "fastgan", "info", folder=clone)
    assert f"imported from {installed}\n" in by_command and f"imported from {here}\n" in by_module
    (warning,) = (line for line in by_command.splitlines() if str(here) in line)
    assert "the current folder has another" in warning and "`python -m fastgan`" in warning
    (warning,) = (line for line in by_module.splitlines() if str(installed) in line)
    assert "elsewhere there is another" in warning and "the command `fastgan`" in warning
    for way in (("-c", command), ("-m", "fastgan", "info")):
        assert "another" not in run(*way, folder=tmp_path)
