"""With the same seed, shims draw the same random numbers as the published code, and as many."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fastgan.compat import basicsr, ldm, pix2pix, studiogan, taming, videoseal, zi2zi


def critic():
    """A critic with dropout, which draws its numbers after those of the interpolated points."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Dropout(), nn.Conv2d(4, 1, 3, 2, 1))


def images(dtype):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 4, 3, 9, 8, generator=generator).to(dtype)


def gradient_at(network, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(network(x).sum(), x, create_graph=True)[0]


# The formulas and draws of each repository: BasicSR draws its weights on the CPU and casts them; pix2pix
# draws them on the given device, StudioGAN on the CPU.


def basicsr_penalty(network, real, fake):
    alpha = torch.rand(4, 1, 1, 1).to(real.dtype)
    gradient = gradient_at(network, alpha * real + (1.0 - alpha) * fake)
    return ((gradient.norm(2, dim=1) - 1) ** 2).mean()


def pix2pix_penalty(network, real, fake):
    alpha = torch.rand(real.shape[0], 1, device="cpu")
    alpha = alpha.expand(real.shape[0], real.nelement() // real.shape[0]).contiguous().view(*real.shape)
    gradient = gradient_at(network, alpha * real + ((1 - alpha) * fake)).view(4, -1)
    return (((gradient + 1e-16).norm(2, dim=1) - 1.0) ** 2).mean() * 10.0


def studiogan_penalty(network, real, fake):
    alpha = torch.rand(4, 1)
    alpha = alpha.expand(4, real.nelement() // 4).contiguous().view(real.shape)
    gradient = gradient_at(network, alpha * real + ((1 - alpha) * fake)).view(4, -1)
    return ((gradient.norm(2, dim=1) - 1) ** 2).mean()


def dragan_penalty(network, real, fake):
    alpha = torch.rand(4, 1, 1, 1)
    differences = 0.5 * real.std() * torch.rand(real.size())
    gradient = gradient_at(network, real + (alpha * differences)).view(4, -1)
    return ((gradient.norm(2, dim=1) - 1) ** 2).mean()


def as_studiogan(network):
    return lambda x, label, eval: {"adv_output": network(x)}


PENALTIES = {
    "basicsr": (basicsr_penalty, basicsr.gradient_penalty_loss),
    "pix2pix": (pix2pix_penalty, lambda d, real, fake: pix2pix.cal_gradient_penalty(d, real, fake, "cpu")[0]),
    "studiogan": (
        studiogan_penalty,
        lambda d, real, fake: studiogan.cal_grad_penalty(real, None, fake, as_studiogan(d), "cpu"),
    ),
    "studiogan, dragan": (
        dragan_penalty, lambda d, real, fake: studiogan.cal_dra_penalty(real, None, as_studiogan(d), "cpu")
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:a penalty of bfloat16 logits")
@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_draw_the_same_numbers_as_the_published_code(name, dtype, autocast):
    theirs, ours = PENALTIES[name]
    if dtype == torch.bfloat16 and not autocast:
        pytest.skip("the published code mixes float32 points with bfloat16 weights")
    network, (real, fake) = critic(), images(dtype)
    network.to(torch.float64 if dtype == torch.float64 else torch.float32)
    actual = []
    for penalty in (theirs, ours):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast and dtype != torch.float64):
            value = penalty(network, real, fake)
        gradients = torch.autograd.grad(value, list(network.parameters())[:3], allow_unused=True)
        actual.append((value, gradients, torch.random.get_rng_state()))
    (theirs, their_gradients, their_state), (ours, our_gradients, our_state) = actual
    # Of half-precision samples the published code computes in half precision: BasicSR's points and gradient.
    published_rounds = dtype == torch.bfloat16 and name in ("basicsr", "studiogan, dragan")
    assert_close(ours, theirs.to(ours.dtype), **({"rtol": 0.02, "atol": 0.02} if published_rounds else {}))
    for one, other in zip(our_gradients, their_gradients, strict=True):
        assert_close(one, other, **({"rtol": 0.1, "atol": 0.02} if published_rounds else {}))
    assert torch.equal(our_state, their_state)


class PublishedCategoryLoss(nn.Module):
    """zi2zi's loss, whose one-hot table is an embedding."""

    def __init__(self, category_num):
        super().__init__()
        self.emb = nn.Embedding(category_num, category_num)
        self.emb.weight.data = torch.eye(category_num)

    def forward(self, category_logits, labels):
        return nn.BCEWithLogitsLoss()(category_logits, self.emb(labels))


@pytest.mark.parametrize("categories", [1, 6, 40])
def test_zi2zi_category_loss_draws_as_many_numbers_as_an_embedding(categories):
    logits, labels = torch.randn(5, categories), torch.arange(5) % categories
    actual = []
    for make in (PublishedCategoryLoss, zi2zi.CategoryLoss):
        torch.manual_seed(7)
        loss = make(categories)
        state_after_init = torch.random.get_rng_state()
        actual.append((loss(logits, labels), state_after_init, torch.random.get_rng_state()))
    assert_close(actual[1][0], actual[0][0])
    assert torch.equal(actual[1][1], actual[0][1]) and torch.equal(actual[1][2], actual[0][2])


def published_patches(channels, width, layers, norm, bias):
    """PatchGAN's layers, whose weights are drawn by the constructors, and then anew."""
    widths = [width * min(2**number, 8) for number in range(layers + 1)]
    made = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for number, (narrow, wide) in enumerate(itertools.pairwise(widths), 1):
        stride = 1 if number == layers else 2
        made += [nn.Conv2d(narrow, wide, 4, stride, 1, bias=bias), norm(wide), nn.LeakyReLU(0.2)]
    network = nn.Sequential(*made, nn.Conv2d(widths[-1], 1, 4, 1, 1))
    for layer in network:
        if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)):
            nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), 0.02)
    return network


