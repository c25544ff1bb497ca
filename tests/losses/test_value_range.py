"""When a loss warns of images in another range, what it advises, and that it never waits for a GPU."""

import copy
import pickle
import warnings

import pytest
import torch

from fastgan.compat import basicsr
from fastgan.losses import LPIPS, LPIPSLoss, PerceptualLoss
from fastgan.ops import _later, _value_range
from fastgan.ops._value_range import BY_VALUE_RANGE, LOOKS_AT, RangeCheck

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def basicsr_loss(**options):
    return basicsr.PerceptualLoss({"relu1_1": 1.0}, **options)


def first_warning(images, expected, calls=LOOKS_AT[-1] + 2):
    """The warning for a series of images and the call that issues it; (None, calls) without a warning."""
    check = RangeCheck("Loss", BY_VALUE_RANGE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for call in range(1, calls + 1):
            check.look(expected, images(call))
            if caught:
                return str(caught[0].message), call
    return None, check._calls


def uniform(low, high):
    return lambda call: low + (high - low) * torch.rand(2, 3, 16, 16)


def imagenet(low, high):
    return lambda call: (uniform(low, high)(call) - MEAN) / STD


@pytest.mark.parametrize(
    ("images", "expected", "message", "call"),
    [
        (uniform(0, 1), (-1, 1), "images in [0, 1] need value_range=(0, 1)", 1),
        (uniform(-1, 1), (0, 1), "normalized twice: they need value_range=(-1, 1)", 1),
        (uniform(0, 255), (-1, 1), "8-bit values must be divided by 255", 1),
        (uniform(0, 255), (0, 1), "8-bit values must be divided by 255", 1),
        (uniform(-128, 127), (-1, 1), "8-bit values must be divided by 255", 1),
        (imagenet(0, 1), (-1, 1), "ImageNet's statistics", 1),
        (imagenet(0, 1), (0, 1), "ImageNet's statistics", 1),
        (uniform(-3, 1), (-1, 1), "normalized twice", 1),
        (uniform(-1.3, 2.6), (0, 1), "normalized twice, with other statistics, or not clamped?", 1),
        # Dark 8-bit images have at most 256 levels; float images, and those beyond 8 bits, have more.
        (lambda call: torch.randint(0, 6, (2, 3, 16, 16)).float(), (0, 1), "8-bit values must be", 1),
        (lambda call: torch.randint(0, 4, (2, 3, 16, 16)).float(), (-1, 1), "8-bit values must be", 1),
        (uniform(0, 1.8), (0, 1), ": values beyond 1 must be scaled, tone-mapped or clamped", 1),
        (uniform(0, 1.8), (-1, 1), ": values beyond 1 must be scaled, tone-mapped or clamped", 1),
        (uniform(0, 4.5), (0, 1), ": values beyond 1 must be scaled, tone-mapped or clamped", 1),
        (uniform(0, 8), (0, 1), ": values beyond 1 must be scaled, tone-mapped or clamped", 1),
        (uniform(0, 8), (-1, 1), ": values beyond 1 must be scaled, tone-mapped or clamped", 1),
        (uniform(-0.02, 8), (0, 1), ": values beyond 1 must be scaled, tone-mapped or clamped", 1),
        (uniform(0, 900), (0, 1), ": values beyond 1 must be scaled, tone-mapped or clamped", 1),
        (uniform(0, 65535), (0, 1), ": values beyond 1 must be scaled, tone-mapped or clamped", 1),
        (uniform(-2.1, 1.7), (-1, 1), "normalized twice, with other statistics, or not clamped?", 1),
        # Mid-grey and dark images, which need several checks.
        (uniform(0.35, 0.65), (-1, 1), "images in [0, 1] need", 5),
        (uniform(0, 0.3), (-1, 1), "images in [0, 1] need", 5),
        (uniform(-0.2, 0.2), (0, 1), "normalized twice", 1),
        (lambda call: uniform(0.2, 1)(call) if call < 9 else uniform(-1, 1)(call), (0, 1), None, 3),
        (lambda call: uniform(0, 0.01)(call) if call < 9 else uniform(-1, 1)(call), (0, 1), "twice", 9),
    ],
)
def test_another_range_is_warned_of(images, expected, message, call):
    warning, warning_call = first_warning(images, expected)
    assert warning_call == call
    assert (message is None and warning is None) or message in warning


@pytest.mark.parametrize(
    ("images", "expected", "calls"),
    [
        (uniform(-1, 1), (-1, 1), 3),
        (uniform(0, 1), (0, 1), 3),
        (uniform(-0.3, 0.3), (-1, 1), 3),
        (uniform(0.4, 0.6), (0, 1), 3),
        # Bright first batches, black images, overshoots of a filter, NaN.
        (lambda call: uniform(0.3, 1)(call) if call < 3 else uniform(-1, 1)(call), (-1, 1), 3),
        (lambda call: torch.zeros(1, 3, 8, 8), (-1, 1), LOOKS_AT[-1] + 1),
        (lambda call: torch.zeros(1, 3, 8, 8), (0, 1), LOOKS_AT[-1] + 1),
        (uniform(-0.04, 1.04), (0, 1), 3),
        (lambda call: torch.full((1, 3, 8, 8), torch.nan), (0, 1), LOOKS_AT[-1] + 1),
    ],
)
def test_the_right_range_is_not_warned_of(images, expected, calls):
    assert first_warning(images, expected) == (None, calls)


def test_bright_images_are_not_claimed_to_lie_in_0_to_1():
    """They may; all that is known is that no value is below mid-grey."""
    message, _ = first_warning(uniform(0.05, 1), (-1, 1))
    assert message.endswith("]: none is darker than mid-grey; images in [0, 1] need value_range=(0, 1)")


def test_few_values_outside_are_not_warned_of():
    def overshoots(call):
        image = torch.rand(1, 3, 64, 64)
        image[:, :, 0, :20] = -0.5
        return image

    assert first_warning(overshoots, (0, 1))[0] is None


@pytest.mark.parametrize("shape", [(8, 3, 512, 700), (1, 3, 1, 40000), (3, 1, 1), (400, 3, 33, 40)])
def test_a_check_reads_few_values_of_large_images(shape, monkeypatch):
    counts = []
    monkeypatch.setattr(
        torch.Tensor, "aminmax", lambda self: counts.append(self.numel()) or (self.min(), self.max())
    )
    image = torch.rand(shape)
    statistics = _value_range._statistics(image, (0, 1))
    assert counts[0] <= max(4 * _value_range.SAMPLE, shape[0] * 3)
    assert counts[0] == image.numel() or counts[0] >= min(_value_range.SAMPLE, image.numel()) // 4
    assert 0 <= statistics[0] <= statistics[1] <= 1 and statistics[2:].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("make", "call", "advice"),
    [
        (LPIPS, {}, "need normalize=True or value_range=(0, 1)"),
        (LPIPS, {"value_range": (-1, 1)}, "need value_range=(0, 1)"),
        (LPIPSLoss, {"value_range": (-1, 1)}, "need value_range=(0, 1)"),
        (PerceptualLoss, {}, "need value_range=(0, 1)"),
        (
            basicsr_loss,
            {"range_norm": True},
            "need range_norm=False",
        ),
    ],
)
def test_advice_for_images_from_0_can_be_followed(make, call, advice):
    image = torch.rand(1, 3, 64, 64)
    with pytest.warns(RuntimeWarning) as caught:
        make(weights=None, **call)(image, image)
    assert str(caught[0].message).endswith("; images in [0, 1] " + advice)


