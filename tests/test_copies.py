"""Copies of everything with a state: deepcopy, pickle and torch.save give working and independent copies.

Every class that `fastgan` exports must have an example here, which makes the object, with the network that it
belongs to, if any, and uses it.
"""

import copy
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import fastgan
from fastgan.losses._borrowed import BORROWED
from tests.copies import COPIES

# Modules whose public classes must all have an example, not only modules and optimizers.
WITH_STATE = ("fastgan.augment", "fastgan.compat", "fastgan.losses", "fastgan.metrics", "fastgan.optim")


class Example(NamedTuple):
    """`use` returns comparable values; the random seed is set before it."""

    make: Callable[[], Any]
    use: Callable[[Any], Any]


class Tied(NamedTuple):
    """`make` takes a network, `use` the made object and the network."""

    make: Callable[[nn.Module], Any]
    use: Callable[[Any, nn.Module], Any]


@functools.cache
def exported():
    """The classes that must have an example, by name."""
    actual = {}
    for info in pkgutil.walk_packages(fastgan.__path__, "fastgan."):
        if any(part == "bench" or part.startswith("_") for part in info.name.split(".")):
            continue
        try:
            module = importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            if (error.name or "fastgan").startswith("fastgan"):
                raise
            continue  # of an extra that is not installed
        defined = [n for n, kind in vars(module).items() if getattr(kind, "__module__", "") == info.name]
        for name in [
            *getattr(module, "__all__", defined),
            *(BORROWED if info.name == "fastgan.losses" else ()),
        ]:
            kind = getattr(module, name)
            if name.startswith("_") or not inspect.isclass(kind):
                continue
            if issubclass(kind, (nn.Module, torch.optim.Optimizer)) or info.name.startswith(WITH_STATE):
                actual.setdefault(kind, []).append(f"{info.name.removeprefix('fastgan.')}.{name}")
    # The longest name is that of the defining file, unless the file is private.
    return {max(names, key=len): kind for kind, names in actual.items()}


# --- what examples use ------------------------------------------------------------------------------------


class Network(nn.Module):
    """Maps 3 8 8 to a number, without buffers that calls would change."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, x):
        return self.layers(x)[:, 0]


def model(recipe):
    def make():
        from tests.recipes.models import untrained

        return untrained(recipe)

    return make


def images(*shape, low=0.0):
    return low + (1 - low) * torch.rand(*(shape or (2, 3, 32, 32)))


def called(*shapes, low=0.0, extra=()):
    """Calls with images that require grad: results and the gradient of their sum."""

    def use(module):
        inputs = [images(*shape, low=low) for shape in shapes]
        inputs[0].requires_grad_()
        results = module(*inputs, *extra)
        results = results if isinstance(results, (tuple, list)) else [results]
        total = sum(result.float().sum() for result in results if result is not None)
        parameters = [p for p in getattr(module, "parameters", list)() if p.requires_grad]
        gradients = torch.autograd.grad(total, [inputs[0], *parameters], allow_unused=True)
        return [*results, *gradients]

    return use


def reconstructed(loss, *first, last):
    """A loss of images made by a last layer, and that layer's gradient."""
    layer = nn.Conv2d(3, 3, 1)
    value, log = loss(*first, layer(images(low=-1)), *last, layer.weight)
    value.backward()
    return [value, *log.values(), layer.weight.grad]


def general(loss, inputs, reconstructions, index, step, layer):
    """A call of generative-models' loss, whose further arguments are keywords."""
    return loss(
        inputs,
        reconstructions,
        regularization_log={},
        optimizer_idx=index,
        global_step=step,
        last_layer=layer,
    )


