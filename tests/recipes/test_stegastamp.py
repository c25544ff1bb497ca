"""StegaStamp's step: schedules, input of the discriminator, logged terms."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastgan.monitor import Diagnosis
from fastgan.recipes.stegastamp.config import DEMO, PAPER
from fastgan.recipes.stegastamp.recipe import StegaStamp
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.loop import train
from fastgan.training.processes.runtime import Runtime
from tests.losses.backbones import install_backbone
from tests.recipes.runs import MEASURES_OF_IMAGES, measures_of
from tests.recipes.steps import generator, moved, one_batch, terms_of, weights_of


def make(config, **changes):
    config = dataclasses.replace(config, **changes)
    torch.manual_seed(0)
    return StegaStamp(config, Runtime(config))


SHIFTED = 2  # a seed whose first draw is 0.92: a large warp


def test_learning_rate_rises_stays_and_falls(small):
    recipe = make(small, lr=0.5, num_steps=100, lr_warmup_steps=10, lr_decay_steps=40)
    rates = []
    for step in (0, 4, 9, 50, 80, 99):
        rates.append(terms_of(recipe.train_step, one_batch(recipe), step, generator())["lr"].item())
    assert rates[:4] == pytest.approx([0.05, 0.25, 0.5, 0.5])
    assert rates[4] == pytest.approx(0.5 * 0.55) and 0.05 < rates[5] < 0.053


def test_the_learning_rate_falls_at_the_end_of_epochs_too(small):
    changes = {"num_steps": 1, "num_epochs": 20, "batch_size": 1, "lr": 0.5}
    steps = make(small, **changes).num_steps
    recipe = make(small, **changes, lr_decay_steps=steps // 2)
    rates = [
        terms_of(recipe.train_step, one_batch(recipe), step, generator())["lr"].item()
        for step in (steps // 2, steps - 1)
    ]
    assert steps > 20 and rates[0] == pytest.approx(0.5) and 0.05 < rates[1] < 0.06
    with pytest.raises(ValueError, match=rf"\[0, num_steps = {steps} of 20 epochs\], got {steps + 1}"):
        make(small, **changes, lr_decay_steps=steps + 1)


def test_secrets_are_uniform_alone_and_complementary_in_pairs(small):
    recipe = make(small, secret_size=1000)
    secret = recipe.random_secret(5, generator())
    assert secret.unique().tolist() == [0, 1]
    assert torch.equal(secret[2:4], 1 - secret[:2])
    for one in secret[[0, 1, 4]]:
        assert 0.45 < one.mean() < 0.55
        assert ((one == secret[[0, 1, 4]]).float().mean(dim=1) > 0.55).sum() == 1, "unpaired secrets agree"
    alone = make(small, secret_size=1000, paired_secrets=False).random_secret(4, generator())
    assert 0.4 < (alone[2:] == alone[:2]).float().mean() < 0.6


@pytest.mark.parametrize("borders", ["no_edge", "black", "white", "random", "randomrgb", "image"])
def test_the_discriminator_sees_real_and_fake_in_the_same_geometry(small, borders):
    # With an encoder that hides nothing, real and fake must be the same image: a difference would be the
    # warp or the border, which D would learn instead of the stamp.
    recipe = make(small, borders=borders, rnd_trans=0.3)
    for parameter in recipe.encoder.parameters():
        torch.nn.init.zeros_(parameter)
    image = one_batch(recipe)
    secret = recipe.random_secret(2, generator())
    stamped = recipe.stamp(recipe.encoder, image, secret, 10, generator(SHIFTED))
    real, fake = recipe.seen_by_discriminator(image, *stamped)
    assert torch.equal(real, fake)
    assert torch.equal(real, image if borders == "no_edge" else stamped[0])
    if borders != "no_edge":
        assert not torch.allclose(stamped[0], image, atol=0.05), "the image was not warped"


def test_borders_other_than_no_edge_fill_what_the_warp_opens(small):
    images = {}
    for borders in ("black", "white", "random", "randomrgb", "image"):
        recipe = make(small, borders=borders, rnd_trans=0.45)
        secret = recipe.random_secret(2, generator())
        image = one_batch(recipe)
        images[borders] = recipe.stamp(recipe.encoder, image, secret, 10, generator(SHIFTED))[2].detach()
    corner_sums = {name: image.sum().item() for name, image in images.items()}
    assert corner_sums["black"] < corner_sums["image"] < corner_sums["white"]
    assert len({round(value, 3) for value in corner_sums.values()}) == 5


@pytest.mark.parametrize(
    "adversarial", ["wgan", "wgan-gp", "hinge", "nonsaturating", "lsgan", "relativistic"]
)
@pytest.mark.parametrize("d_optimizer", ["rmsprop", "adam"])
def test_each_step_moves_its_own_networks_and_no_other(small, adversarial, d_optimizer):
    if (adversarial, d_optimizer) == ("wgan", "adam"):
        pytest.skip("refused, see below")
    recipe = make(small, adversarial=adversarial, d_optimizer=d_optimizer, r1_weight=1.0)
    image = one_batch(recipe)
    encoder, decoder, critic = map(weights_of, (recipe.encoder, recipe.decoder, recipe.discriminator))
    real, fake = recipe.generator_step(image, 5, False, generator())
    assert moved(encoder, recipe.encoder) and moved(decoder, recipe.decoder)
    assert not moved(critic, recipe.discriminator)
    assert all(p.grad is None for p in recipe.discriminator.parameters())

    encoder, decoder = weights_of(recipe.encoder), weights_of(recipe.decoder)
    gradients = [p.grad.clone() for p in recipe.encoder.parameters()]
    recipe.discriminator_step(real, fake, generator())
    # The last bias shifts real and fake alike, so a Wasserstein critic has no gradient for it.
    assert moved(critic, recipe.discriminator) >= critic.keys() - {"layers.8.bias"}
    assert not moved(encoder, recipe.encoder) and not moved(decoder, recipe.decoder)
    for parameter, gradient in zip(recipe.encoder.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient), "D's step reached the encoder"


@pytest.mark.parametrize("critic_sign", [-1, 1])
def test_the_critic_learns_to_tell_and_the_generator_works_against_it(small, critic_sign):
    recipe = make(small, critic_sign=critic_sign, d_weight_clip=1.0, tf_epsilon=False)
    real, fake = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32) * 0.2
    for _ in range(30):
        terms = terms_of(recipe.discriminator_step, real, fake, generator())
    # -1, the original: D minimizes D(real) - D(fake).
    assert (terms["D_difference"] < 0) if critic_sign == -1 else (terms["D_difference"] > 0)
    assert terms["D_loss"].item() == pytest.approx(-critic_sign * terms["D_difference"].item(), rel=1e-5)
    scores = recipe.discriminator(fake)[0]
    loss = recipe.adversarial.generator(scores)
    assert loss.item() == pytest.approx(-critic_sign * scores.mean().item(), rel=1e-6)


def test_the_demos_critic_separates_where_the_papers_scores_everything_alike(small):
    options = (
        "adversarial", "r1_weight", "d_optimizer", "lr_d", "beta1_d", "beta2_d", "d_grad_clip",
        "d_weight_clip", "d_channels", "d_activation",
    )  # fmt: skip
    random = generator()
    stamp = 0.1 * torch.randn(1, 3, 4, 4, generator=random).repeat_interleave(8, 2).repeat_interleave(8, 3)
    apart = {}
    for name, preset in {"demo": DEMO, "paper": PAPER}.items():
        recipe = make(small, **{option: getattr(preset, option) for option in options})
        for _ in range(100):
            real = torch.rand(4, 3, 32, 32, generator=random)
            terms = terms_of(recipe.discriminator_step, real, real + stamp, random)
        apart[name] = -terms["D_difference"].item()
    assert apart["demo"] > 0.05
    assert abs(apart["paper"]) < 1e-4


def test_weights_are_clipped_after_the_step(small):
    recipe = make(small, lr_d=1.0)
    recipe.discriminator_step(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32), generator())
    largest = max(p.abs().max().item() for p in recipe.discriminator.parameters())
    assert largest == pytest.approx(0.01)
    assert max(p.grad.abs().max().item() for p in recipe.discriminator.parameters()) <= 0.25


def test_in_the_secret_only_phase_nothing_but_reading_is_learnt(small):
    recipe = make(small, no_im_loss_steps=10)
    image = one_batch(recipe)
    critic = weights_of(recipe.discriminator)
    terms = terms_of(recipe.train_step, image, 3, generator())
    assert not moved(critic, recipe.discriminator)
    assert not any(name.startswith("D_") for name in terms), "the critic does not play"
    assert [terms[f"{n}_weight"] for n in ("secret_loss", "image_loss", "G_loss")] == [1.0, 0.0, 0.0]
    assert terms["image_loss"] > 0, "still measured"

    # The update is that of the secret loss alone.
    other = make(small, no_im_loss_steps=10, l2_loss_scale=77.0, G_loss_scale=55.0)
    other.train_step(image, 3, generator())
    for a, b in zip(recipe.encoder.parameters(), other.encoder.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_secret_only_phase_ends_early_at_a_bit_accuracy(small):
    recipe = make(small, no_im_loss_steps=1000, no_im_loss_bit_acc=0.9)
    assert recipe.watch(100, {"bit_acc": 0.8}) is None
    assert "image losses start now, at step 200" in recipe.watch(200, {"bit_acc": 0.91})
    assert terms_of(recipe.train_step, one_batch(recipe), 201, generator())["image_loss_weight"] > 0


def test_ramps_count_from_the_end_of_the_secret_only_phase_where_asked(small):
    options = {"no_im_loss_steps": 1000, "no_im_loss_bit_acc": 0.9, "l2_loss_scale": 8.0, "l2_loss_ramp": 400}
    for after, expected in ((False, 4.0), (True, 0.0)):
        recipe = make(small, ramps_after_no_im_loss=after, **options)
        recipe.watch(200, {"bit_acc": 0.95})
        assert recipe.weights(200, secret_only=False)["image_loss"] == expected
        assert recipe.weights(300, secret_only=False)["image_loss"] == expected + 2
        assert recipe.weights(600, secret_only=False)["image_loss"] == 8


def test_stuck_bit_accuracy_gets_a_verdict_with_advice(small):
    diagnosis = Diagnosis(dataclasses.replace(small.facts(), num_steps=140_000))
    for step in range(100, 3000, 100):
        diagnosis.add(step, {"bit_acc": 0.5})
    assert not diagnosis.verdicts(), "the decoder may still find it"
    for step in range(3000, 3800, 100):
        diagnosis.add(step, {"bit_acc": 0.51})
    (verdict,) = diagnosis.verdicts()
    assert (verdict.name, verdict.subject) == ("stuck", "bit_acc")
    for advice in ("--seed", "--lr", "--secret_size", "--no_im_loss_steps"):
        assert advice in verdict.advice
    for step in range(3800, 4800, 100):
        diagnosis.add(step, {"bit_acc": 0.9})
    assert not diagnosis.verdicts() and diagnosis.past[0].name == "stuck"


def test_n_critic_updates_the_discriminator_that_often(small):
    recipe = make(small, n_critic=3)
    calls = []
    step = recipe.optimizers["discriminator"].step
    recipe.optimizers["discriminator"].step = lambda: (calls.append(1), step())
    recipe.train_step(one_batch(recipe), 0, generator())
    assert len(calls) == 3


def test_every_term_is_logged_with_its_weight(small):
    folder = train(StegaStamp, dataclasses.replace(small, budget_interval=1))
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = {
        "step", "secret_loss", "image_loss", "G_loss", "Y_loss", "U_loss", "V_loss", "secret_loss_weight",
        "image_loss_weight", "lpips_loss_weight", "G_loss_weight", "D_loss", "D_real", "D_fake",
        "D_difference", "D_gradient_norm", "D_weight_norm", "bit_acc", "str_acc", "l2_edge_gain", "lr",
        "D_updated", "D_clipped", "lr_d", "images_per_second", "seconds_per_step",
        "share_secret_loss", "share_image_loss", "share_G_loss", "cosine_secret_loss_image_loss",
        "cosine_secret_loss_G_loss", "cosine_image_loss_G_loss",
    }  # fmt: skip
    expected |= {"D_auc", "D_at_bound", "D_update_ratio", "D_untrained"} | MEASURES_OF_IMAGES
    for network in ("encoder", "decoder"):
        expected |= measures_of(network)
    assert set(rows[0]) == expected
    assert float(rows[0]["image_loss_weight"]) == small.l2_loss_scale
    assert float(rows[0]["D_real"]) != float(rows[0]["D_fake"])
    with (folder / "evaluation.csv").open() as file:
        (evaluation,) = csv.DictReader(file)
    assert {"bit_acc_clean", "bit_acc_jpeg_50", "psnr", "ssim"} <= set(evaluation)
    names = (folder / "samples" / "rows.txt").read_text().split()
    assert names == ["input", "warped", "encoded", "residual", "transformed", "D_heat_map"]


def test_image_loss_is_that_of_the_reference(small):
    from fastgan.losses import yuv_color_l2

    recipe = make(small, u_scale=100.0, v_scale=100.0, l2_edge_delay=0, l2_edge_ramp=0)
    image = one_batch(recipe)
    draws = generator(4)
    secret = recipe.random_secret(2, draws)
    encoded = recipe.stamp(recipe.encoder, image, secret, 5, draws)[2]
    expected = yuv_color_l2(encoded, image, (1, 100, 100), 10.0, backend="reference")
    terms = terms_of(recipe.generator_step, image, 5, False, generator(4))
    assert terms["image_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("averaged", [0.0, 0.9])
def test_resume_is_bit_exact(small, averaged):
    config = dataclasses.replace(
        small, num_steps=20, checkpoint_interval=10, ema_decay=averaged, no_im_loss_steps=5,
        exp_name="whole", eval_interval=20, sample_interval=20,
    )  # fmt: skip
    uninterrupted = load_checkpoint(train(StegaStamp, config))
    first = dataclasses.replace(config, exp_name="parts", num_steps=10)
    train(StegaStamp, first)
    parts = load_checkpoint(train(StegaStamp, dataclasses.replace(first, num_steps=20, resume=True)))
    assert (parts.step, parts.state) == (uninterrupted.step, uninterrupted.state)
    for kind in ("networks", "averages"):
        for name, tensors in getattr(uninterrupted, kind).items():
            for key, tensor in tensors.items():
                assert torch.equal(tensor, getattr(parts, kind)[name][key]), (kind, name, key)
    for name, optimizer in uninterrupted.optimizers.items():
        for index, state in optimizer["state"].items():
            for key, tensor in state.items():
                assert torch.equal(tensor, parts.optimizers[name]["state"][index][key])


def test_the_seed_decides_everything(small):
    runs = [
        load_checkpoint(train(StegaStamp, dataclasses.replace(small, exp_name=name, seed=seed)))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    first, same, other = (run.networks["encoder"]["conv1.weight"] for run in runs)
    assert torch.equal(first, same) and not torch.equal(first, other)


class ReadsByTheHost(TorchDispatchMode):
    """Records operations that make the host wait for a device: reading a value."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(name in str(function) for name in ("_local_scalar_dense", "is_nonzero", "nonzero")):
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"adversarial": "wgan-gp", "r1_weight": 1.0, "borders": "randomrgb", "n_critic": 2},
        {"adversarial": "hinge", "borders": "image", "rnd_trans_ramp": 10},
        {"no_im_loss_steps": 100, "jpeg_rounding": "at_zero", "borders": "no_edge"},
        {"adversarial": "bce", "balance": "threshold"},
        {"adversarial": "hinge", "balance": "adaptive", "d_optimizer": "rmsprop"},
    ],
)
def test_a_step_never_waits_for_the_device(small, changes):
    recipe = make(small, **changes)
    # Adam reads its step counter on the CPU, without waiting for a device.
    recipe.optimizers["generator"] = torch.optim.SGD(
        [*recipe.encoder.parameters(), *recipe.decoder.parameters()], lr=1e-4
    )
    image = one_batch(recipe)
    with ReadsByTheHost() as reads:
        for step in range(3):
            recipe.train_step(image, step, generator(step))
    assert reads.names == []