@pytest.mark.parametrize(
    ("make", "call", "advice"),
    [
        (LPIPSLoss, {}, "need value_range=(-1, 1)"),
        (LPIPS, {"value_range": (0, 1)}, "need value_range=(-1, 1)"),
        (PerceptualLoss, {"value_range": (0, 1)}, "need value_range=(-1, 1)"),
        (basicsr_loss, {}, "need range_norm=True"),
    ],
)
def test_advice_for_images_from_minus_1_can_be_followed(make, call, advice):
    image = 2 * torch.rand(1, 3, 64, 64) - 1
    with pytest.warns(RuntimeWarning) as caught:
        make(weights=None, **call)(image, image)
    assert str(caught[0].message).endswith(advice)


def test_lpips_loss_must_know_its_range():
    with pytest.raises(ValueError, match=r"value_range must be one of \(-1, 1\), \(0, 1\), got None"):
        LPIPSLoss(value_range=None, weights=None)


def test_nothing_is_checked_where_values_cannot_be_read():
    check = RangeCheck("Loss", BY_VALUE_RANGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check.look((0, 1), torch.empty(1, 3, 8, 8, device="meta"))
        with torch._subclasses.FakeTensorMode():
            check.look((0, 1), torch.empty(1, 3, 8, 8))
        torch.func.vmap(lambda image: check.look((0, 1), image) or image)(torch.rand(2, 1, 3, 8, 8) * 255)
        torch.compile(lambda image: check.look((0, 1), image), backend="eager")(torch.rand(1, 3, 8, 8) * 255)
    assert check._calls == 0


# --- outputs of networks ----------------------------------------------------------------------------------


def raw_output(spread=0.3):
    """The output of an untrained network for images in [0, 1]."""
    return 0.5 + spread * torch.randn(2, 3, 40, 40)


@pytest.mark.parametrize("spread", [0.3, 1.0])
@pytest.mark.parametrize("first", ["output", "image"])
@pytest.mark.parametrize("in_training", [True, False])
def test_a_network_s_output_is_not_warned_of(spread, first, in_training):
    """In training it requires grad; in evaluation its reference shows the right range."""
    check = RangeCheck("Loss", BY_VALUE_RANGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(10):
            pair = raw_output(spread).requires_grad_(in_training), torch.rand(2, 3, 40, 40)
            check.look((0, 1), *(pair if first == "output" else reversed(pair)))
    assert check._decided


@pytest.mark.parametrize("make", [LPIPSLoss, lambda **o: PerceptualLoss(value_range=(0, 1), **o)])
def test_losses_check_images_that_are_no_outputs(make):
    loss, image = make(weights=None), torch.rand(1, 3, 40, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            loss(image, raw_output()[:1].requires_grad_())
            loss(raw_output()[:1], image)
    for pair in ((raw_output()[:1].requires_grad_(), 2 * image - 1), (2 * image - 1, 2 * image - 1)):
        with pytest.warns(RuntimeWarning, match=r"they need value_range=\(-1, 1\)") as caught:
            make(weights=None)(*pair)
        assert caught[0].filename == __file__


@pytest.mark.parametrize("make", [LPIPS, LPIPSLoss, PerceptualLoss])
@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1)])
def test_a_range_may_be_a_list(make, value_range):
    assert make(weights=None, value_range=list(value_range)).value_range == value_range
    with pytest.raises(ValueError, match=r"value_range must be one of .*, got list \[0, 255\]"):
        make(weights=None, value_range=[0, 255])


