"""Names and signatures of the dists-pytorch package (`DISTS_pytorch`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan import losses
from fastgan.ops._checks import as_flag


class DISTS(losses.DISTS):
    """:class:`fastgan.losses.DISTS` called as the package's, for images in [0, 1].

    Alpha and beta get no gradient, whereas the package's are parameters that do.

    Args:
        load_weights: as in the package.
        options: further arguments of :class:`fastgan.losses.DISTS`.
    """

    def __init__(self, load_weights: bool = True, **options: Any) -> None:
        super().__init__(load_weights, **options)

    def forward(  # type: ignore[override]
        self, x: Tensor, y: Tensor, require_grad: bool = False, batch_average: bool = False
    ) -> Tensor:
        """The distance of images.

        Args:
            x, y: as in :class:`fastgan.losses.DISTS`.
            require_grad: whether to compute a gradient.
            batch_average: whether to return the batch's mean, 0-d.

        Returns:
            (N,), or 0-d for a single image.
        """
        require_grad, batch_average = (
            as_flag("require_grad", require_grad),
            as_flag("batch_average", batch_average),
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and require_grad):
            distance = super().forward(x, y).squeeze()
        return distance.mean() if batch_average else distance
