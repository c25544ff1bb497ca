"""Losses of image tokenizers in a training loop: what their backward pass runs, scales and leaves alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from fastgan.compat import _generative_models, ldm, taming, videoseal
from tests.compat.test_taming import theirs as published_vqgan
from tests.compat.tokenizers import Autoencoder, Distance
from tests.processes import run_script


@pytest.fixture
def distance(monkeypatch):
    """A small network in place of VGG."""
    for module in (taming, ldm, _generative_models):
        monkeypatch.setattr(module, "LPIPS", Distance)


def vqgan(**options):
    torch.manual_seed(0)
    options = {"disc_start": 0, "disc_num_layers": 1, "disc_ndf": 8} | options
    return taming.VQLPIPSWithDiscriminator(**options), Autoencoder()


def images(seed=1):
    return 2 * torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) - 1


def generator_loss(loss, autoencoder, x, index=0, step=1):
    fake = autoencoder(x)
    return loss(autoencoder.codebook_loss, x, fake, index, step, autoencoder.conv_out.weight)


def gradients(network):
    return [parameter.grad.clone() for parameter in network.parameters()]


def run_backward(value, network):
    network.zero_grad()
    value.backward()
    return gradients(network)


def test_the_trainers_factors_reach_all_gradients(distance):
    loss, autoencoder = vqgan()
    loss.eval()  # so that batches have no part in each other's loss
    plain = run_backward(generator_loss(loss, autoencoder, images())[0], autoencoder)
    accumulated = run_backward(generator_loss(loss, autoencoder, images())[0] / 4, autoencoder)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled = run_backward(scaler.scale(generator_loss(loss, autoencoder, images())[0]), autoencoder)
    loss.scaler = scaler
    scaled_inside = run_backward(scaler.scale(generator_loss(loss, autoencoder, images())[0]), autoencoder)
    for one, quarter, large, inside in zip(plain, accumulated, scaled, scaled_inside, strict=True):
        assert_close(quarter, one / 4)
        assert_close(large, one * 1024)
        assert_close(inside, one * 1024)


class InHalf(nn.Module):
    """Whose gradient is lost in float16, unless it is scaled."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return (x.half() * (1e-7 * self.weight.view(3, 1, 1)).half()).float().sum(dim=1).tanh()


def test_a_scaler_keeps_gradients_in_float16(distance):
    weights = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=65536.0)):
        loss, autoencoder = vqgan(scaler=scaler)
        loss.discriminator = InHalf()
        _, log = generator_loss(loss, autoencoder, images())
        weights.append((log["train/d_weight"].item(), loss.shares.norm["gan"].item()))
    assert weights[0][1] == 0 and weights[1][1] > 0