@pytest.mark.parametrize("layers", [1, 3, 5])
@pytest.mark.parametrize("module", [taming, videoseal])
def test_patch_discriminators_draw_what_the_published_ones_draw(module, layers):
    theirs = (nn.BatchNorm2d, False) if module is taming else (lambda width: nn.GroupNorm(4, width), True)
    torch.manual_seed(7)
    published = published_patches(3, 4, layers, *theirs)
    state = torch.random.get_rng_state()
    torch.manual_seed(7)
    ours = module.NLayerDiscriminator(3, 4, layers)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in published.state_dict().items():
        assert torch.equal(ours.main.state_dict()[name], value), name


def test_losses_with_a_discriminator_draw_its_numbers_alone():
    options = {"disc_num_layers": 1, "weights": None}
    for make, discriminator in (
        (lambda: taming.VQLPIPSWithDiscriminator(0, **options), taming.NLayerDiscriminator),
        (lambda: ldm.LPIPSWithDiscriminator(0, **options), taming.NLayerDiscriminator),
        (lambda: ldm.GeneralLPIPSWithDiscriminator(0, **options), taming.NLayerDiscriminator),
        (lambda: videoseal.VideosealLoss(**options), videoseal.NLayerDiscriminator),
    ):
        states = []
        for build in (make, lambda discriminator=discriminator: discriminator(n_layers=1)):
            torch.manual_seed(7)
            build()
            states.append(torch.random.get_rng_state())
        assert torch.equal(*states)


def test_the_other_shims_draw_no_random_numbers():
    state = torch.random.get_rng_state()
    for make in (
        lambda: [basicsr.GANLoss(kind) for kind in ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")],
        lambda: [pix2pix.GANLoss(kind) for kind in ("vanilla", "lsgan", "wgangp")],
        lambda: zi2zi.BinaryLoss(True), lambda: basicsr.PerceptualLoss({"conv1_1": 1.0}, backbone=None),
    ):  # fmt: skip
        make()
        assert torch.equal(torch.random.get_rng_state(), state)
