"""SSIM and MS-SSIM as values and losses, against pytorch-msssim, torchmetrics, kornia and plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.compat import pytorch_msssim as compat
from fastgan.losses import MSSSIMLoss, SSIMLoss, ms_ssim, ms_ssim_loss, ssim, ssim_l1_loss, ssim_loss
from fastgan.ops import _value_range
from fastgan.ops._value_range import GrossRangeCheck
from tests.ops.layouts import exact, largest_error, relative_error
from tests.ops.test_ssim import from_the_paper, pair

LARGE = (1, 176, 181)


def inverted():
    """An image and its negative: all contrasts are negative."""
    x = torch.rand(2, 3, 176, 180, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return x, (1 - x.detach()).requires_grad_()


# --- values and losses ----------------------------------------------------------------------------------


def test_a_loss_is_one_minus_its_value():
    x, y = pair(LARGE)
    assert_close(ssim_loss(x, y), 1 - ssim(x, y))
    assert_close(ms_ssim_loss(x, y), 1 - ms_ssim(x, y))
    assert_close(SSIMLoss()(x, y), ssim_loss(x, y), rtol=0, atol=0)
    assert_close(MSSSIMLoss()(x, y), ms_ssim_loss(x, y), rtol=0, atol=0)
    assert_close(compat.SSIM(data_range=1)(x, y), ssim(x, y), rtol=0, atol=0)
    assert_close(compat.MS_SSIM(data_range=1)(x, y), ms_ssim(x, y), rtol=0, atol=0)


def test_equal_images_have_similarity_one():
    x, _ = pair(LARGE)
    for value in (ssim, ms_ssim):
        assert value(x, x.detach()) == 1
    for loss in (ssim_loss, ms_ssim_loss, ssim_l1_loss):
        result = loss(x, x.detach().clone())
        (gradient,) = torch.autograd.grad(result, x)
        assert result == 0 and (gradient == 0).all()


def test_reductions():
    x, y = pair((3, 13, 17))
    each = ssim(x, y, reduction="none")
    assert each.shape == (3,)
    assert_close(ssim(x, y), each.mean())
    assert_close(ssim(x, y, reduction="sum"), each.sum())
    assert_close(each, from_the_paper(x, y).mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-5)


def test_nearly_equal_images_keep_the_digits_of_their_loss():
    x, _ = pair((1, 40, 50))
    y = (x.detach() + 1e-4 * torch.randn_like(x)).requires_grad_()
    wide = [exact(z) for z in (x, y)]
    expected = ssim_loss(*wide, backend="reference")
    assert expected < 1e-4
    assert relative_error(ssim_loss(x, y), expected) <= 1e-5


@pytest.mark.parametrize("normalize", ["relu", "simple"])
def test_nearly_equal_images_keep_the_digits_of_their_loss_at_several_scales(normalize):
    x, _ = pair(LARGE)
    y = (x.detach() + 1e-4 * torch.randn_like(x)).requires_grad_()
    wide = [exact(z) for z in (x, y)]
    expected = ms_ssim_loss(*wide, normalize=normalize)
    assert expected < 1e-6
    assert relative_error(ms_ssim_loss(x, y, normalize=normalize), expected) <= 1e-5
    assert ms_ssim_loss(x, x, normalize=normalize) == 0


def test_negative_similarity_is_cut_off_where_wanted():
    x, y = inverted()
    assert ssim(x, y) < 0 and ssim_loss(x, y) > 1
    for nonnegative in (ssim(x, y, nonnegative=True), 1 - ssim_loss(x, y, nonnegative=True)):
        assert nonnegative == 0
        assert (torch.autograd.grad(nonnegative, x)[0] == 0).all()


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_splatting_loss_is_the_weighted_sum(weight, padding):
    x, y = pair((2, 29, 37), torch.float64)
    expected = (1 - weight) * F.l1_loss(x, y) + weight * (1 - from_the_paper(x, y, padding=padding).mean())
    for backend in ("native", "reference"):
        loss = ssim_l1_loss(x, y, weight, padding=padding, backend=backend)
        assert_close(loss, expected, rtol=1e-10, atol=0)
        ours, theirs = (torch.autograd.grad(of, (x, y), retain_graph=True) for of in (loss, expected))
        assert_close(ours, theirs, rtol=1e-7, atol=1e-12)


# --- MS-SSIM --------------------------------------------------------------------------------------------


def multiscale(x, y, weights=(0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
    """By whole windows, as pytorch-msssim defines it: zeros before an odd size, channel by channel."""
    result = 1.0
    for scale, weight in enumerate(weights):
        is_last = scale == len(weights) - 1
        # Without luminance: of a K1 so large that the first quotient is 1.
        of_scale = from_the_paper(x, y) if is_last else from_the_paper(x, y, k=(1e12, 0.03))
        result = result * of_scale.mean(dim=(2, 3)).relu() ** weight
        sides = [side % 2 for side in x.shape[2:]]
        x, y = (F.avg_pool2d(z, 2, padding=sides) for z in (x, y))
    return result


@pytest.mark.parametrize("size", [(2, 161, 176), (1, 167, 191)])
def test_multiscale_value_and_gradient(size):
    x, y = pair(size)
    wide = [exact(z) for z in (x, y)]
    value, expected = ms_ssim(x, y, reduction="none"), multiscale(*wide).mean(dim=1)
    assert relative_error(value, expected) <= 1e-6
    ours, theirs = torch.autograd.grad(value.sum(), (x, y)), torch.autograd.grad(expected.sum(), wide)
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(a, b) <= 1e-5


@pytest.mark.parametrize("odd_sizes", ["pad", "crop"])
def test_multiscale_gradients_on_photographs(odd_sizes, photographs):
    """Of unlike images and of nearly equal ones, as at the end of a training."""
    x, other = photographs[..., :177, :301], photographs[..., 100:277, 150:].flip(0)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for y in (0.9 * x + 0.1 * other, x + 1e-2 * noise, x + 1e-4 * noise):
        images = x.clone().requires_grad_(), y.clone().requires_grad_()
        wide = [exact(z) for z in images]
        options = {"odd_sizes": odd_sizes, "reduction": "sum", "check_range": False}
        value = ms_ssim_loss(*images, **options)
        expected = ms_ssim_loss(*wide, **options, backend="reference")
        assert relative_error(value, expected) <= 1e-6
        found, gradients = torch.autograd.grad(value, images), torch.autograd.grad(expected, wide)
        for ours, theirs in zip(found, gradients, strict=True):
            assert largest_error(ours, theirs) <= 1e-5


def test_one_image_in_float64_makes_all_scales_that_precise():
    x, y = (z.detach() for z in pair(LARGE))
    value, expected = ms_ssim(x, y.double()), ms_ssim(x.double(), y.double())
    assert_close(value, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
def test_multiscale_gradients_of_half_types_where_one_is_much_the_larger(wanted):
    """Rounded before they are added, gradients of x would be mostly those of y's rounding."""
    generator = torch.Generator().manual_seed(0)
    x = F.interpolate(torch.rand(1, 1, 22, 22, generator=generator), scale_factor=8)
    y = 0.5 + 0.002 * torch.rand(1, 1, 176, 176, generator=generator)
    images = [z.bfloat16().requires_grad_(one) for z, one in zip((x, y), wanted, strict=True)]
    wide = [z.detach().double().requires_grad_(one) for z, one in zip(images, wanted, strict=True)]
    options = {"normalize": "simple", "check_range": False}
    value, expected = ms_ssim_loss(*images, **options), ms_ssim_loss(*wide, **options, backend="reference")
    assert relative_error(value, expected) <= 1e-5
    of = [i for i, one in enumerate(wanted) if one]
    found = torch.autograd.grad(value, [images[i] for i in of])
    for ours, theirs in zip(found, torch.autograd.grad(expected, [wide[i] for i in of]), strict=True):
        assert (ours - theirs).norm() <= 4e-3 * theirs.norm()


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float32, torch.float16)])
def test_multiscale_of_two_dtypes(dtypes):
    images = [z.detach().to(dtype).requires_grad_() for z, dtype in zip(pair(LARGE), dtypes, strict=True)]
    wide = [exact(z) for z in images]
    value, expected = ms_ssim(*images), ms_ssim(*wide, backend="reference")
    assert value.dtype == torch.float32 and relative_error(value, expected) <= 1e-6
    found, gradients = torch.autograd.grad(value, images), torch.autograd.grad(expected, wide)
    for ours, theirs, dtype in zip(found, gradients, dtypes, strict=True):
        assert ours.dtype == dtype and relative_error(ours, theirs) <= max(1e-5, torch.finfo(dtype).eps)


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_multiscale_saves_one_image_s_gradients_where_one_is_wanted(wanted):
    x, y = (z.detach().requires_grad_(one) for z, one in zip(pair(LARGE), wanted, strict=True))
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ms_ssim_loss(x, y)
    assert sum(saved.values()) <= 3.5 * x.nbytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_multiscale_in_half_types(dtype):
    x, y = pair(LARGE, dtype)
    wide = [exact(z) for z in (x, y)]
    value, expected = ms_ssim(x, y), ms_ssim(*wide, backend="reference")
    assert value.dtype == torch.float32
    assert relative_error(value, expected) <= 1e-5
    for ours, theirs in zip(
        torch.autograd.grad(1000 * value, (x, y)), torch.autograd.grad(1000 * expected, wide), strict=True
    ):
        assert ours.dtype == dtype
        assert relative_error(ours, theirs) <= 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("loss", [ms_ssim, compat.ms_ssim, MSSSIMLoss])