@pytest.mark.gpu
def test_a_step_never_waits_for_the_gpu(small):
    recipe = make(small, accelerator="cuda")
    image = one_batch(recipe)
    draws = torch.Generator("cuda").manual_seed(0)
    recipe.train_step(image, 0, draws)  # first calls may set up libraries
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        recipe.train_step(image, 1, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("d_optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize(("threshold", "moves"), [(0.0, True), (100.0, False)])
def test_threshold_stops_a_discriminator_that_wins(small, d_optimizer, threshold, moves):
    recipe = make(
        small, adversarial="bce", d_optimizer=d_optimizer, balance="threshold", balance_threshold=threshold
    )
    before = weights_of(recipe.discriminator)
    terms = terms_of(recipe.train_step, one_batch(recipe), 0, generator())
    after = weights_of(recipe.discriminator)
    assert any(not torch.equal(after[name], before[name]) for name in before) is moves
    assert terms["D_updated"] == float(moves)


def test_ratio_trains_each_in_its_steps(small):
    recipe = make(small, balance="ratio", balance_ratio=(3, 1), secret_loss_ramp=0)
    moved = {"encoder": "", "decoder": "", "discriminator": ""}
    for step in range(6):
        before = {name: weights_of(recipe.networks[name]) for name in moved}
        terms = terms_of(recipe.train_step, one_batch(recipe), step, generator(step))
        assert terms["D_updated"] == 1.0 and ("G_loss" in terms) == (step % 3 == 0)
        for name in moved:
            after = weights_of(recipe.networks[name])
            changed = any(not torch.equal(after[key], before[name][key]) for key in after)
            moved[name] += str(int(changed))
    assert moved == {"encoder": "100100", "decoder": "100100", "discriminator": "111111"}


def test_adaptive_is_remembered_by_checkpoints(small):
    config = dataclasses.replace(small, adversarial="hinge", balance="adaptive")
    folder = train(StegaStamp, config)
    saved = load_checkpoint(folder).networks["balance"]["measure"]
    assert saved.isfinite() and saved != 0
    resumed = train(StegaStamp, dataclasses.replace(config, resume=True, num_steps=6))
    assert load_checkpoint(resumed).step == 6


def test_a_balance_that_cannot_judge_the_game_is_refused_at_once(small):
    with pytest.raises(ValueError, match="'adaptive' judges each logit by itself, .* kind 'wgan' has no"):
        make(small, balance="adaptive")


def test_bf16_trains(small):
    folder = train(StegaStamp, dataclasses.replace(small, precision="bf16-mixed"))
    assert load_checkpoint(folder).networks["encoder"]["conv1.weight"].dtype == torch.float32


def test_stronger_discriminators(small):
    recipe = make(
        small, d_channels=(8, 16, 32, 64, 128, 256), d_activation="leaky_relu", d_spectral_norm=True,
        adversarial="hinge",
    )  # fmt: skip
    recipe.train_step(one_batch(recipe), 0, generator())
    last = recipe.discriminator.layers[10].weight
    assert last.shape[0] == 256
    recipe.discriminator.eval()
    largest = torch.linalg.matrix_norm(last.flatten(1), 2)
    assert largest < 1.5


def test_paper_preset_is_the_original_base_sh():
    assert (PAPER.num_steps, PAPER.secret_size, PAPER.no_im_loss_steps) == (140000, 100, 1500)
    assert (PAPER.rnd_trans, PAPER.rnd_trans_ramp, PAPER.borders) == (0.1, 10000, "white")
    scales = PAPER.l2_loss_scale, PAPER.lpips_loss_scale, PAPER.G_loss_scale, PAPER.secret_loss_scale
    assert scales == (2.0, 1.5, 0.5, 1.5)
    assert {PAPER.l2_loss_ramp, PAPER.lpips_loss_ramp, PAPER.G_loss_ramp} == {15000}
    assert (PAPER.y_scale, PAPER.u_scale, PAPER.v_scale, PAPER.jpeg_quality) == (1, 100, 100, 50)
    assert (PAPER.l2_edge_gain, PAPER.l2_edge_ramp, PAPER.l2_edge_delay) == (10, 10000, 80000)
    assert (PAPER.batch_size, PAPER.lr, PAPER.lr_d, PAPER.d_grad_clip) == (4, 1e-4, 1e-5, 0.25)
    assert PAPER.no_gan is False and DEMO.no_gan is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_path": ""}, "train_path must name a folder"),
        ({"image_size": 40}, "multiple of 16 on both sides, got 40x40"),
        ({"secret_size": 0}, "secret_size must be at least 1, got 0"),
        ({"lr_warmup_steps": -1}, "lr_warmup_steps must be at least 0, got -1"),
        ({"lr_decay_steps": 5}, r"lr_decay_steps must lie in \[0, num_steps = 4\], got 5"),
        ({"borders": "grey"}, "borders must be one of no_edge, black, .*, got 'grey'"),
        ({"adversarial": "ralsgan"}, "adversarial must be one of bce, .*, got 'ralsgan'"),
        ({"critic_sign": 0}, "critic_sign must be one of 1, -1, got 0"),
        ({"jpeg_quality": 0.0}, r"jpeg_quality must lie in \[1, 100\], got 0.0"),
        ({"d_optimizer": "adam"}, "adversarial=wgan clips weights in rmsprop"),
        ({"precision": "16-mixed"}, "penalties give NaN in float16"),
        ({"jpeg_rounding": "floor"}, "jpeg_rounding must be one of .*'floor'"),
        ({"blur_gaussian": 0.8, "blur_line": 0.3}, "got 0.8 and 0.3"),
    ],
)
def test_wrong_options_are_refused_with_their_value(small, changes, message):
    with pytest.raises(ValueError, match=message):
        make(small, **changes)


