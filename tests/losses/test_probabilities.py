"""Losses warn once of probabilities where they expect logits, never of logits, and accept either."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan import losses
from fastgan.compat import basicsr, pix2pix, starganv2, studiogan
from fastgan.losses import AdversarialLoss, BinaryLoss, CategoryLoss, adversarial_functions, labels
from fastgan.losses._probabilities import ProbabilityCheck
from tests.conftest import DEVICES

LABELS = torch.arange(32) % 4
BITS = torch.arange(128).reshape(32, 4) % 2


@pytest.fixture(autouse=True)
def new_checks(monkeypatch):
    """Replaces the checks of functions, which last as long as the process."""
    for module, name in ((starganv2, "_ADV_LOSS"), (labels, "_BCE_SECRET_LOSS")):
        monkeypatch.setattr(module, name, ProbabilityCheck(name, of_function=True))
    for loss in adversarial_functions._SHARED.values():
        monkeypatch.setattr(loss, "_check", adversarial_functions._shared_loss(loss.kind)._check)


# All losses that check their logits, as functions of them.
def checked_losses():
    bce, nonsaturating, relativistic = map(AdversarialLoss, ("bce", "nonsaturating", "relativistic"))
    real, category = BinaryLoss(True), CategoryLoss(4)
    sr, pix = basicsr.GANLoss("vanilla"), pix2pix.GANLoss("vanilla")
    return {
        "AdversarialLoss bce": lambda x: bce.discriminator(x, x.flip(0)),
        "AdversarialLoss bce, G": bce.generator,
        "AdversarialLoss halves": lambda x: nonsaturating.halves(x, x.flip(0)),
        "AdversarialLoss relativistic": lambda x: relativistic.discriminator(x, x.flip(0)),
        "d_nonsaturating_loss": lambda x: losses.d_nonsaturating_loss(x, x.flip(0)),
        "d_bce_loss, smoothed": lambda x: losses.d_bce_loss(x, x.flip(0), 0.9),
        "g_bce_loss": losses.g_bce_loss,
        "adv_loss": lambda x: losses.adv_loss(x, 1),
        "bce_secret_loss": lambda x: losses.bce_secret_loss(x, BITS),
        "BinaryLoss": real,
        "CategoryLoss": lambda x: category(x, LABELS),
        "starganv2.adv_loss": lambda x: starganv2.adv_loss(x, 0),
        "studiogan.d_vanilla": lambda x: studiogan.d_vanilla(x, x.flip(0), False),
        "basicsr.GANLoss": lambda x: sr(x, True),
        "pix2pix.GANLoss": lambda x: pix(x, True),
    }  # fmt: skip


def warnings_of(loss, inputs) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for x in inputs:
            loss(x)
    return caught


def random_logits(count, scale=1.0, offset=0.0):
    generator = torch.Generator().manual_seed(5)
    return [offset + scale * torch.randn(32, 4, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("name", checked_losses())
def test_probabilities_are_warned_of_once_in_the_first_calls(name):
    loss = checked_losses()[name]
    caught = warnings_of(loss, [x.sigmoid() for x in random_logits(12)])
    assert len(caught) == 1 and caught[0].category is RuntimeWarning
    assert "all values lie in [0, 1]: is there a sigmoid?" in str(caught[0].message)
    assert ("from_probabilities=True" in str(caught[0].message)) != ("relativistic" in name)
    assert caught[0].filename == __file__, "the warning must name a line of the caller"


@pytest.mark.parametrize("name", checked_losses())
def test_an_untrained_network_with_a_sigmoid_is_warned_of_soon(name):
    assert len(warnings_of(checked_losses()[name], [x.sigmoid() for x in random_logits(10, scale=0.1)])) == 1


@pytest.mark.parametrize("name", checked_losses())
@pytest.mark.parametrize(
    "logits",
    [
        random_logits(40),
        random_logits(40, scale=0.01, offset=0.05),
        [*(x.clamp(0, 1) for x in random_logits(2)), *random_logits(38)],
        [x.relu() for x in random_logits(40, scale=0.25)],
        [x.sigmoid()[:1, :1].expand(32, 4) for x in random_logits(2)],
    ],
    ids=["logits", "small and positive", "in [0, 1] at first", "behind a ReLU", "two calls"],
)
def test_logits_are_not_warned_of(name, logits):
    assert not warnings_of(checked_losses()[name], logits)


@pytest.mark.parametrize("kind", ["lsgan", "hinge", "wgan", "wgan-gp"])
def test_losses_of_unbounded_scores_do_not_check(kind):
    loss = AdversarialLoss(kind)
    assert not warnings_of(
        lambda x: loss.discriminator(x, x.flip(0)), [x.sigmoid() for x in random_logits(40)]
    )
    assert not loss._check.undecided


def test_a_loss_stops_checking_after_logits():
    loss = AdversarialLoss("bce")
    loss.discriminator(*random_logits(2))
    calls = loss._check.calls
    loss.discriminator(*random_logits(2))
    assert not loss._check.undecided and loss._check.calls == calls == 1
    undecided = AdversarialLoss("bce")
    for _ in range(2000):
        undecided.generator(torch.full((4,), 0.1))
    assert not undecided._check.undecided, "it must stop checking in the end"


@pytest.mark.parametrize("batch", range(1, 6))
def test_small_batches_of_probabilities_are_warned_of(batch):
    """A check of few values is weak evidence, so that more checks are needed."""
    real, bce = BinaryLoss(True), AdversarialLoss("bce")
    for loss in (real, lambda x: bce.discriminator(x, x.flip(0)), lambda x: losses.adv_loss(x, 1)):
        generator = torch.Generator().manual_seed(batch)
        inputs = [torch.randn(batch, 1, generator=generator).mul(3).sigmoid() for _ in range(65)]
        assert len(warnings_of(loss, inputs)) == 1


FUNCTIONS = [name for name in checked_losses() if name.split(".")[-1][0].islower()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_warn_of_one_network_after_logits_of_another(name):
    """A function may serve several networks, whereas a module usually serves one."""
    loss = checked_losses()[name]
    logits = random_logits(1, scale=3.0)
    assert len(warnings_of(loss, [*logits, *(x.sigmoid() for x in random_logits(200))])) == 1
    assert not warnings_of(loss, [x.sigmoid() for x in random_logits(200)]), "warned twice"


def test_functions_stop_checking_in_the_end():
    check = starganv2._ADV_LOSS
    calls = 0
    while check.undecided:
        losses.adv_loss(torch.tensor([-1.0, 2.0]), 1)
        calls += 1
    assert calls == 1024 and check.looks == 0
    assert not warnings_of(lambda x: losses.adv_loss(x, 1), [x.sigmoid() for x in random_logits(50)])


@pytest.mark.parametrize(("low", "high"), [(0.05, 0.45), (0.55, 0.95), (0.1, 0.7), (0.3, 0.8)])
def test_positive_logits_away_from_a_half_are_no_untrained_sigmoid(low, high):
    inputs = [low + (high - low) * torch.rand(32, 4) for _ in range(40)]
    assert not warnings_of(BinaryLoss(True), inputs)


def test_nan_is_no_evidence():
    loss = BinaryLoss(True)
    loss(torch.full((64,), torch.nan))
    assert loss._check.undecided and loss._check.looks == 0
    assert len(warnings_of(loss, [x.sigmoid() for x in random_logits(4)])) == 1


def test_nothing_is_read_while_compiled_or_transformed():
    loss = AdversarialLoss("bce")
    real, fake = (x.sigmoid() for x in random_logits(2))
    for _ in range(5):
        torch.func.grad(loss.generator)(fake)
    torch._dynamo.reset()
    graphs = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(loss.discriminator, fullgraph=True, backend=graphs)
    for _ in range(5):
        compiled(real, fake)
    assert loss._check.calls == 0
    loss.discriminator(*random_logits(2))
    assert not loss._check.undecided
    compiled(real, fake)
    assert graphs.frame_count == 1, "recompiled after an eager call decided"


@pytest.mark.gpu
def test_checks_do_not_wait_for_the_gpu():
    loss = BinaryLoss(True)
    probabilities = [x.sigmoid().cuda() for x in random_logits(12)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for x in probabilities:
                loss(x)
            torch.cuda.set_sync_debug_mode("default")
            for x in probabilities * 10:
                torch.cuda.synchronize()
                loss(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(caught) == 1


def test_a_pending_check_is_neither_copied_nor_pickled():
    class Event:
        def query(self):
            return False

        def __reduce__(self):
            raise TypeError("an event belongs to its process")

    for loss in (AdversarialLoss("bce"), BinaryLoss(True), nn.Sequential(CategoryLoss(4))):
        check = (loss[0] if isinstance(loss, nn.Sequential) else loss)._check
        check._pending_read._pending = (torch.zeros(2), Event(), 4)
        copies = copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))
        for each in copies:
            check = (each[0] if isinstance(each, nn.Sequential) else each)._check
            assert check._pending_read.is_empty and check.undecided


# --- where probabilities are meant --------------------------------------------------------------------------


def bce(probabilities, label):
    return nn.BCELoss()(probabilities, torch.full_like(probabilities, label))


def test_from_probabilities_is_the_cross_entropy_of_probabilities():
    p, q = (x.sigmoid() for x in random_logits(2, scale=3.0))
    one_hot = F.one_hot(LABELS, 4).float()
    for actual, expected in (
        (losses.adv_loss(p, 1, from_probabilities=True), bce(p, 1.0)),
        (losses.adv_loss(p, 0, from_probabilities=True), bce(p, 0.0)),
        (starganv2.adv_loss(p, 0, from_probabilities=True), bce(p, 0.0)),
        (BinaryLoss(True, from_probabilities=True)(p), bce(p, 1.0)),
        (CategoryLoss(4, from_probabilities=True)(p, LABELS), nn.BCELoss()(p, one_hot)),
        (losses.bce_secret_loss(p, BITS, from_probabilities=True), nn.BCELoss()(p, BITS.float())),
        (losses.d_bce_loss(p, q, 0.9, 0.1, from_probabilities=True), bce(p, 0.9) + bce(q, 0.1)),
        (losses.d_nonsaturating_loss(p, q, from_probabilities=True), bce(p, 1.0) + bce(q, 0.0)),
        (losses.g_bce_loss(q, from_probabilities=True), bce(q, 1.0)),
        (losses.g_nonsaturating_loss(q, from_probabilities=True), bce(q, 1.0)),
        (studiogan.d_vanilla(p, q, False, from_probabilities=True), bce(p, 1.0) + bce(q, 0.0)),
        (studiogan.g_vanilla(q, False, from_probabilities=True), bce(q, 1.0)),
        (basicsr.GANLoss("vanilla", 0.9, from_probabilities=True)(p, True, is_disc=True), bce(p, 0.9)),
        (pix2pix.GANLoss("vanilla", 0.9, from_probabilities=True)(p, True), bce(p, 0.9)),
    ):
        assert_close(actual, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["bce", "nonsaturating"])
def test_an_adversarial_loss_of_probabilities_is_that_of_their_logits(kind, sign, device):
    real, fake = (x.double().to(device).requires_grad_() for x in random_logits(2, scale=3.0))
    labels = {"real_label": 0.9, "fake_label": 0.2} if kind == "bce" else {}
    loss_of_logits = AdversarialLoss(kind, sign, **labels)
    loss = AdversarialLoss(kind, sign, from_probabilities=True, **labels)
    actual, statistics = loss.discriminator(real.sigmoid(), fake.sigmoid(), return_statistics=True)
    expected_loss, expected_statistics = loss_of_logits.discriminator(real, fake, return_statistics=True)
    for a, b in (
        (actual, expected_loss), (loss.generator(fake.sigmoid()), loss_of_logits.generator(fake)),
        (sum(loss.halves(real.sigmoid(), fake.sigmoid())), expected_loss),
    ):  # fmt: skip
        assert_close(a, b)
        for gradients in zip(*(torch.autograd.grad(each, (real, fake), allow_unused=True, retain_graph=True)
                               for each in (a, b)), strict=True):  # fmt: skip
            if gradients[1] is not None:
                assert_close(*gradients)
    for name, value in expected_statistics._asdict().items():
        if name in ("D_real", "D_fake"):
            value = (real if name == "D_real" else fake).sigmoid().mean()
        assert_close(getattr(statistics, name), value.detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_probabilities_are_computed_with_in_float32(dtype, autocast):
    p = torch.tensor([0.0, 1e-6, 0.25, 0.5, 1.0], dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = losses.adv_loss(p, 1, from_probabilities=True)
    expected = bce(p.double(), 1.0)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    assert expected > 20, "log 0 counts as -100"
    assert torch.autograd.grad(loss, p)[0].dtype == dtype
    compiled = torch.compile(lambda p: losses.adv_loss(p, 1, from_probabilities=True), fullgraph=True)
    assert_close(compiled(p), loss)


def test_values_and_losses_without_probabilities_are_named():
    with pytest.raises(
        ValueError, match=r"logits must be probabilities, .*got values in \[-1, 2\], not in \[0, 1\]"
    ):
        losses.adv_loss(torch.tensor([-1.0, 2.0]), 1, from_probabilities=True)
    for dtype, largest in ((torch.float32, r"1\.00000012"), (torch.float64, r"1\.0000000000000002")):
        too_large = torch.tensor([0.5, 1 + torch.finfo(dtype).eps], dtype=dtype)
        with pytest.raises(ValueError, match=rf"got values in \[0.5, {largest}\]"):
            losses.adv_loss(too_large, 1, from_probabilities=True)
    with pytest.raises(
        ValueError, match=r"from_probabilities=True is for bce and nonsaturating, got True and kind 'hinge'"
    ):
        AdversarialLoss("hinge", from_probabilities=True)
    with pytest.raises(ValueError, match="kind 'relativistic', which compares logits"):
        AdversarialLoss("relativistic", from_probabilities=True)
    for make in (basicsr.GANLoss, pix2pix.GANLoss):
        with pytest.raises(ValueError, match="is for vanilla, got True and gan_.* 'lsgan'"):
            make("lsgan", from_probabilities=True)
    with pytest.raises(ValueError, match=r"fake_logits must not be empty, got shape \(0, 1\)"):
        losses.g_bce_loss(torch.rand(0, 1), from_probabilities=True)
    with pytest.raises(TypeError, match=r"logits\[0\] must be a floating-point tensor, got float 0\.5"):
        losses.adv_loss([0.5], 1, from_probabilities=True)
