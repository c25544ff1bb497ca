"""Warnings for 8-bit values and images in [-1, 1] where [0, 1] is expected: their text, and once only."""

import copy
import pickle
import threading
import warnings

import pytest
import torch

from fastgan import losses, ops
from fastgan.augment import DiffAugment, Distortions, photometric
from fastgan.compat import basicsr
from fastgan.losses import yuv_color_l2
from fastgan.ops import _later, _value_range
from fastgan.ops._value_range import LOOKS_AT, GrossRangeCheck

SIGNED = r"images in \[-1, 1\] must be brought to \[0, 1\] first, as \(image \+ 1\) / 2"
EIGHT_BITS = "8-bit values must be divided by 255 first"


def image(*shape):
    return torch.rand(*(shape or (2, 3, 24, 24)))


def augmented(augment, x):
    return augment(x, augment.draw(len(x), torch.Generator()))


def metrics():
    return pytest.importorskip("fastgan.metrics")


def frechet(x, **options):
    metrics().FrechetDistance(None, **options).update(x, real=True)


# Everything that takes images in [0, 1]: a call with images and options, and the first argument's name.
CALLS = {
    "yuv_color_l2": (lambda x, **o: yuv_color_l2(x, x, **o), "x"),
    "YUVColorL2": (lambda x, **o: losses.YUVColorL2(**o)(x, x), "x"),
    "jpeg_round_trip": (lambda x, **o: ops.jpeg_round_trip(x, 50, **o), "image"),
    "DiffJPEG": (lambda x, **o: losses.DiffJPEG(24, 24, **o)(x), "x"),
    "RandomJPEG": (lambda x, **o: losses.RandomJPEG(50, **o)(x), "x"),
    "jpeg_codec_differentiable": (lambda x, **o: losses.jpeg_codec_differentiable(x, 50, **o), "image_rgb"),
    "basicsr.DiffJPEG": (lambda x, **o: basicsr.DiffJPEG(**o)(x, 50), "x"),
    "photometric": (lambda x, **o: photometric(x, contrast=1.1, **o), "image"),
    "Distortions": (lambda x, **o: Distortions(**o)(x, 5, torch.Generator()), "image"),
    "ssim_loss": (lambda x, **o: losses.ssim_loss(x, x, **o), "x"),
    "SSIMLoss": (lambda x, **o: losses.SSIMLoss(**o)(x, x), "x"),
    "ssim_l1_loss": (lambda x, **o: losses.ssim_l1_loss(x, x, **o), "x"),
    "ms_ssim": (lambda x, **o: losses.ms_ssim(x, x, weights=(1,), **o), "x"),
    "ms_ssim_loss": (lambda x, **o: losses.ms_ssim_loss(x, x, weights=(1,), **o), "x"),
    "MSSSIMLoss": (lambda x, **o: losses.MSSSIMLoss(weights=(1,), **o)(x, x), "x"),
    "psnr": (lambda x, **o: metrics().psnr(x, x + 1e-3, **o), "images"),
    "ssim": (lambda x, **o: metrics().ssim(x, x, **o), "images"),
    "psnr_y": (lambda x, **o: metrics().psnr_y(x, x + 1e-3, **o), "images"),
    "ssim_y": (lambda x, **o: metrics().ssim_y(x, x, **o), "images"),
    "luma": (lambda x, **o: metrics().luma(x, **o), "images"),
    "FrechetDistance": (frechet, "images"),
}
ADVICE = dict.fromkeys(
    ("psnr", "ssim", "ssim_loss", "SSIMLoss", "ssim_l1_loss", "ms_ssim", "ms_ssim_loss", "MSSSIMLoss"),
    ("8-bit values need data_range=255", r"images in \[-1, 1\] need data_range=2"),
)