def test_lpips_without_weights_stops_before_training(small, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    weights_path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    with pytest.raises(FileNotFoundError, match="download https://.*alexnet") as error:
        train(StegaStamp, dataclasses.replace(small, lpips_loss_scale=1.0))
    assert str(weights_path) in str(error.value)
    assert str(error.value).startswith("--lpips_loss_scale 1: LPIPS needs")
    assert str(error.value).endswith("; or train without it: --lpips_loss_scale 0")
    assert "weights=" not in str(error.value) and "download=" not in str(error.value)
    assert not (small.folder / "metrics.csv").exists()


def test_lpips_with_weights_takes_part(small, tmp_path, monkeypatch):
    install_backbone(monkeypatch, tmp_path / "hub", "alexnet")
    folder = train(
        StegaStamp, dataclasses.replace(small, lpips_loss_scale=1.0, lpips_loss_ramp=0, image_size=64)
    )
    with (folder / "metrics.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["lpips_loss"]) > 0 and float(row["lpips_loss_weight"]) == 1.0
    with (folder / "evaluation.csv").open() as file:
        assert float(next(csv.DictReader(file))["lpips"]) > 0


def test_held_out_images_are_never_trained_on(small, photo_folder):
    recipe = make(small)
    assert not set(recipe.train_images.files) & set(recipe.val_images.files)
    assert len(recipe.train_images.files) + len(recipe.val_images.files) == 12
    with pytest.raises(ValueError, match="val_path must not lie in train_path: both hold 4 images"):
        make(small, val_path=str(photo_folder / "coffee"))
