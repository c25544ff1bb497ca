"""DCGAN's step, its detection of collapse, complete runs, and pictures from them."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastgan.cli import main
from fastgan.monitor import Diagnosis
from fastgan.recipes.dcgan.config import DEMO, PAPER, PRESETS, DCGANConfig
from fastgan.recipes.dcgan.recipe import DCGAN, make_generator
from fastgan.training.loop import train
from fastgan.training.processes.runtime import Runtime
from tests.recipes.runs import PROBES, OneAndTwo, assert_resume_is_bit_exact
from tests.recipes.steps import count_updates, generator, moved, one_batch, reports_of, terms_of, weights_of
from tests.training.test_loop import HostReads

LOSSES = ["bce", "nonsaturating", "lsgan", "hinge", "wgan", "wgan-gp", "relativistic"]


def small_config(photo_folder, runs):
    """32x32 and narrow; everything but labels is on or at its default."""
    return DCGANConfig(
        train_path=str(photo_folder), runs_path=str(runs), image_size=32, g_width=2, d_width=2,
        z_dim=6, batch_size=4, num_epochs=0, num_steps=4, log_interval=2, sample_interval=4, eval_interval=4,
        checkpoint_interval=4, accelerator="cpu", ema_decay=0.9, collapse_images=8, frechet_images=8,
    )  # fmt: skip


@pytest.fixture
def small(photo_folder, tmp_path):
    return small_config(photo_folder, tmp_path / "runs")


def make(config, **changes):
    config = dataclasses.replace(config, **changes)
    torch.manual_seed(0)
    return DCGAN(config, Runtime(config))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_each_step_moves_its_own_network_and_no_other(small, loss, optimizer):
    augment = ("color", "translation", "cutout")
    recipe = make(
        small, loss=loss, optimizer=optimizer, d_norm="none", r1_weight=1.0, r1_interval=1,
        diff_augment=augment, lr_d=0.01,
    )  # fmt: skip
    real, fake = one_batch(recipe), recipe.generate(generator())
    before_g, before_d = weights_of(recipe.generator), weights_of(recipe.discriminator)
    terms = terms_of(recipe.discriminator_step, real, fake.detach(), 0, generator())
    assert terms["r1_penalty"] > 0 and terms["D_updated"] == 1
    assert ("D_penalty" in terms) == (loss == "wgan-gp")
    assert moved(before_d, recipe.discriminator) == before_d.keys()
    assert not moved(before_g, recipe.generator)
    before_d = weights_of(recipe.discriminator)
    gradients = [p.grad.clone() for p in recipe.discriminator.parameters()]
    recipe.generator_step(real, fake, generator())
    assert moved(before_g, recipe.generator) == before_g.keys()
    assert not moved(before_d, recipe.discriminator)
    for parameter, gradient in zip(recipe.discriminator.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient), "G's step reached D"
    if loss == "wgan":
        assert max(p.abs().max() for p in recipe.discriminator.parameters()) <= small.d_weight_clip


def test_losses_are_the_paper_s_with_smoothed_labels(small):
    recipe = make(small, real_label=0.9, fake_label=0.1)
    real, fake = one_batch(recipe), recipe.generate(generator())
    twin = make(small)  # a copy with the same weights and statistics
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    d_real, d_fake = twin.discriminator(real), twin.discriminator(fake.detach())
    expected = bce(d_real, torch.full_like(d_real, 0.9)) + bce(d_fake, torch.full_like(d_fake, 0.1))
    terms = terms_of(recipe.discriminator_step, real, fake.detach(), 0, generator())
    torch.testing.assert_close(terms["D_loss"], expected.detach())
    torch.testing.assert_close(terms["D_probability_real"], d_real.sigmoid().mean())
    twin.discriminator.load_state_dict(recipe.discriminator.state_dict())
    d_fake = twin.discriminator(fake.detach())
    expected = bce(d_fake, torch.ones_like(d_fake))
    terms = terms_of(recipe.generator_step, real, fake, generator())
    torch.testing.assert_close(terms["G_loss"], expected.detach())


def test_losses_are_reported_by_each_update(small):
    recipe = make(small, n_critic=2, n_g_steps=3)
    batch = one_batch(recipe)
    assert len(batch) == 8, "each update of D has reals of its own"
    losses = {"discriminator": [], "generator": []}
    update = recipe.update

    def recording(name, loss, applies=None):
        losses[name].append(loss.detach().clone())
        update(name, loss, applies)

    recipe.update = recording
    reports = reports_of(recipe.train_step, batch, 0, generator())
    assert (len(reports["D_loss"]), len(reports["G_loss"])) == (2, 3)
    assert (reports["D_loss"], reports["G_loss"]) == (losses["discriminator"], losses["generator"])


@pytest.mark.parametrize("ratio, d_updates, g_updates", [((2, 1), 4, 2), ((1, 2), 2, 4)])
def test_balance_by_ratio(small, ratio, d_updates, g_updates):
    recipe = make(small, balance="ratio", balance_ratio=ratio)
    updates = count_updates(recipe, 4, generator)
    assert updates == {"D_updated": d_updates, "G_loss": g_updates}


def test_a_discriminator_that_wins_is_held_back(small):
    recipe = make(small, balance="threshold", balance_threshold=1e9)
    before = weights_of(recipe.discriminator)
    assert terms_of(recipe.train_step, one_batch(recipe), 0, generator())["D_updated"] == 0
    assert not moved(before, recipe.discriminator)


def test_nothing_reads_the_device_in_a_step(small):
    recipe = make(small, diff_augment=("color", "translation", "cutout"), r1_weight=1.0, balance="adaptive")
    batch = one_batch(recipe)
    recipe.train_step(batch, 0, generator())
    with HostReads() as mode:
        recipe.train_step(batch, 1, generator())
    assert not mode.names


@pytest.mark.parametrize("latent", ["normal", "uniform"])
def test_latents(small, latent):
    recipe = make(small, latent=latent)
    latents = []
    recipe.generator.register_forward_pre_hook(lambda module, inputs: latents.append(inputs[0]))
    for seed in range(200):
        recipe.generate(generator(seed))
    z = torch.stack(latents)
    assert z.mean().abs() < 0.05
    assert z.std().item() == pytest.approx(1 if latent == "normal" else 3**-0.5, rel=0.05)
    assert (z.abs().max() <= 1) == (latent == "uniform")


def verdicts_on(config, column, *values, steps=200):
    """Verdicts on a run in which a column had these values, every `steps` steps."""
    diagnosis = Diagnosis(config.facts())
    for number, value in enumerate(values, start=1):
        diagnosis.add(steps * number, {column: value})
    return {verdict.name: verdict for verdict in diagnosis.verdicts()}


def test_a_run_that_collapsed_says_so(small):
    assert "mode_collapse" not in verdicts_on(small, "collapse_ratio", 0.1, 0.1, 0.1), "it has only begun"
    verdict = verdicts_on(small, "collapse_ratio", *[0.1] * 10)["mode_collapse"]
    assert str(verdict.evidence[0]) == "collapse_ratio 0.1 < 0.5"
    assert "--d_minibatch_std" in verdict.advice
    assert "mode_collapse" in verdicts_on(small, "collapse_ratio", 0.6, 0.4, 0.4, 0.4), "it had been there"
    looser = dataclasses.replace(small, collapse_ratio=0.05)
    assert "mode_collapse" not in verdicts_on(looser, "collapse_ratio", *[0.1] * 10)

    recipe = make(small)
    recipe.generator.layers[-2].weight.data.zero_()
    recipe.averages["generator"].load_state_dict(recipe.generator.state_dict())
    recipe.generator.eval()
    with torch.no_grad():
        assert recipe.evaluate()["collapse_ratio"] < 1e-3


@pytest.mark.parametrize("loss, chance", [("bce", 1.386), ("lsgan", 0.16), ("hinge", 2.0), ("wgan", None)])
def test_a_discriminator_below_chance_is_told_of(small, loss, chance):
    labels = {"real_label": 0.9, "fake_label": 0.1} if loss in ("bce", "lsgan") else {}
    config = dataclasses.replace(small, loss=loss, **labels)
    if chance is None:
        assert not verdicts_on(config, "D_loss", *[1e9] * 12), "its scores have no scale"
        return
    assert not verdicts_on(config, "D_loss", *[0.97 * chance] * 12)
    assert "generator_wins" not in verdicts_on(config, "D_loss", *[0.97 * chance] * 12, 1.3 * chance)
    assert "--lr_d" in verdicts_on(config, "D_loss", *[1.3 * chance] * 12)["generator_wins"].advice


def test_whole_runs_resume_to_the_bit(small):
    assert_resume_is_bit_exact(
        DCGAN, dataclasses.replace(small, diff_augment=("translation",)), at=3, steps=6
    )


@pytest.fixture(scope="module")
def one_and_two(photo_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    small = small_config(photo_folder, folder)
    instance = dataclasses.replace(
        small, diff_augment=("color", "cutout"), r1_weight=1.0, r1_interval=2, d_norm="instance"
    )
    return OneAndTwo(DCGAN, {"instance": instance, "batch": small}, folder)


def test_two_processes_equal_one(one_and_two):
    one_and_two.assert_equal("instance")


def test_two_processes_equal_one_with_batch_normalization(one_and_two):
    one_and_two.assert_equal("batch")


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_weight_decay_adds_to_the_gradients_of_both_networks(small, optimizer):
    recipe = make(small, optimizer=optimizer, weight_decay=0.5)
    for network in (recipe.generator, recipe.discriminator):
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
    before = [weights_of(network) for network in (recipe.generator, recipe.discriminator)]
    for each in recipe.optimizers.values():
        each.step()
    for old, network in zip(before, (recipe.generator, recipe.discriminator), strict=True):
        for name, parameter in network.named_parameters():
            assert torch.equal((parameter - old[name]).sign(), -old[name].sign()), name


def test_a_checkpoint_with_biases_of_convolutions_is_refused_by_their_names(small, tmp_path, capsys):
    folder = train(DCGAN, dataclasses.replace(small, num_steps=1))
    checkpoint = folder / "checkpoints" / "step-00000001.safetensors"
    for path, key in (
        (folder / "model.safetensors", "generator.layers.9.bias"),
        (checkpoint, "networks/generator/layers.9.bias"),
        (checkpoint, "averages/generator/layers.9.bias"),
    ):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        save_file(load_file(path) | {key: torch.zeros(3)}, path, metadata)
    for path in (folder / "model.safetensors", folder):
        assert main(["sample", "dcgan", "--checkpoint", str(path), "--output", str(tmp_path / "x.png")]) == 1
        printed = capsys.readouterr().err
        assert (
            path.name in printed and 'Unexpected key(s) in state_dict: "generator.layers.9.bias"' in printed
        )
    with pytest.raises(ValueError, match=r'step-00000001.* does not fit [^"]*"layers.9.bias"'):
        train(DCGAN, dataclasses.replace(small, num_steps=2, resume=True))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_pictures_of_a_trained_generator(small, tmp_path, precision, capsys, monkeypatch):
    monkeypatch.setattr("fastgan.recipes.dcgan.recipe.NEIGHBORS", 1)  # there are few images
    folder = train(DCGAN, dataclasses.replace(small, precision=precision))
    pictures = []
    for index, source in enumerate((folder, folder / "model.safetensors")):
        output = tmp_path / "out" / f"{index}.png"
        assert (
            main(["sample", "dcgan", "--checkpoint", str(source), "--num", "5", "--output", str(output)]) == 0
        )
        pictures.append(output.read_bytes())
        assert Image.open(output).size == (3 * 34 + 2, 2 * 34 + 2)
    assert pictures[0] == pictures[1]
    weights = load_file(folder / "model.safetensors")
    make_generator(small).load_state_dict({key.removeprefix("generator."): w for key, w in weights.items()})
    with (folder / "evaluation.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row.keys() == {
        "step", "collapse_ratio", "collapse_ratio_nearest", "frechet_distance_of_random_features",
        *(f"{name}_of_random_features" for name in ("precision", "recall", "density", "coverage")), *PROBES
    }  # fmt: skip


def test_bad_input(small, tmp_path, capsys):
    for changes, message in (
        ({"image_size": 48}, "image_size must be one of 32, 64, 128, 256, got 48"),
        ({"loss": "wgan-gp"}, "set d_norm to instance or none"),
        ({"loss": "gan"}, "loss must be one of bce"),
        ({"channels": 2}, "channels must be one of 1, 3, got 2"),
        ({"crop": "slight"}, "crop must be one of fit, random, got 'slight'"),
        ({"lr_g": 0.0}, "lr_g must be positive, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative, got -1.0"),
        ({"n_critic": 0}, "n_critic must be at least 1, got 0"),
        ({"collapse_images": 1}, "collapse_images must be at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(small, **changes)
    with pytest.raises(ValueError, match="no labels"):
        make(small, loss="hinge", real_label=0.9)
    with pytest.raises(ValueError, match="color, translation, cutout, got 'flip'"):
        make(small, diff_augment=("flip",))
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="at least two held-out images, got 1"):
        make(small, val_path=str(tmp_path))
    with pytest.raises(ValueError, match="holds no image"):
        (tmp_path / "empty").mkdir()
        make(small, train_path=str(tmp_path / "empty"))
    for arguments, message in (
        (["--checkpoint", str(tmp_path / "none")], "no checkpoint at"),
        (["--checkpoint", str(tmp_path), "--num", "0"], "--num must be at least 1, got 0"),
        (["--checkpoint", __file__], "is not a readable checkpoint"),
    ):
        assert main(["sample", "dcgan", "--output", str(tmp_path / "x.png"), *arguments]) == 1
        assert message in capsys.readouterr().err


def test_presets():
    assert set(PRESETS) == {"paper", "demo", "unstable"}
    assert (PAPER.lr_d, PAPER.lr_g, PAPER.beta1, PAPER.z_dim, PAPER.batch_size) == (2e-4, 2e-4, 0.5, 100, 128)
    unstable = PRESETS["unstable"]
    assert (unstable.lr_d, unstable.lr_g, unstable.n_g_steps) == (0.002, 0.004, 2)
    assert (unstable.real_label, unstable.fake_label) == (0.9, 0.1)
    assert DEMO.train_path == "builtin:digits/train"


def test_inception_without_weights_names_the_option_first(small, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(
        FileNotFoundError, match="^--frechet inception: FID needs .* or take --frechet"
    ) as error:
        make(small, frechet="inception")
    assert "weights=" not in str(error.value)


def test_a_distance_needs_two_generated_images(small):
    with pytest.raises(ValueError, match="frechet_images must be at least 2, got 1"):
        dataclasses.replace(small, frechet_images=1)


def test_more_updates_of_the_critic_than_images_are_one_step_an_epoch(small):
    assert make(small, n_critic=10_000, num_epochs=3).num_steps == 3
