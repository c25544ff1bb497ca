"""Names and signatures of stylegan3 (`torch_utils/ops`), which stylegan2-ada-pytorch and R3GAN share."""

from __future__ import annotations

from fastgan.compat._stylegan3_bias_act import bias_act

__all__ = ["bias_act"]
