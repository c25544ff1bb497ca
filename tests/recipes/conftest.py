"""A folder of real photographs, and a StegaStamp small enough for tests."""

from __future__ import annotations

import pytest
from PIL import Image

from fastgan.recipes.stegastamp_config import StegaStampConfig


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory):
    """Twelve parts of real photographs, 80x96, in nested folders."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("chelsea", "coffee", "astronaut"):
        image = Image.fromarray(getattr(data, name)())
        (folder / name).mkdir()
        for part in range(4):
            left, top = 90 * (part % 2), 100 * (part // 2)
            image.crop((left, top, left + 96, top + 80)).save(folder / name / f"{part}.jpg", quality=95)
    return folder


@pytest.fixture
def small(photo_folder, tmp_path):
    """32x32, 20 bits, without a phase of secrets alone; everything on."""
    return StegaStampConfig(
        train_path=str(photo_folder), runs_path=str(tmp_path / "runs"), image_size=32, secret_size=20,
        batch_size=2, num_steps=4, log_interval=2, sample_interval=4, eval_interval=4, val_images=2,
        checkpoint_interval=4, accelerator="cpu", lpips_loss_scale=0, no_im_loss_steps=0, rnd_trans_ramp=0,
        lr=0.001, l2_loss_ramp=0, G_loss_ramp=0, lr_d=0.001,
    )  # fmt: skip
