"""What recipes share: moving averages, checkpoints that do not fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fastgan.training.checkpoint import load_checkpoint, restore
from fastgan.training.loop import _check_same_data, introduction, train
from fastgan.training.processes.runtime import Runtime
from tests.training.shard_server import write_images
from tests.training.toy import Toy, ToyConfig


@pytest.mark.parametrize("warmup, weight", [(True, 9 / 11), (False, 0.01)])
def test_a_moving_average_warms_up_or_not(warmup, weight):
    config = ToyConfig(accelerator="cpu", lr=0.1, ema_decay=0.99, ema_warmup=warmup)
    recipe = Toy(config, Runtime(config))
    before = [parameter.detach().clone() for parameter in recipe.generator.parameters()]
    recipe.train_step(next(recipe.batches(0)), 0, torch.Generator())
    average = recipe.averages["generator"].parameters()
    for averaged, old, new in zip(average, before, recipe.generator.parameters(), strict=True):
        torch.testing.assert_close(averaged, old.lerp(new, weight))


def test_a_checkpoint_whose_optimizer_has_other_groups_is_named(tmp_path):
    config = ToyConfig(accelerator="cpu", runs_path=str(tmp_path), num_steps=1)
    checkpoint = load_checkpoint(train(Toy, config))
    checkpoint.optimizers["generator"]["param_groups"] *= 2
    with pytest.raises(
        ValueError, match=r"step-00000001.* does not fit .* different number of parameter groups"
    ):
        restore(Toy(config, Runtime(config)), checkpoint)


@pytest.mark.parametrize("images, noted", [(0, False), (3, True), (4, False), (5, False)])
def test_a_batch_of_more_images_than_there_are_is_said(images, noted):
    config = ToyConfig(accelerator="cpu", batch_size=4)
    recipe = Toy(config, Runtime(config))
    recipe.images_per_epoch = images
    notes = [line for line in introduction(recipe) if line.startswith("note: batch_size 4 ")]
    assert len(notes) == noted and all("the 3 training images of an epoch" in note for note in notes)


def test_machines_with_as_many_files_of_other_names_are_told_before_the_first_step(tmp_path):
    def recipe_on(folder, of_rank_0=None):
        runtime = SimpleNamespace(
            world_size=2, device="cpu", average=lambda mean: mean, broadcast_object=lambda own: of_rank_0
        )
        recipe = Toy(ToyConfig(accelerator="cpu"), runtime)
        recipe.split_held_out(str(folder), "")
        return recipe

    for name in ("here", "there", "other"):
        write_images(tmp_path / name, 3)
    (tmp_path / "other" / "00" / "0001.png").rename(tmp_path / "other" / "00" / "1.png")
    main = recipe_on(tmp_path / "here")
    expected = (main.data, main.images_per_epoch, main.compared)
    _check_same_data(recipe_on(tmp_path / "there", expected))
    with pytest.raises(ValueError, match="not rank 0's: 2 images .*, but of other names .*; there: 2 images"):
        _check_same_data(recipe_on(tmp_path / "other", expected))
