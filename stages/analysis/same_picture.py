"""Whether two images show the same picture: cropped, rescaled, compressed again or mirrored.

Grey thumbnails are compared as they are, and with the one slid over the other at several sizes; the best
place is then refined at a higher resolution, which is what tells a crop from another picture of its kind.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.analysis.duplicates import Pairs
from stages.analysis.thumbnails import FLAT, Grey, Thumbnail, agreement, cut, thumbnail
from stages.errors import InputError, MissingExtraError
from stages.records import Progress

Window = tuple[float, float, float, float]
"""Top, left, height, width as shares of the larger picture's sides."""

SAME_PICTURE = 0.97
"""Similarity from which two images are taken for one picture; see `picture_similarity` for what it finds."""
SCALES = tuple(float(s) for s in np.geomspace(1.0, 0.6, 12))
"""Sizes at which the one is looked for in the other, as shares of the largest that fits."""
WORTH_REFINING = 0.7
"""Coarse correlation below which no crop is looked for more closely."""
REFINED_SIDE = 40
"""Side of the pictures compared at the higher resolution, pixels."""
FEW_PAIRS, AT_A_TIME = 100, 16
"""Up to how many pairs other processes are not worth their start; how many are compared at a time."""
STEPS = (1 / 48, 1 / 96, 1 / 192, 1 / 384)
"""By which a window's edges are moved, as shares of a side, until no move helps."""


def picture_similarity(first: Thumbnail, second: Thumbnail) -> float:
    """Return how much two images look like one picture.

    The highest concordance of grey values (`agreement`) over: both squeezed to one square (rescaled, whatever
    the shape), and each found in the other as a window of 0.6 to 1 of its side (cropped); all of it mirrored
    too.

    Parameters
    ----------
    first, second : Thumbnail

    Returns
    -------
    float
        In [0, 1]: 1 for the same picture; 0 where one of them has a single grey.

    Notes
    -----
    The threshold `SAME_PICTURE`, measured on the pairs of `near_duplicates` (Caltech-101, its Notes say which)
    with a cosine of 0.7 or more: all 199 made copies reach 0.97 (the lowest crop 0.981, rescaled 0.991, JPEG
    0.990, mirrored 0.999; the lowest of seed 1 is 0.976), and so do 49 of the 1,432 other pairs. Looked at one by
    one, those are 34 pairs that the set itself holds twice, 14 of them crops of a face in another class, 6
    versions of two drawings in which a part moved, and 9 copies beside the twin of their original; none shows two
    things. The nearest pairs of different things, motorcycles on white, reach 0.965. A pair takes about 35 ms of a
    core.
    """
    best = 0.0
    for other in (second, second.mirrored()):
        best = max(best, agreement(first.square, other.square))
        for large, small in ((first, other), (other, first)):
            value, window = _coarse(large.coarse, small.coarse)
            if value >= WORTH_REFINING:
                best = max(best, _refined(large.fine, small.fine, window))
    return best