def stepped(optimizer, network):
    """A few steps, and the network's parameters after them."""
    for _ in range(3):
        optimizer.zero_grad()
        network(images(4, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in network.parameters()]


def averaged(ema, network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.rand_like(parameter)
    ema.update()
    return [*ema.average.parameters(), ema.updates]


def penalized(r1, network):
    penalty = r1(images(4, 3, 8, 8), step=0)
    return [*penalty, *torch.autograd.grad(penalty.loss, list(network.parameters()), allow_unused=True)]


def lengthened(path_length):
    latents, weight = torch.randn(4, 5, requires_grad=True), torch.randn(5, 48, requires_grad=True)
    term = path_length((latents @ weight).tanh().reshape(4, 3, 4, 4), latents)
    return [*term, path_length.mean.clone(), *torch.autograd.grad(term.loss, [latents, weight])]


def regularized(path_length):
    latents, weight = torch.randn(4, 5, requires_grad=True), torch.randn(5, 48, requires_grad=True)
    penalty = path_length.cal_pl_reg((latents @ weight).tanh().reshape(4, 3, 4, 4), latents)
    return [penalty, path_length.pl_mean.clone(), *torch.autograd.grad(penalty, [latents, weight])]


def judged(distance):
    for real in (True, False):
        distance.update(images(4, 3, 40, 40), real=real)
    return distance.compute()


def trained(balance):
    logits = torch.rand(6), torch.rand(6)
    actual = balance.discriminator_loss(fastgan.losses.AdversarialLoss("bce"), *logits)
    return [
        actual.loss,
        *balance.buffers(),
        torch.tensor([balance.trains_generator(step) for step in range(6)]),
    ]


def generator():
    return torch.Generator().manual_seed(0)


def made(path: str, *arguments, **options):
    """Makes a class of `fastgan`, which is imported when the test runs."""

    def make():
        module, name = path.rsplit(".", 1)
        return getattr(importlib.import_module(f"fastgan.{module}"), name)(*arguments, **options)

    return make


def tied(path: str, *arguments, with_parameters=False, **options):
    def make(network):
        module, name = path.rsplit(".", 1)
        first = network.parameters() if with_parameters else network
        return getattr(importlib.import_module(f"fastgan.{module}"), name)(first, *arguments, **options)

    return make


def result_of(path: str, *fields: str):
    """A named tuple of results."""
    return Example(lambda: made(path, *(torch.rand(2) for _ in fields))(), lambda result: list(result))


def measured(budget):
    """Gradient, measures and averages of a step with wanted shares."""
    parameter = torch.rand(3).requires_grad_()
    leaf = budget.cut(2 * parameter)
    terms = {"mean": leaf.mean(), "square": leaf.square().mean()}
    shares = budget.backward(terms, shares={"mean": 1.0, "square": 2.0})
    return [parameter.grad, shares.gram, budget.averages]


IMAGE, ODD = (2, 3, 32, 32), (2, 3, 40, 44)
EXAMPLES: dict[str, Example | Tied] = {
    "monitor.loss_budget.LossBudget": Example(made("monitor.LossBudget", decay=0.5), measured),
    # Losses
    "losses.adversarial.AdversarialLoss": Example(
        made("losses.AdversarialLoss", "hinge"),
        lambda loss: [loss.generator(torch.rand(4)), loss.discriminator(torch.rand(4), torch.rand(4))],
    ),
    "losses.adversarial.AdversarialStatistics": Example(
        made("losses.AdversarialLoss", "bce"),
        lambda loss: list(loss.discriminator(torch.rand(4), torch.rand(4), return_statistics=True)[1]),
    ),
    "losses.adversarial.SideStatistics": Example(
        made("losses.AdversarialLoss", "bce"),
        lambda loss: list(loss.real(torch.rand(4), return_statistics=True)[1]),
    ),
    "losses.jpeg.DiffJPEG": Example(made("losses.DiffJPEG", 32, 32, quality=50), called(IMAGE)),
    "losses.jpeg.RandomJPEG": Example(made("losses.RandomJPEG", 50, rounding="cubic"), called(IMAGE)),
    "compat.zi2zi.BinaryLoss": Example(made("losses.BinaryLoss", True), called((5, 1), low=-1)),
    "losses.CategoryLoss": Example(
        made("losses.CategoryLoss", 4), called((5, 4), low=-1, extra=[torch.tensor([0, 1, 2, 3, 0])])
    ),
    "compat.zi2zi.CategoryLoss": Example(
        made("compat.zi2zi.CategoryLoss", 4), called((5, 4), low=-1, extra=[torch.tensor([0, 1, 2, 3, 0])])
    ),
    "losses.lazy_r1.R1": Tied(tied("losses.R1", 5.0), penalized),
    "losses.lazy_r1.PenaltyTerm": result_of("losses.PenaltyTerm", "loss", "penalty"),
    "losses.lpips.LPIPS": Example(made("losses.LPIPS", weights=None), called(ODD, ODD, low=-1)),
    "losses.lpips.LPIPSLoss": Example(made("losses.LPIPSLoss", "squeeze", weights=None), called(ODD, ODD)),
    "losses.ImageFeatures": Example(
        lambda: (loss := made("losses.LPIPS", weights=None)(), loss.precompute(images(*ODD, low=-1))),
        lambda pair: pair[0](images(*ODD, low=-1), pair[1]),
    ),
    "losses.dists.DISTS": Example(made("losses.DISTS", False, weights=None), called(ODD, ODD)),
    "losses.dists.DISTSLoss": Example(
        made("losses.DISTSLoss", load_weights=False, weights=None), called(ODD, ODD)
    ),
    "losses.focal_frequency.FocalFrequencyLoss": Example(
        made("losses.FocalFrequencyLoss", 2.0, patch_factor=2), called(IMAGE, IMAGE)
    ),
    "losses.path_length.PathLength": Example(made("losses.PathLength", decay=0.5), lengthened),
    "losses.path_length.PathLengthTerm": result_of("losses.PathLengthTerm", "loss", "penalty", "lengths"),
    "losses.path_length.PathLengths": result_of("losses.PathLengths", "penalty", "mean", "lengths"),
    "losses.perceptual.PerceptualLoss": Example(
        made("losses.PerceptualLoss", network="vgg11_bn", style_weights=2.0, weights=None),
        called(IMAGE, IMAGE, low=-1),
    ),
    "losses.perceptual.VGGFeatures": Example(
        lambda: (loss := made("losses.PerceptualLoss", weights=None)(), loss.precompute(images(low=-1))),
        lambda pair: pair[0](images(low=-1), pair[1]),
    ),
    "losses.pixel_loss.PixelLoss": Example(
        made("losses.PixelLoss", "huber", edge_gain=2.0, tv_weight=0.1), called(IMAGE, IMAGE)
    ),
    "losses.ssim.SSIMLoss": Example(made("losses.SSIMLoss", padding="same"), called(IMAGE, IMAGE)),
    "losses.ms_ssim.MSSSIMLoss": Example(
        made("losses.MSSSIMLoss", weights=(0.3, 0.7), window_size=7), called(IMAGE, IMAGE)
    ),
    "losses.yuv_color_l2.YUVColorL2": Example(made("losses.YUVColorL2"), called(IMAGE, IMAGE)),
    # Drop-ins
    "compat.pytorch_msssim.SSIM": Example(made("compat.pytorch_msssim.SSIM", 1.0), called(IMAGE, IMAGE)),
    "compat.pytorch_msssim.MS_SSIM": Example(
        made("compat.pytorch_msssim.MS_SSIM", 1.0, win_size=7, weights=(0.3, 0.7)), called(IMAGE, IMAGE)
    ),
    "compat.basicsr.DiffJPEG": Example(made("compat.basicsr.DiffJPEG"), called(IMAGE, extra=[50])),
    "compat.basicsr.GANLoss": Example(
        made("compat.basicsr.GANLoss", "wgan_softplus", loss_weight=0.1), called((4, 1), low=-1, extra=[True])
    ),
    "compat.basicsr.MultiScaleGANLoss": Example(
        made("compat.basicsr.MultiScaleGANLoss", "hinge"), called((4, 1), low=-1, extra=[True])
    ),
    **{
        f"compat.basicsr.{name}": Example(
            made(f"compat.basicsr.{name}", 0.5), called(*[IMAGE] * (1 if "TV" in name else 2))
        )
        for name in ("L1Loss", "MSELoss", "CharbonnierLoss", "WeightedTVLoss")
    },
    **{
        f"compat.{module}.FusedLeakyReLU": Example(
            made(f"compat.{module}.FusedLeakyReLU", 3), called(IMAGE, low=-1)
        )
        for module in ("basicsr", "rosinality")
    },
    "compat.trainner.CharbonnierLoss": Example(made("compat.trainner.CharbonnierLoss"), called(IMAGE, IMAGE)),
    "compat.trainner.TVLoss": Example(made("compat.trainner.TVLoss", beta=1.5), called(IMAGE)),
    "compat.studiogan.PathLengthRegularizer": Example(
        made("compat.studiogan.PathLengthRegularizer", "cpu"), regularized
    ),
    "compat.stegastamp.LPIPSLoss": Example(
        made("compat.stegastamp.LPIPSLoss", "squeeze", weights=None), called(ODD, ODD, low=-1)
    ),
    "compat.stegastamp.RandomJPEG": Example(made("compat.stegastamp.RandomJPEG"), called(IMAGE, extra=[0.5])),
    "compat.basicsr.PerceptualLoss": Example(
        made("compat.basicsr.PerceptualLoss", {"conv1_2": 1.0}, style_weight=2.0, weights=None),
        called(IMAGE, IMAGE),
    ),
    "compat.dists_pytorch.DISTS": Example(
        made("compat.dists_pytorch.DISTS", False, weights=None), called(ODD, ODD, extra=[True])
    ),
    "compat.pix2pix.GANLoss": Example(
        made("compat.pix2pix.GANLoss", "lsgan"), called((4, 1), low=-1, extra=[True])
    ),
    "compat.taming.NLayerDiscriminator": Example(
        made("compat.taming.NLayerDiscriminator", 3, 8, 1, use_actnorm=True), called(IMAGE)
    ),
    "compat.taming.VQLPIPSWithDiscriminator": Example(
        made("compat.taming.VQLPIPSWithDiscriminator", 0, disc_ndf=8, weights=None),
        lambda loss: reconstructed(loss, torch.ones(2), images(low=-1), last=(0, 1)),
    ),
    "compat.ldm.LPIPSWithDiscriminator": Example(
        made("compat.ldm.LPIPSWithDiscriminator", 0, disc_num_layers=1, weights=None),
        lambda loss: reconstructed(
            loss, images(low=-1), last=(SimpleNamespace(kl=lambda: torch.ones(2)), 0, 1)
        ),
    ),
    "compat.ldm.GeneralLPIPSWithDiscriminator": Example(
        made("compat.ldm.GeneralLPIPSWithDiscriminator", 0, disc_num_layers=1, weights=None),
        lambda loss: reconstructed(functools.partial(general, loss), images(low=-1), last=(0, 1)),
    ),
    "compat.videoseal.NLayerDiscriminator": Example(
        made("compat.videoseal.NLayerDiscriminator", 1, 8, 1), called(IMAGE)
    ),
    "compat.videoseal.VideosealLoss": Example(
        made("compat.videoseal.VideosealLoss", weights=None, disc_num_layers=1),
        lambda loss: reconstructed(
            loss, images(), last=(torch.ones(2, 1, 32, 32), None, torch.ones(2, 1, 32, 32), 0, 1)
        ),
    ),
    # Optimizers
    "optim.adam.Adam": Tied(
        tied("optim.Adam", lr=0.1, amsgrad=True, grad_clip_norm=1.0, with_parameters=True), stepped
    ),
    "optim.adam.AdamW": Tied(tied("optim.AdamW", lr=0.1, with_parameters=True), stepped),
    "optim.rmsprop.RMSprop": Tied(
        tied("optim.RMSprop", lr=0.01, momentum=0.5, grad_clip_value=1.0, with_parameters=True), stepped
    ),
    "optim.ema.EMA": Tied(tied("optim.EMA", 0.5), averaged),
    "optim.StepStatistics": result_of("optim.StepStatistics", "gradient", "weight", "clipped"),
    # Augmentations and figures
    "augment.diff_augment.DiffAugment": Example(
        made("augment.DiffAugment"), lambda augment: augment(images(low=-1), augment.draw(2, generator()))
    ),
    "augment.distortions.Distortions": Example(
        made("augment.Distortions"), lambda distort: distort(images(), 500, generator())
    ),
    "metrics.FrechetDistance": Example(made("metrics.FrechetDistance", weights=None), judged),
    # Networks
    "training.batch_norm.BatchNorm2d": Example(made("training.batch_norm.BatchNorm2d", 3), called(IMAGE)),
    "recipes.dcgan.networks.DCGANGenerator": Example(
        made("recipes.dcgan.networks.DCGANGenerator", 32, z_dim=6, width=4), called((2, 6))
    ),
    "recipes.dcgan.networks.DCGANDiscriminator": Example(
        made("recipes.dcgan.networks.DCGANDiscriminator", 32, width=4, minibatch_std=True),
        called(IMAGE),
    ),
    "recipes.enhancenet.networks.ResidualBlock": Example(
        made("recipes.enhancenet.networks.ResidualBlock", 3), called(IMAGE)
    ),
    "recipes.enhancenet.networks.EnhanceNetGenerator": Example(
        made("recipes.enhancenet.networks.EnhanceNetGenerator", 2, width=4, blocks=1), called((2, 3, 8, 8))
    ),
    "recipes.enhancenet.networks.EnhanceNetDiscriminator": Example(
        made("recipes.enhancenet.networks.EnhanceNetDiscriminator", 32, (4, 8), 8), called(IMAGE)
    ),
    "recipes.starganv2.networks.ResidualBlock": Example(
        made("recipes.starganv2.networks.ResidualBlock", 3, 4, normalize=True, halve=True), called(IMAGE)
    ),
    "recipes.starganv2.networks.AdaptiveInstanceNorm": Example(
        made("recipes.starganv2.networks.AdaptiveInstanceNorm", 5, 3), called(IMAGE, (2, 5))
    ),
    "recipes.starganv2.networks.StyledBlock": Example(
        made("recipes.starganv2.networks.StyledBlock", 3, 4, 5, enlarge=True), called(IMAGE, (2, 5))
    ),
    "recipes.starganv2.networks.StarGANv2Generator": Example(
        made("recipes.starganv2.networks.StarGANv2Generator", 32, style_dim=5, base_width=4, max_width=8),
        called(IMAGE, (2, 5)),
    ),
    "recipes.starganv2.networks.MappingNetwork": Example(
        made("recipes.starganv2.networks.MappingNetwork", 2, 4, 5, 8),
        called((2, 4), extra=[torch.tensor([0, 1])]),
    ),
    "recipes.starganv2.networks.StyleEncoder": Example(
        made("recipes.starganv2.networks.StyleEncoder", 2, 32, style_dim=5, base_width=4, max_width=8),
        called(IMAGE, extra=[torch.tensor([0, 1])]),
    ),
    "recipes.starganv2.networks.StarGANv2Discriminator": Example(
        made("recipes.starganv2.networks.StarGANv2Discriminator", 2, 32, base_width=4, max_width=8),
        called(IMAGE, extra=[torch.tensor([0, 1])]),
    ),
    "recipes.stegastamp.networks.StegaStampEncoder": Example(
        made("recipes.stegastamp.networks.StegaStampEncoder", 10, 32), called((2, 10), IMAGE)
    ),
    "recipes.stegastamp.networks.StegaStampDecoder": Example(
        made("recipes.stegastamp.networks.StegaStampDecoder", 10, 32), called(IMAGE)
    ),
    "recipes.stegastamp.networks.StegaStampDiscriminator": Example(
        made("recipes.stegastamp.networks.StegaStampDiscriminator"), called(IMAGE)
    ),
    "recipes.zi2zi.networks.Zi2ZiGenerator": Example(
        made("recipes.zi2zi.networks.Zi2ZiGenerator", 32, category_num=3, width=4, embedding_dim=5),
        called((2, 1, 32, 32), extra=[torch.tensor([0, 2])]),
    ),
    "recipes.zi2zi.networks.Zi2ZiDiscriminator": Example(
        made("recipes.zi2zi.networks.Zi2ZiDiscriminator", category_num=3, width=4),
        called((2, 1, 32, 32), (2, 1, 32, 32)),
    ),
    # Trained models
    "training.model.Model": Example(model("dcgan"), lambda model: [model.generate(2)]),
    "recipes.dcgan.model.DCGANModel": Example(model("dcgan"), lambda model: [model.generate(2)]),
    "recipes.enhancenet.model.EnhanceNetModel": Example(
        model("enhancenet"), lambda model: [model.upscale(images())]
    ),
    "recipes.starganv2.model.StarGANv2Model": Example(
        model("starganv2"), lambda model: [model.translate(images(2, 3, 16, 16), 1)]
    ),
    "recipes.stegastamp.model.StegaStampModel": Example(
        model("stegastamp"), lambda model: [model.encode(images(), torch.ones(32))]
    ),
    "recipes.zi2zi.model.Zi2ZiModel": Example(
        model("zi2zi"), lambda model: [model.translate(images(2, 1, 32, 32), 1)]
    ),
    "recipes.zi2zi.networks.SelfAttention": Example(
        made("recipes.zi2zi.networks.SelfAttention", 3), called((2, 3, 8, 8))
    ),
    "ops.conv2d.Conv2d": Example(made("ops.conv2d.Conv2d", 3, 4, 3), called(IMAGE)),
    "recipes.starganv2.evaluation.DomainClassifier": Example(
        made("recipes.starganv2.evaluation.DomainClassifier", 3, 2), called(IMAGE)
    ),
    "training.balance.EveryStep": Example(made("training.balance.EveryStep"), trained),
    "training.balance.Ratio": Example(made("training.balance.Ratio", 2, 1), trained),
    "training.balance.Threshold": Example(made("training.balance.Threshold", 0.3), trained),
    "training.balance.Adaptive": Example(made("training.balance.Adaptive"), trained),
}


def test_each_class_has_an_example():
    assert not exported().keys() - EXAMPLES.keys()
    for name in EXAMPLES.keys() - exported().keys():  # of an extra that is not installed
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("fastgan." + name.rsplit(".", 1)[0])


# --- the test ---------------------------------------------------------------------------------------------


def make(example):
    torch.manual_seed(1)
    if isinstance(example, Example):
        return example.make()
    network = Network()
    return network, example.make(network)


def use(example, thing, seed):
    torch.manual_seed(seed)
    if isinstance(example, Example):
        return example.use(thing)
    network, user = thing
    return example.use(user, network)


def memory_of(thing, seen=None):
    """Addresses of the tensors that can be reached from an object."""
    seen = {} if seen is None else seen
    if id(thing) in seen:
        return set()
    seen[id(thing)] = thing
    if isinstance(thing, Tensor):
        return {thing.data_ptr()} if thing.numel() else set()
    if isinstance(thing, dict):
        inside = [*thing.keys(), *thing.values()]
    elif isinstance(thing, (list, tuple, set)):
        inside = list(thing)
    elif type(thing).__module__.startswith(("fastgan", "torch", "tests")) and hasattr(thing, "__dict__"):
        inside = list(vars(thing).values())
    else:
        inside = []
    return set().union(*(memory_of(part, seen) for part in inside))


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_copy_does_what_the_original_does(name, how):
    if name not in exported():
        pytest.skip("of an extra that is not installed")
    example = EXAMPLES[name]
    original = make(example)
    for seed in (2, 3):  # new, and with the state after use
        twin = COPIES[how](original)
        assert not memory_of(twin) & memory_of(original)
        expected = use(example, original, seed)
        assert_close(use(example, twin, seed), expected, rtol=0, atol=0)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if isinstance(example, Tied)])