def test_negative_contrasts_give_no_nan(loss, backend):
    x, y = inverted()
    function = loss(backend=backend) if loss is MSSSIMLoss else lambda x, y: loss(x, y, 1.0, backend=backend)
    value = function(x, y)
    gradients = torch.autograd.grad(value, (x, y))
    assert value == (1 if loss is MSSSIMLoss else 0)
    assert all((gradient == 0).all() for gradient in gradients)


def test_one_negative_channel_leaves_the_others_their_gradient():
    x, y = inverted()
    with torch.no_grad():
        y[:, 1:] = 0.7 * x[:, 1:] + 0.1
    value = ms_ssim(x, y, reduction="none")
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert (value > 0).all() and gradient.isfinite().all()
    assert (gradient[:, 0] == 0).all() and (gradient[:, 1:] != 0).any()


def test_a_scale_without_weight_does_not_count():
    x, y = inverted()
    with torch.no_grad():
        # Negative contrasts of pixels, positive ones of pairs of them.
        x.view(-1)[:] = 0.5 + 0.1 * F.interpolate(x[..., ::2, ::2], scale_factor=2).view(-1)
        checkers = 0.4 * (torch.arange(180) % 2 * 2 - 1) * (torch.arange(176)[:, None] % 2 * 2 - 1)
        y.copy_(x - checkers)
        x += checkers
    assert ms_ssim(x, y, weights=(0.5, 0.5)) == 0
    value = ms_ssim(x, y, weights=(0.0, 1.0))
    assert_close(value, ssim(F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)))
    assert value > 0.5