def test_the_discriminator_gets_no_gradient_from_the_generators_loss(distance):
    loss, autoencoder = vqgan()
    generator_loss(loss, autoencoder, images())[0].backward()
    assert all(p.grad is None and p.requires_grad for p in loss.discriminator.parameters())
    generator_loss(loss, autoencoder, images(), index=1)[0].backward()
    before = gradients(loss.discriminator)
    generator_loss(loss, autoencoder, images())[0].backward()
    for parameter, gradient in zip(loss.discriminator.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_the_discriminators_step_leaves_the_perceptual_loss_and_the_autoencoder_alone(distance):
    loss, autoencoder = vqgan()
    loss.perceptual_loss.forward = None
    generator_loss(loss, autoencoder, images(), index=1)[0].backward()
    assert all(p.grad is None for p in autoencoder.parameters())


def test_a_loss_runs_backward_once(distance):
    loss, autoencoder = vqgan()
    value, _ = generator_loss(loss, autoencoder, images())
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can be run backward once"):
        value.backward()


def test_shares_are_those_of_the_last_step(distance):
    loss, autoencoder = vqgan()
    assert loss.shares is None
    generator_loss(loss, autoencoder, images())
    shares = loss.shares
    assert list(shares.share) == ["pixel", "perceptual", "gan"]
    assert_close(sum(shares.share.values()), torch.tensor(1.0))
    loss.discriminator_iter_start = 10
    _, log = generator_loss(loss, autoencoder, images())
    assert loss.shares.share["gan"] == 0 < log["train/d_weight"]


# --- without a gradient ------------------------------------------------------------------------------------


def test_validation_needs_no_gradient(distance):
    loss, autoencoder = vqgan()
    with torch.no_grad():
        with pytest.raises(
            ValueError, match=r"reconstructions must have a graph in training mode, got .*eval"
        ):
            generator_loss(loss, autoencoder, images())
        loss.eval()
        value, log = generator_loss(loss, autoencoder, images())
    assert loss.shares is None and log["train/d_weight"] == 0 and not value.requires_grad
    assert_close(value, log["train/nll_loss"] + log["train/quant_loss"])


def test_validation_of_generative_models_has_weight_one(distance):
    loss = ldm.GeneralLPIPSWithDiscriminator(10, disc_num_layers=1, disc_factor=0.5)
    x, autoencoder = images(), Autoencoder()
    loss.eval()
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            value, log = loss(
                x, autoencoder(x), regularization_log={}, optimizer_idx=0, global_step=0,
                last_layer=autoencoder.conv_out.weight, split="val",
            )  # fmt: skip
        assert log["val/scalars/d_weight"] == 1 and log["val/loss/g"] != 0
        assert_close(value, log["val/loss/nll"] + 0.5 * log["val/loss/g"])
    value.backward()


def test_validation_of_videoseal_keeps_the_weights():
    loss = videoseal.VideosealLoss(disc_num_layers=1, percep_loss="mse", percep_weight=0.5)
    x = images().abs()
    masks, preds = torch.ones(4, 1, 16, 16), torch.randn(4, 1, 16, 16)
    _, log = loss(x, x.flip(0), masks, None, preds, 0, 0, nn.Parameter(torch.ones(1)))
    assert log["scale_percep"] == 0.5 and loss.shares is None
    assert_close(log["total_loss"], 0.5 * log["loss_percep"] + log["loss_disc"] + log["loss_detect"])


# --- arguments ---------------------------------------------------------------------------------------------


def test_last_layers_that_cannot_be_are_refused(distance):
    loss, autoencoder = vqgan()
    fake = autoencoder(images())
    for layer, message in (
        (None, "last_layer must be the weight of the decoder's last layer"),
        (nn.Parameter(torch.ones(2)), "last_layer must be a weight behind reconstructions"),
        (nn.Parameter(torch.ones(2), requires_grad=False), "last_layer must be trained"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            loss(autoencoder.codebook_loss, images(), fake, 0, 0, layer)


def test_videoseals_last_layer_is_one_behind_the_images():
    loss, x = videoseal.VideosealLoss(disc_num_layers=1, percep_loss="mse"), images()
    marked = nn.Conv2d(3, 3, 1)(x)
    with pytest.raises(ValueError, match="last_layer must be a weight behind reconstructions, got torch"):
        loss(x, marked, x[:, :1], None, marked, 0, 0, nn.Parameter(torch.ones(3)))


def test_conditions_and_sizes_that_do_not_fit_are_refused(distance):
    loss, autoencoder = vqgan()
    x = images()
    fake = autoencoder(x)
    call = (autoencoder.codebook_loss, x, fake, 0, 0, autoencoder.conv_out.weight)
    with pytest.raises(ValueError, match="cond is for disc_conditional=True"):
        loss(*call, x)
    loss.disc_conditional = True
    with pytest.raises(ValueError, match="cond must be given with disc_conditional=True, got None"):
        loss(*call)
    with pytest.raises(ValueError, match="cond must have the batch and the size of reconstructions"):
        loss(*call, x[:, :, ::2])
    with pytest.raises(ValueError, match=r"reconstructions with cond must have shape \(N, 3, H, W\)"):
        loss(*call, x)
    loss, autoencoder = vqgan(disc_num_layers=3)
    with pytest.raises(ValueError, match="with at least 24 pixels a side for the discriminator"):
        generator_loss(loss, autoencoder, x)


def test_videoseal_refuses_what_it_lacks():
    with pytest.raises(NotImplementedError, match="Loss type 'jnd' not supported.*set perceptual_loss"):
        videoseal.VideosealLoss(percep_loss="mse+0.5_jnd")
    with pytest.raises(ValueError, match="percep_loss must have numbers before _"):
        videoseal.VideosealLoss(percep_loss="mse+much_yuv")
    loss = videoseal.VideosealLoss(percep_loss="none", percep_weight=0, disc_weight=0, detect_weight=0)
    x = images()
    with pytest.raises(ValueError, match="must be positive, got 0.0, 0.0, 0.0 and 0.0"):
        loss(x, x, x[:, :1], None, x[:, :1], 0, 0)


# --- activation normalization ------------------------------------------------------------------------------


def test_activation_normalization_begins_with_its_first_batch_of_training():
    network = taming.NLayerDiscriminator(3, 8, 1, use_actnorm=True)
    norm, x = network.main[3], images()
    network.eval()(x)
    assert not norm.initialized
    network.train()(x)
    assert norm.initialized
    first = norm(network.main[2](network.main[1](network.main[0](x))))
    deviation, mean = torch.std_mean(first, dim=(0, 2, 3))
    assert_close(mean, torch.zeros(16), atol=1e-5, rtol=0)
    assert_close(deviation, torch.ones(16), atol=1e-3, rtol=0)
    before = copy.deepcopy(network.state_dict())
    network(3 * x)
    other = taming.NLayerDiscriminator(3, 8, 1, use_actnorm=True)
    other.load_state_dict(before)
    other(5 * x)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), before.values(), strict=True))