MODULES = (
    "losses.yuv_color_l2", "losses.jpeg", "losses.ssim", "losses.ms_ssim",
    "ops.jpeg", "ops.photometric", "augment.distortions", "metrics",
    "compat.diff_jpeg", "compat.kornia",
)  # fmt: skip


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Replaces the checks of all modules by new ones, as in a process that has called nothing yet."""
    for path in MODULES:
        # `fastgan.ops.jpeg` as an attribute might be a function of that name.
        module = pytest.importorskip(f"fastgan.{path}")
        for name, check in list(vars(module).items()):
            if isinstance(check, GrossRangeCheck):
                monkeypatch.setattr(module, name, GrossRangeCheck(check.loss, check.arguments, check.advice))


def messages_of(call, *arguments, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*arguments, **options)
    return [str(warning.message) for warning in caught if "takes images in" in str(warning.message)]


@pytest.mark.parametrize("name", CALLS)
def test_8_bit_values_are_warned_of(name):
    call, argument = CALLS[name]
    (message,) = messages_of(call, 255 * image())
    start = f"{name.split('.')[-1]} takes images in [0, 1], but the values of {argument} lie in [0"
    assert message.startswith(start)
    assert ADVICE.get(name, (EIGHT_BITS,))[0] in message and "check_range=False" in message


@pytest.mark.parametrize("name", CALLS)
def test_images_from_minus_1_are_warned_of(name):
    call, _ = CALLS[name]
    with pytest.warns(RuntimeWarning, match=ADVICE.get(name, (None, SIGNED))[1]) as caught:
        call(2 * image() - 1)
    assert any("takes images in [0, 1]" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("name", CALLS)
def test_no_warning_for_other_images(name):
    call, _ = CALLS[name]
    for _ in range(4):
        assert not messages_of(call, image())
        assert not messages_of(call, 1.3 * image() - 0.15)


@pytest.mark.parametrize("name", CALLS)
def test_the_check_can_be_switched_off(name):
    call, _ = CALLS[name]
    assert not messages_of(call, 255 * image(), check_range=False)
    with pytest.raises(TypeError, match="check_range must be True or False, got str 'no'"):
        call(image(), check_range="no")


@pytest.mark.parametrize("name", CALLS)
def test_the_check_does_not_change_results(name):
    call, _ = CALLS[name]
    if name in ("RandomJPEG", "FrechetDistance"):
        return  # random; returns nothing
    for x in (image(), 255 * image()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert torch.equal(call(x), call(x, check_range=False))


def test_a_function_and_each_module_warn_once():
    assert len(messages_of(yuv_color_l2, 255 * image(), 255 * image())) == 1
    assert not messages_of(yuv_color_l2, 255 * image(), 255 * image())
    one, other = losses.YUVColorL2(), losses.YUVColorL2()
    for module in (one, other):
        assert len(messages_of(module, 255 * image(), 255 * image())) == 1
        assert not messages_of(module, 255 * image(), 255 * image())


def test_each_function_warns_for_itself():
    """A function, the functions that it calls and its callers have a warning each."""
    assert len(messages_of(losses.RandomJPEG(50), 255 * image())) == 1
    assert len(messages_of(ops.jpeg_round_trip, 255 * image(), 50)) == 1


@pytest.mark.parametrize("wrong", [0, 1])
def test_of_two_images_the_wrong_one_is_named(wrong):
    pair = [image(), image()]
    pair[wrong] = 255 * pair[wrong].requires_grad_(wrong == 0)
    (message,) = messages_of(yuv_color_l2, *pair)
    assert f"the values of {'xy'[wrong]} lie in [" in message


def test_stamped_images_from_minus_1_beside_their_originals():
    pair = (2 * image() - 1.2).requires_grad_(), 2 * image() - 1
    (message,) = messages_of(yuv_color_l2, *pair)
    assert "the values of y lie in [-" in message


def test_outputs_of_an_untrained_network_from_minus_1_to_1_are_not_warned_of():
    assert not messages_of(yuv_color_l2, 2 * image() - 1, image())


def test_an_image_that_is_optimized_is_checked():
    """As in adversarial attacks that are to survive JPEG."""
    assert messages_of(ops.jpeg_round_trip, (255 * image()).requires_grad_(), 50)


def test_one_image_without_a_batch():
    assert len(messages_of(ops.jpeg_round_trip, 255 * image(3, 16, 16), 50)) == 1
    assert len(messages_of(losses.jpeg_codec_differentiable, 255 * image(2, 2, 3, 16, 16), 50)) == 1


# --- ranges other than [0, 1] -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["psnr", "ssim"])
@pytest.mark.parametrize(
    ("data_range", "make", "advice"),
    [
        (1.0, lambda: (255 * image()).byte().float(), "need data_range=255"),
        (2, lambda: 255 * image(), "need data_range=255"),
        (255, image, "[0, 1] need data_range=1"),
        (255.0, lambda: 2 * image() - 1, "[-1, 1] need data_range=2"),
        (1, lambda: 65535 * image(), "values beyond 1 must be scaled first"),
        (255, lambda: 65535 * image(), "values beyond 255 must be scaled first"),
        (255, lambda: (3 * image()).floor(), None),
        (255, lambda: 255 * image(), None),
        (2, lambda: 2 * image() - 1, None),
        (2.0, lambda: (2 * image() - 1).sign(), None),
        (1, lambda: image() - 0.5, None),
        (65535, lambda: 65535 * image(), None),
    ],
)
def test_a_data_range_that_does_not_fit(name, data_range, make, advice):
    x = make()
    messages = messages_of(getattr(metrics(), name), x, x.flip(0), data_range)
    assert [advice in message for message in messages] == ([True] if advice else [])


def test_psnr_of_8_bit_tensors():
    x = (255 * image()).byte()
    psnr = metrics().psnr
    assert not messages_of(psnr, x, x.flip(0), 255)
    assert "8-bit values need data_range=255" in messages_of(psnr, x, x.flip(0))[0]


def test_small_outputs_of_an_untrained_network_for_8_bit_values_are_not_warned_of():
    assert not messages_of(metrics().psnr, image(), 255 * image(), 255)


def test_diff_jpeg_coding_takes_8_bit_values():
    assert not messages_of(losses.diff_jpeg_coding, 255 * image(), 50)
    assert not messages_of(losses.diff_jpeg_coding, (2 * image()).floor(), 50)  # black
    (message,) = messages_of(losses.diff_jpeg_coding, image(), 50)
    assert "takes images in [0, 255]" in message and "images in [0, 1] must be multiplied by 255" in message


def test_diff_augment_takes_images_from_minus_1():
    for x in (image(), 2 * image() - 1, 0.5 + torch.randn(2, 3, 24, 24)):
        assert not messages_of(augmented, DiffAugment(), x)
    for x in (255 * image(), (255 * image()).round()):
        augment = DiffAugment()
        (message,) = messages_of(augmented, augment, x)
        assert "DiffAugment takes images in [-1, 1]" in message and "divided by 127.5, less 1" in message
        assert not messages_of(augmented, augment, x)
        assert not messages_of(augmented, DiffAugment(check_range=False), x)


# --- outputs of networks ----------------------------------------------------------------------------------


def stamped(offset, spread):
    """Images and what an untrained encoder adds to them."""
    return image(2, 3, 64, 64) + offset + spread * torch.randn(2, 3, 64, 64)


@pytest.mark.parametrize("offset", [-0.3, 0.0, 0.5])
@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_outputs_of_networks_are_not_warned_of(offset, spread, requires_grad):
    check = GrossRangeCheck("loss", ("x", "y"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            check.look((0, 1), stamped(offset, spread).requires_grad_(requires_grad), image(2, 3, 64, 64))
    assert check._calls == 3


def test_nan_black_and_white_are_not_warned_of():
    check = GrossRangeCheck("loss", ("x",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (torch.full((1, 3, 8, 8), torch.nan), torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)):
            check.look((0, 1), x)
    assert check._calls == 3


# --- several callers, threads, compilers, copies ------------------------------------------------------------


def test_a_later_caller_of_a_function_is_warned():
    for _ in range(16):
        assert not messages_of(yuv_color_l2, image(), image())
    assert len(messages_of(yuv_color_l2, 255 * image(), 255 * image())) == 1


def test_nothing_is_checked_after_some_hundred_calls(monkeypatch):
    check = GrossRangeCheck("loss", ("x",))
    x, looks = image(1, 3, 4, 4), []
    monkeypatch.setattr(
        _value_range, "_statistics", lambda image, expected: looks.append(check._calls) or torch.zeros(5)
    )
    for _ in range(LOOKS_AT[-1] + 5):
        check.look((0, 1), x)
    assert check._decided and tuple(looks) == LOOKS_AT


def test_one_of_many_threads_warns():
    x, start = 255 * image(), threading.Barrier(8)

    def call():
        start.wait()
        for _ in range(20):
            yuv_color_l2(x, x)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len([warning for warning in caught if "yuv_color_l2 takes" in str(warning.message)]) == 1


def test_a_check_in_one_thread_does_not_block_others():
    check = GrossRangeCheck("loss", ("x",))
    with check._lock, warnings.catch_warnings():
        warnings.simplefilter("error")
        check.look((0, 1), 255 * image())
    with pytest.warns(RuntimeWarning, match=EIGHT_BITS):
        check.look((0, 1), 255 * image())


def test_a_warning_that_is_an_error_is_raised_once():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match=EIGHT_BITS):
            yuv_color_l2(255 * image(), 255 * image())
        yuv_color_l2(255 * image(), 255 * image())


@pytest.mark.parametrize("name", ["yuv_color_l2", "jpeg_round_trip", "photometric"])
def test_nothing_is_checked_where_values_cannot_be_read(name):
    call, _ = CALLS[name]
    x = 255 * image()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*runs its PyTorch reference")
        torch.vmap(call, randomness="different")(x[None])
        torch.func.grad(lambda x: call(x).sum())(x)
        torch.compile(call, fullgraph=True, backend="eager")(x)
        call(x.to("meta"))
    with pytest.warns(RuntimeWarning, match=EIGHT_BITS):
        call(x)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize(
    "make",
    [losses.YUVColorL2, lambda: losses.DiffJPEG(24, 24), lambda: losses.RandomJPEG(50), basicsr.DiffJPEG],
)
def test_a_copy_checks_for_itself(copy_of, make):
    x = 255 * image()
    arguments = {"YUVColorL2": (x, x), "RandomJPEG": (x,)}
    original = make()
    duplicate = copy_of(original)
    for module in (original, duplicate):
        more = (50,) if isinstance(original, basicsr.DiffJPEG) else ()
        assert len(messages_of(module, *arguments.get(type(original).__name__, (x,)), *more)) == 1
    assert not messages_of(copy_of(original), *arguments.get(type(original).__name__, (x,)), *more)


def test_on_a_gpu_the_next_call_warns(monkeypatch):
    class Event:
        def query(self):
            return True

    monkeypatch.setattr(_value_range, "is_on_gpu", lambda image: True)
    monkeypatch.setattr(_later, "is_on_gpu", lambda image: True)
    monkeypatch.setattr(_later, "is_captured", lambda device: False)
    monkeypatch.setattr(_later, "copy_to_host_async", lambda statistics: (statistics, Event()))
    assert not messages_of(yuv_color_l2, 255 * image(), 255 * image())
    (message,) = messages_of(yuv_color_l2, image(), image())
    assert EIGHT_BITS in message