def test_simple_normalization_always_has_a_gradient():
    x, y = inverted()
    value = ms_ssim(x, y, normalize="simple")
    (gradient,) = torch.autograd.grad(value, x)
    assert 0 < value < 0.5 and gradient.isfinite().all() and (gradient != 0).any()
    assert ms_ssim(x, y, normalize="none").isnan()


def test_multiscale_does_not_hide_nan():
    x, y = pair(LARGE)
    with torch.no_grad():
        x[0, 1, 3, 4] = torch.nan
    assert ms_ssim(x, y).isnan()


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((1, 160, 200), {}, "at least 161 x 161 pixels for 5 scales and windows of 11 x 11, got shape"),
        ((1, 175, 200), {"odd_sizes": "crop"}, "at least 176 x 176 pixels"),
        ((1, 40, 40), {"weights": (1, 1, 1), "window_size": 13}, "at least 49 x 49 pixels for 3 scales"),
    ],
)
def test_small_images_are_refused_by_name(size, options, message):
    x, y = pair(size)
    for loss in (ms_ssim, ms_ssim_loss):
        with pytest.raises(ValueError, match=message):
            loss(x, y, **options)
    with pytest.raises(ValueError, match="at least 11 x 11 pixels"):
        ssim_loss(x[..., :10], y[..., :10])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": ()}, ValueError, r"weights must be numbers of which none is negative, got \(\)"),
        ({"weights": (0.5, -0.1)}, ValueError, r"none is negative, got \(0.5, -0.1\)"),
        ({"weights": 1.0}, TypeError, "weights must be a list"),
        ({"normalize": "clamp"}, ValueError, "normalize must be one of relu, simple, none, got 'clamp'"),
        ({"odd_sizes": "drop"}, ValueError, "odd_sizes must be one of pad, crop, got 'drop'"),
        ({"padding": "zeros"}, ValueError, "padding must be one of"),
        ({"reduction": "max"}, ValueError, "reduction must be one of mean, sum, none, got 'max'"),
        ({"data_range": 0}, ValueError, "data_range must be positive, got 0"),
    ],
)
def test_wrong_options_are_named_by_function_and_module(options, error, message):
    x, y = pair(LARGE)
    with pytest.raises(error, match=message):
        ms_ssim_loss(x, y, **options)
    with pytest.raises(error, match=message):
        MSSSIMLoss(**options)