def test_a_copy_is_tied_to_the_copied_network(name, how):
    example = EXAMPLES[name]
    original = make(example)
    use(example, original, 2)
    twin, untouched = COPIES[how](original), COPIES[how](original)
    change(twin)
    actual, before = use(example, twin, 3), use(example, untouched, 3)
    assert not all(torch.equal(a, b) for a, b in zip(actual, before, strict=True))
    change(original)
    assert_close(use(example, original, 3), actual, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        (made("recipes.dcgan.networks.DCGANDiscriminator", 32, width=4, use_spectral_norm=True), [IMAGE]),
        (made("recipes.stegastamp.networks.StegaStampDiscriminator", spectral_norm=True), [IMAGE]),
        (
            made(
                "recipes.zi2zi.networks.Zi2ZiDiscriminator", category_num=3, width=4, use_spectral_norm=True
            ),
            [(2, 1, 32, 32), (2, 1, 32, 32)],
        ),
    ],
)
def test_spectral_norm_is_copied(network, shapes):
    """Copies by deepcopy, because torch refuses to pickle it."""
    example = Example(network, called(*shapes))
    original = make(example)
    twin = copy.deepcopy(original)
    assert not memory_of(twin) & memory_of(original)
    assert_close(use(example, twin, 2), use(example, original, 2), rtol=0, atol=0)


def change(thing):
    """The network of a pair, in place."""
    with torch.no_grad():
        for parameter in thing[0].parameters():
            parameter.mul_(1.5).add_(0.1)


def test_a_copied_pair_trains_the_copied_network():
    """Its optimizer, its average and its penalty, copied together, belong together."""
    from fastgan.losses import R1
    from fastgan.optim import EMA, Adam

    network = Network()
    ema = EMA(network, 0.5)
    everything = {"network": network, "r1": R1(network, 1.0, 1), "ema": ema}
    everything["optimizer"] = Adam(network.parameters(), lr=0.1, ema=ema)
    twin = copy.deepcopy(everything)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    for _ in range(2):
        twin["r1"](images(4, 3, 8, 8), step=0).loss.backward()
        twin["optimizer"].step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not torch.equal(twin["network"].layers[1].weight, network.layers[1].weight)
    assert twin["ema"].num_updates == 2 and ema.num_updates == 0
    assert not torch.equal(twin["ema"].average.layers[1].weight, ema.average.layers[1].weight)
