"""Pooling that halves a picture of any size: a side of n becomes ceil(n / 2).

On an even side the windows begin at the first pixel, on an odd one a pixel before it, as TensorFlow's "SAME"
padding and a convolution of stride 2 have them; what lies outside the picture is not counted.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def max_halved(x: Tensor) -> Tensor:
    """Return maxima over 3 x 3 windows two pixels apart."""
    return functional.max_pool2d(x, 3, 2, padding=_before(x), ceil_mode=True)


def mean_halved(x: Tensor) -> Tensor:
    """Return means over 3 x 3 windows two pixels apart."""
    return functional.avg_pool2d(x, 3, 2, padding=_before(x), ceil_mode=True, count_include_pad=False)


def _before(x: Tensor) -> tuple[int, int]:
    """Return how far windows begin before the first row and column."""
    return x.shape[-2] % 2, x.shape[-1] % 2