def test_wrong_weights_of_the_splatting_loss():
    with pytest.raises(ValueError, match=r"ssim_weight must lie in \[0, 1\], got 1.5"):
        ssim_l1_loss(*pair((1, 12, 12)), ssim_weight=1.5)


# --- the field's implementations --------------------------------------------------------------------------


def agree(ours, theirs, images, share=1e-5):
    assert relative_error(ours, theirs.double()) <= share
    for a, b in zip(
        torch.autograd.grad(ours.sum(), images), torch.autograd.grad(theirs.sum(), images), strict=True
    ):
        assert relative_error(a, b.double()) <= share


@pytest.mark.parametrize(
    "options", [{}, {"size_average": False}, {"K": (0.02, 0.4), "win_size": 7, "win_sigma": 2.0}], ids=str
)
@pytest.mark.parametrize("scale", [1, 255])
def test_pytorch_msssim(scale, options):
    package = pytest.importorskip("pytorch_msssim")
    images = [(scale * z.detach()).requires_grad_() for z in pair((2, 163, 170), torch.float64)]
    arguments = {"data_range": scale, **options}
    agree(compat.ssim(*images, **arguments), package.ssim(*images, **arguments), images)
    agree(compat.ms_ssim(*images, **arguments), package.ms_ssim(*images, **arguments), images)
    for name in ("SSIM", "MS_SSIM"):
        ours, theirs = (getattr(module, name)(**arguments) for module in (compat, package))
        agree(ours(*images), theirs(*images), images)


def test_names_of_pytorch_msssim_have_its_formulas():
    images = pair((2, 163, 170), torch.float64)
    agree(compat.ssim(*images, 1), from_the_paper(*images).mean(), images)
    agree(compat.ms_ssim(*images, 1), multiscale(*images).mean(), images)
    assert compat.ssim.__defaults__ == (255, True, 11, 1.5, None, (0.01, 0.03), False)
    assert compat.ms_ssim.__defaults__ == (255, True, 11, 1.5, None, None, (0.01, 0.03))


