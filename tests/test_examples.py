"""The scripts of examples/ run as they stand, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests.processes import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# The subject of an example, if the tests do not depend on it.
NEEDS = {"with_lightning.py": "lightning", "with_accelerate.py": "accelerate", "with_ray.py": "ray"}


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(script, tmp_path):
    needed = NEEDS.get(script.name)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(script)], cwd=tmp_path, capture_output=True,
        text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_listed(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 50
    listed = re.findall(r"\]\((\w+\.py)\)", (ROOT / "examples" / "README.md").read_text(encoding="utf-8"))
    assert script.name in listed and len(listed) == len(EXAMPLES)


def options_of(words):
    """The options of `fastgan train dcgan` in a launcher's words, with values in place of shell variables."""
    start = words.index("dcgan") + 1
    return [re.sub(r'"?\$\{?\w+\}?"?', "there", word) for word in words[start:]]


def parsed(options):
    from fastgan.recipes import load_recipe
    from fastgan.training.command_line import parse_config

    recipe = load_recipe("dcgan")
    return parse_config(recipe.config_class, recipe.presets, options, "", say=lambda text: None)


def test_the_slurm_script_is_one_that_bash_reads():
    script = ROOT / "examples" / "slurm.sbatch"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (command,) = re.findall(r"^srun (?:.*\\\n)*.*", script.read_text(encoding="utf-8"), re.MULTILINE)
    config = parsed(options_of(command.replace("\\\n", " ").split()))
    assert config.resume == "auto" and config.global_batch_size == 1024


def test_the_kubernetes_manifest_names_what_it_defines():
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "examples" / "kubernetes.yaml").read_text(encoding="utf-8")
    service, job = yaml.safe_load_all(text)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    arguments = dict(word.lstrip("-").split("=") for word in container["args"] if "=" in word)
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert arguments["rdzv-endpoint"].startswith(f"{job['metadata']['name']}-0.{pod['subdomain']}:")
    assert int(arguments["nnodes"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(arguments["nproc-per-node"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert parsed(options_of(container["args"])).runs_path == "/runs"