def same_pictures(
    pairs: Pairs,
    first: Callable[[int], Path],
    second: Callable[[int], Path] | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return the picture similarity of every pair.

    Parameters
    ----------
    pairs : Pairs
        Of `near_duplicates`.
    first, second : callable of row to Path
        Where the image of a row lies; None = both tables are one.
    workers : int
        Processes that compare, where there are more than a few pairs.
    progress : callable, optional
        Called with (pairs done, all pairs, note).

    Returns
    -------
    ndarray of shape (m,)
        ``pairs.take(similarity >= SAME_PICTURE)`` are the confirmed ones.

    Raises
    ------
    InputError
        An image of a pair is not on this machine; nothing was compared.
    BadImageError
        An image cannot be decoded.
    MissingExtraError
        Pillow is not installed.
    """
    second = first if second is None else second
    places = [(first(int(i)), second(int(j))) for i, j in zip(pairs.first, pairs.second, strict=True)]
    for path in {path for pair in places for path in pair}:
        if not path.is_file():
            raise InputError(f"{path} is not on this machine: compare features alone, or bring the images")
    found: list[float] = []
    for part in _compared(places, workers if len(places) > FEW_PAIRS else 1):
        found += part
        if progress is not None:
            progress(len(found), len(places), "pairs compared")
    return np.array(found, dtype=np.float64)


def _compared(places: Sequence[tuple[Path, Path]], workers: int) -> Iterable[list[float]]:
    """Yield the similarities a few pairs at a time, in order."""
    parts = [places[i : i + AT_A_TIME] for i in range(0, len(places), AT_A_TIME)]
    if workers == 1:
        return map(_similarities, parts)
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
        return Parallel(return_as="generator")(delayed(_similarities)(part) for part in parts)  # type: ignore[no-any-return]


def _similarities(places: Sequence[tuple[Path, Path]]) -> list[float]:
    """Compare some pairs."""
    return [picture_similarity(_thumbnail_of(a), _thumbnail_of(b)) for a, b in places]


@functools.lru_cache(maxsize=512)  # 0.2 MB each
def _thumbnail_of(path: Path) -> Thumbnail:
    """Read a file as every other part of this project reads it."""
    try:
        from stages.vision.images import read_image
    except ModuleNotFoundError as problem:
        raise MissingExtraError("Pillow", "vision") from problem
    return thumbnail(read_image(path))


def _coarse(large: Grey, small: Grey) -> tuple[float, Window]:
    """Return the highest correlation of the small picture with a window of the large one, and the window."""
    best: tuple[float, Window] = (0.0, (0.0, 0.0, 1.0, 1.0))
    for template in _sizes(large, small):
        value, top, left = _best_place(large, template)
        if value > best[0]:
            h, w = large.shape
            best = value, (top / h, left / w, template.shape[0] / h, template.shape[1] / w)
    return best


def _sizes(large: Grey, small: Grey) -> Iterator[Grey]:
    """Yield the small picture, its shape kept, in the sizes at which it is looked for in the large one."""
    fit = min(large.shape[0] / small.shape[0], large.shape[1] / small.shape[1])
    for scale in SCALES:
        height, width = (
            min(round(side * fit * scale), limit)
            for side, limit in zip(small.shape, large.shape, strict=True)
        )
        yield cut(small, (0, 0, *small.shape), height, width)


def _best_place(large: Grey, small: Grey) -> tuple[float, int, int]:
    """Return the highest correlation with a window of the same size, and its top and left."""
    template = small - small.mean()
    norm = float(np.sqrt(np.square(template).sum()))
    root = np.sqrt(small.size)
    if norm < FLAT * root:
        return 0.0, 0, 0
    windows = np.lib.stride_tricks.sliding_window_view(large, small.shape)
    products = (windows.reshape(-1, small.size) @ template.reshape(-1)).reshape(windows.shape[:2])
    means, squares = (_window_means(values, small.shape) for values in (large, np.square(large)))
    spread = np.sqrt(np.maximum(squares - np.square(means), 0))
    values = np.where(spread > FLAT, products / (np.maximum(spread, FLAT) * root * norm), 0)
    top, left = np.unravel_index(int(values.argmax()), values.shape)
    return float(values[top, left]), int(top), int(left)


def _window_means(values: Grey, shape: tuple[int, ...]) -> Grey:
    """Return the mean of every window of a shape, from sums over all rectangles at the top left."""
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    sums[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    h, w = shape
    return (sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]) / (h * w)


def _refined(large: Grey, small: Grey, window: Window) -> float:
    """Return the agreement at the best window near a first guess: its edges are moved while that helps."""
    template = cut(small, (0, 0, *small.shape), REFINED_SIDE, REFINED_SIDE)
    h, w = large.shape

    def value_at(candidate: Window) -> float:
        top, left, tall, wide = candidate
        inside = min(top, left) >= 0 and top + tall <= 1 + 1e-9 and left + wide <= 1 + 1e-9
        if not inside or min(tall, wide) < SCALES[-1] / 2:
            return -1.0
        part = cut(large, (top * h, left * w, tall * h, wide * w), REFINED_SIDE, REFINED_SIDE)
        return agreement(part, template)

    best, value = window, value_at(window)
    for step in STEPS:
        moved = True
        while moved:
            moved = False
            for candidate in _moves(best, step):
                reached = value_at(candidate)
                if reached > value:
                    best, value, moved = candidate, reached, True
    return value


def _moves(window: Window, step: float) -> Iterator[Window]:
    """Yield the window moved, and made larger or smaller about its centre, along each side and both."""
    top, left, tall, wide = window
    for sign in (step, -step):
        yield top + sign, left, tall, wide
        yield top, left + sign, tall, wide
        yield top - sign / 2, left, tall + sign, wide
        yield top, left - sign / 2, tall, wide + sign
        yield top - sign / 2, left - sign / 2, tall + sign, wide + sign