def test_windows_of_pytorch_msssim():
    x, y = pair((1, 20, 30), torch.float64)
    window = compat.SSIM(win_size=7, win_sigma=2.0).win
    assert window.shape == (3, 1, 1, 7)
    assert_close(
        compat.ssim(x, y, 1, win=window), compat.ssim(x, y, 1, win_size=7, win_sigma=2.0), rtol=1e-6, atol=0
    )
    uniform = torch.full((3, 1, 1, 5), 0.2)
    assert_close(compat.ssim(x, y, 1, win=uniform), ssim(x, y, window="uniform", window_size=5))
    for wrong in (
        torch.rand(3, 1, 1, 7),
        2 * window,
        window[..., :6],
        torch.tensor([0.2, 0.5, 0.3])[None, None, None],
    ):
        with pytest.raises(ValueError, match="win must be a Gaussian or of equal taps"):
            compat.ssim(x, y, 1, win=wrong)
    with pytest.raises(ValueError, match=r"X must have shape \(N, C, H, W\), got \(1, 3, 4, 20, 30\)"):
        compat.ssim(torch.rand(1, 3, 4, 20, 30), torch.rand(1, 3, 4, 20, 30))
    with pytest.raises(ValueError, match="win_size must be odd and at most 255, got 10"):
        compat.ms_ssim(x, y, win_size=10)
    with pytest.raises(ValueError, match="spatial_dims must be one of 2, got 3"):
        compat.SSIM(spatial_dims=3)


def test_images_in_the_wrong_range_are_warned_of():
    x, y = (z.detach() for z in pair((1, 20, 30)))
    with pytest.MonkeyPatch.context() as context:  # as in a process that has called nothing yet
        check = GrossRangeCheck("ssim", ("X", "Y"), _value_range.BY_DATA_RANGE)
        context.setattr("fastgan.compat.pytorch_msssim._ssim_range", check)
        with pytest.warns(RuntimeWarning, match="ssim takes images in .0, 255., but .* need data_range=1"):
            compat.SSIM()(x, y)
    with pytest.warns(RuntimeWarning, match="SSIMLoss takes images in .0, 1., but .* need data_range=255"):
        SSIMLoss()((255 * x).round(), (255 * y).round())


@pytest.mark.parametrize("uniform", [False, True])
def test_torchmetrics(uniform):
    functional = pytest.importorskip("torchmetrics.functional.image")
    images = pair((2, 177, 190), torch.float64)
    window = {"window": "uniform", "window_size": 7} if uniform else {"sigma": 1.5}
    theirs = {"gaussian_kernel": not uniform, "kernel_size": 7 if uniform else 11, "data_range": 1.0}
    agree(
        ssim(*images, padding="reflect", reduction="none", **window),
        functional.structural_similarity_index_measure(*images, reduction="none", **theirs), images,
    )  # fmt: skip
    for normalize in ("relu", "simple"):
        agree(
            ms_ssim(
                *images, padding="reflect", odd_sizes="crop", per_channel=False, normalize=normalize, **window
            ),
            functional.multiscale_structural_similarity_index_measure(*images, normalize=normalize, **theirs),
            images,
        )  # fmt: skip


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_kornia(padding):
    kornia = pytest.importorskip("kornia.losses")
    images = pair((2, 29, 37), torch.float64)
    ours = ssim_loss(*images, padding="reflect" if padding == "same" else "valid", window_size=9)
    agree(ours, 2 * kornia.ssim_loss(*images, 9, padding=padding), images)


def test_metric_is_that_of_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.image")
    metrics = pytest.importorskip("fastgan.metrics")
    x, y = (z.detach() for z in pair((2, 29, 37)))
    expected = functional.structural_similarity_index_measure(x.double(), y.double(), data_range=1.0)
    assert_close(metrics.ssim(x, y).double(), expected, rtol=1e-6, atol=0)