# --- on a GPU ---------------------------------------------------------------------------------------------


class Event:
    """An event that a test completes; like CUDA's, it cannot be copied."""

    def __init__(self):
        self.is_complete = False

    def query(self):
        return self.is_complete

    def __reduce__(self):
        raise TypeError("cannot pickle 'Event' object")


@pytest.fixture
def events(monkeypatch):
    """Makes checks take images for ones on a GPU, and returns the events of the copies to the CPU."""
    created = []

    def copy_to_host_async(statistics):
        created.append(Event())
        return statistics, created[-1]

    monkeypatch.setattr(_value_range, "is_on_gpu", lambda image: True)
    monkeypatch.setattr(_later, "is_on_gpu", lambda image: True)
    monkeypatch.setattr(_later, "copy_to_host_async", copy_to_host_async)
    monkeypatch.setattr(_later, "is_captured", lambda device: False)
    return created


def test_each_check_on_a_gpu_is_evaluated_once_its_copy_has_arrived(events):
    check = RangeCheck("Loss", BY_VALUE_RANGE)
    grey = torch.zeros(1, 3, 8, 8)
    for _ in range(4):
        check.look((-1, 1), grey)
    assert len(events) == 1  # the next check begins only after the previous one was evaluated
    for number in range(3):
        events[-1].is_complete = True
        check.look((-1, 1), 2 * torch.rand(1, 3, 8, 8) - 1)
        assert len(events) == min(number + 2, 3)
    assert check._pending_read.is_empty and check._decided and check._observed[0].looks == 3


def test_the_last_check_on_a_gpu_is_evaluated_too(events):
    check = RangeCheck("Loss", BY_VALUE_RANGE)
    for call in range(1, LOOKS_AT[-1] + 1):
        check.look((-1, 1), torch.zeros(1, 3, 8, 8) if call < LOOKS_AT[-1] else torch.rand(1, 3, 8, 8))
        events[-1].is_complete = True
    with pytest.warns(RuntimeWarning, match=r"images in \[0, 1\]"):
        check.look((-1, 1), torch.rand(1, 3, 8, 8))
    assert check._pending_read.is_empty


def test_nothing_is_checked_while_a_graph_is_captured(events, monkeypatch):
    check = RangeCheck("Loss", BY_VALUE_RANGE)
    monkeypatch.setattr(_later, "is_captured", lambda device: True)
    check.look((-1, 1), torch.rand(1, 3, 8, 8))
    assert not events


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
@pytest.mark.parametrize("make", [LPIPS, PerceptualLoss])
def test_losses_can_be_copied_with_a_pending_check(make, copy_of, events):
    image = torch.rand(1, 3, 40, 40)
    loss = make(weights=None)
    loss(image, image)
    assert not loss._range_check._pending_read.is_empty
    loss_copy = copy_of(loss)
    assert loss_copy._range_check._pending_read.is_empty and not loss._range_check._pending_read.is_empty
    events[0].is_complete = True
    loss_copy(image, image)
    with pytest.warns(RuntimeWarning, match=r"images in \[0, 1\] need"):
        loss(image, image)
    events[1].is_complete = True
    with pytest.warns(RuntimeWarning, match=r"images in \[0, 1\] need"):
        loss_copy(image, image)