# --- cost --------------------------------------------------------------------------------------------------


def flops(run):
    """Of what calls `forward` of a loss: the counter's hooks of modules fail where inputs are parameters."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_generators_step_takes_a_fifth_fewer_operations(frozen):
    """Also than that of trainers which freeze the discriminator meanwhile."""
    loss, autoencoder = vqgan(disc_num_layers=2, disc_ndf=16, weights=None)
    loss.discriminator.requires_grad_(not frozen)
    ours = flops(lambda: generator_loss(loss.forward, autoencoder, images())[0].backward())
    published = flops(lambda: published_vqgan(loss, autoencoder, images(), 0, 1)[0].backward())
    assert ours <= 0.8 * published


def test_videoseals_extractor_runs_backward_once():
    from tests.compat.test_videoseal import Watermark, drawn

    network = Watermark()
    network.extractor = nn.Sequential(*(nn.Conv2d(3, 3, 9, padding=4) for _ in range(4)), nn.Conv2d(3, 4, 1))
    x, masks, messages = drawn(0)
    x, masks = x.float(), masks.float()
    loss = videoseal.VideosealLoss(percep_loss="mse", disc_weight=0.0, decode_weight=1.0)

    def step(balanced):
        loss.balanced = balanced
        marked, preds = network(x)
        call = (x, marked, masks, messages, preds, 0, 0, network.conv_out.weight)
        loss.forward(*call)[0].backward()

    # Detection and decoding share the extractor, which runs backward once for each.
    assert flops(lambda: step(True)) < 1.8 * flops(lambda: step(False))
    loss.detect_weight = 0.0
    assert flops(lambda: step(True)) < 1.1 * flops(lambda: step(False))


# --- several processes -------------------------------------------------------------------------------------

SCRIPT = """
import sys, torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from fastgan.compat import rae, taming
from tests.compat import test_backward as t

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
loss, autoencoder = t.without_batch_statistics()
wrapped = DDP(autoencoder)
discriminator = loss.discriminator
loss.discriminator = DDP(discriminator)
x = t.images()[2 * rank:2 * rank + 2]
found = {}
for name in ("first", "second"):  # the second also shows that no reduction is pending
    fake = wrapped(x)
    loss.zero_grad()
    value, log = loss(autoencoder.codebook_loss, x, fake, 1, 1)
    value.backward()
    autoencoder.zero_grad()
    fake = wrapped(x)
    value, log = loss(autoencoder.codebook_loss, x, fake, 0, 1, autoencoder.conv_out.weight)
    value.backward()
    found[name] = [t.gradients(autoencoder), t.gradients(discriminator), log["train/d_weight"]]
if rank == 0:
    torch.save(found, sys.argv[1])
torch.distributed.barrier()
"""


def without_batch_statistics():
    taming.LPIPS = Distance
    loss, autoencoder = vqgan()
    loss.discriminator = nn.Sequential(nn.Conv2d(3, 4, 4, 2), nn.Softplus(), nn.Conv2d(4, 1, 3))
    return loss, autoencoder


def test_two_processes_are_one_with_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(taming, "LPIPS", Distance)
    run_script(SCRIPT, tmp_path, tmp_path / "gradients.pt", processes=2)
    loss, autoencoder = without_batch_statistics()
    generator_loss(loss, autoencoder, images(), index=1)[0].backward()
    of_discriminator = gradients(loss.discriminator)
    value, log = generator_loss(loss, autoencoder, images())
    value.backward()
    expected = [gradients(autoencoder), of_discriminator, log["train/d_weight"]]
    for actual in torch.load(tmp_path / "gradients.pt").values():
        assert_close(actual, expected, rtol=1e-4, atol=1e-6)
