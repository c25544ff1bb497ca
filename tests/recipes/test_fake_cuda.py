"""A whole training step of each recipe on CUDA tensors without a GPU: devices, waits, launches."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from unittest import mock

import pytest

pytest.importorskip("triton")

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fastgan.recipes import load_recipe
from fastgan.recipes.dcgan.config import DCGANConfig
from fastgan.training.processes.runtime import Runtime
from fastgan.training.statistics import Statistics, gathering
from tests.kernels.fake_cuda import CudaGenerator, Log, fake_cuda
from tests.recipes.fonts import small_config, small_glyphs
from tests.recipes.steps import one_batch

STEPS = 2
# Cached from the first call on, except for fake tensors.
KEPT = "_jpeg_tables.py make"


@pytest.fixture
def dcgan(photo_folder, tmp_path):
    return DCGANConfig(
        train_path=str(photo_folder), runs_path=str(tmp_path), image_size=32, g_width=2, d_width=2, z_dim=6,
        batch_size=4, num_epochs=0, num_steps=4, accelerator="cpu", ema_decay=0.9, loss="wgan-gp",
        d_norm="instance", diff_augment=("color", "translation"), frechet="off",
    )  # fmt: skip


@pytest.fixture
def stegastamp(small):
    return small


@pytest.fixture
def enhancenet(tiny, vgg):
    return dataclasses.replace(tiny, variant="PAT", normalize_features=False)  # by a real batch


@pytest.fixture
def starganv2(domains_config):
    return domains_config


@pytest.fixture
def zi2zi(tmp_path):
    return small_config(small_glyphs(tmp_path / "glyphs"), tmp_path / "runs")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    ("name", "updates"), [("dcgan", 2), ("stegastamp", 2), ("enhancenet", 2), ("starganv2", 4), ("zi2zi", 2)]
)
def test_a_step_stays_on_the_device(name, updates, precision, request):
    """FakeTensorMode refuses operations on two devices, and reading values from the device."""
    config = dataclasses.replace(request.getfixturevalue(name), precision=precision)
    reported, log = last_step(name, config)
    assert {tensor.device.type for tensor in reported if isinstance(tensor, Tensor)} == {"cuda"}
    assert set(log.waits) <= {KEPT}
    launched = Counter(other.name for other in log.others)
    assert launched["fastgan::optimizer_step_"] == updates
    assert len(log.triton) >= 1


def last_step(name: str, config) -> tuple[list[Tensor | float], Log]:
    """Counts over several steps; the first one creates the optimizers' states."""
    recipe_class = load_recipe(name)
    batch = one_batch(recipe_class(config, Runtime(config)))
    with on_cuda() as log:
        recipe = recipe_class(config, Runtime(config))
        batch = tree_map(lambda x: torch.empty_like(x, device="cuda") if isinstance(x, Tensor) else x, batch)
        for step in range(STEPS):
            log.take()
            with gathering(Statistics()) as statistics:
                recipe.train_step(batch, step, CudaGenerator())
        return [value for values in statistics._values.values() for value in values], log.take()


@contextlib.contextmanager
def on_cuda():
    with contextlib.ExitStack() as stack:
        # Without a GPU autocast would turn itself off, and cuDNN's operations have no shapes in fake mode.
        stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        stack.enter_context(mock.patch("torch.cuda.is_bf16_supported", lambda: True))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(mock.patch.object(Runtime, "device", CudaGenerator.device))
        log = stack.enter_context(fake_cuda())
        stack.enter_context(torch.device("cuda"))
        yield log
