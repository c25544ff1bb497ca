"""`torch_utils.ops.bias_act` of stylegan3."""

from __future__ import annotations

from torch import Tensor

from fastgan import ops
from fastgan.compat._stylegan3_filters import backend_of
from fastgan.compat._zeros import with_zeros
from fastgan.ops._checks import check_floating

# Those whose second derivative is zero in stylegan3's implementations, and not missing.
WITH_ZEROS = ("relu", "lrelu")


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> Tensor:
    """Bias, activation, gain and clamp; `torch_utils.ops.bias_act.bias_act`, which compiles a plugin.

    In half precision it rounds once, as the plugin does. Gradients are exact to every order, where the plugin
    has two; those of second order of "relu" and "lrelu" are zeros at x and b, as the original's, not None.

    Args:
        x: of any shape, not empty.
        b: one number for each index of `dim`, or None.
        act: "linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus" or "swish".
        alpha: slope of "lrelu"; the others do not look at it.
        gain, clamp: as of :func:`fastgan.ops.bias_act`.
        impl: "cuda" chooses the kernel of the device, "ref" PyTorch's operations; both serve every device.
    """
    backend = backend_of(impl)
    if b is not None:
        check_floating("b", b)
    y = ops.bias_act(x, b, dim, act, alpha if act == "lrelu" else None, gain, clamp, backend=backend)
    return with_zeros(y, x, b) if act in WITH_ZEROS else y
