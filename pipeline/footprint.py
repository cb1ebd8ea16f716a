"""What a study will take on disk: cached features, decoded images, checkpoints, results.

The size of an entry is worked out as its file is laid out: user block, HDF5's own part, and the arrays.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.layout import MINIMUM_BLOCK_BYTES, is_bloated, memory_bound
from pipeline.image_sizes import ImageSizes
from pipeline.jobs import ExtractJob, Planned, TrainJob
from pipeline.resolve import Resolved
from pipeline.task_seconds import parameters
from stages.records import Dataset, SplitName

HDF5_BYTES = 38_500
"""What HDF5 itself puts into an entry: header, names, free space up to the arrays."""
_INDEX_BYTES = 2_500
"""Of an index without its rows and class names."""
_INDEX_BOUND = 34_000
"""The bound on the memory that decoding such an index takes."""
_UNKNOWN_DIMENSION = 2048
_RECORD_BYTES = 12_000
_DIGEST = "0" * 64


@dataclass(frozen=True)
class Footprint:
    """Bytes that will be written."""

    features: int = 0
    """Cached entries, below the cache's root."""
    staging: int = 0
    """Batches on their way, of the largest pass, gone when it is done; below the cache's root."""
    pixels: int = 0
    """Decoded training images, below the cache's root."""
    checkpoints: int = 0
    """Of the trainings under way at a time, gone when they are done; below the output."""
    results: int = 0
    """Scores, fitted probes, kept weights; below the output."""

    @property
    def cache(self) -> int:
        """The most that lies below the cache's root at a time."""
        return self.features + self.staging + self.pixels

    @property
    def output(self) -> int:
        """The most that lies below the output at a time."""
        return self.checkpoints + self.results

    @property
    def total(self) -> int:
        """All of it."""
        return self.cache + self.output


def entry_bytes(ids: Sequence[str], dimension: int, class_names: Sequence[str], *, multi_label: bool) -> int:
    """Return the size of the file of one cached entry.

    Parameters
    ----------
    ids : sequence of str
        Of the rows.
    dimension : int
        Of the features, float32.
    class_names : sequence of str
    multi_label : bool

    Examples
    --------
    >>> entry_bytes([f"{i:05}.jpg" for i in range(50_000)], 2048, ["a", "b"], multi_label=False) // 10**6
    418
    """
    rows = len(ids)
    lengths = [len(name.encode()) for name in ids]
    longest, text = max(lengths, default=0), sum(lengths)
    label = len(class_names) if multi_label else 8
    arrays = rows * (4 * dimension + label + longest)
    # In the index every row has its id and the SHA-256 of its image, and its group.
    row = f'["","{_DIGEST}"],null,'.encode()
    index = _INDEX_BYTES + text + rows * len(row) + sum(len(name.encode()) + 3 for name in class_names)
    bound = rows * (memory_bound(row) - memory_bound(b"")) + 4 * text + _INDEX_BOUND
    block = MINIMUM_BLOCK_BYTES
    while block < index or is_bloated(bound, block + arrays):
        block *= 2
    return block + HDF5_BYTES + arrays


def footprint(left: Sequence[Planned], resolved: Resolved, sizes: ImageSizes, side_by_side: int) -> Footprint:
    """Return what jobs will write.

    Parameters
    ----------
    left : sequence of Planned
        The jobs that are not done.
    resolved : Resolved
        The study's backbones and data sets.
    sizes : ImageSizes
    side_by_side : int
        Trainings under way at a time.
    """
    extractions = [p.job for p in left if isinstance(p.job, ExtractJob)]
    trainings = [p.job for p in left if isinstance(p.job, TrainJob)]
    entries = [(job, _entry(job)) for job in extractions]
    passes: dict[tuple[str, str], int] = {}
    for job, size in entries:
        place = job.dataset, job.split.name
        passes[place] = passes.get(place, 0) + size
    weights = [4 * parameters(job.backbone) for job in trainings]
    kept = sum(size for job, size in zip(trainings, weights, strict=True) if job.keep_weights)
    return Footprint(
        features=sum(size for _, size in entries),
        staging=max(passes.values(), default=0),
        pixels=_pixels(trainings, sizes),
        checkpoints=2 * max(weights, default=0) * min(side_by_side, len(trainings)),
        results=kept + sum(_result(planned, resolved) for planned in left),
    )


def _entry(job: ExtractJob) -> int:
    """Return the size of the entry of a job."""
    dimension = job.backbone.dimension or _UNKNOWN_DIMENSION
    return entry_bytes(job.split.ids, dimension, job.class_names, multi_label=job.multi_label)


def _pixels(trainings: Sequence[TrainJob], sizes: ImageSizes) -> int:
    """Return the bytes of decoded images; jobs on the same images share them, each within its allowance."""
    kept: dict[tuple[str, str, int], float] = {}
    for job in trainings:
        for name in ("train", "validation"):
            split = job.dataset.splits.get(name)
            if split is not None:
                megapixels = sizes.megapixels(job.dataset.name, split)
                place = job.dataset.name, name, len(split)
                kept[place] = min(3e6 * megapixels * len(split), job.recipe.image_memory)
    return round(sum(kept.values()))


def _result(planned: Planned, resolved: Resolved) -> int:
    """Return the bytes of a job's record, of the arrays beside it, and of a probe's coefficients."""
    job = planned.job
    if isinstance(job, ExtractJob):
        return 0
    if isinstance(job, TrainJob):
        return 6_000 + _scores(job.dataset, job.score_on, 4)
    dataset = resolved.rows_of(planned.columns["dataset"]) if planned.columns else None
    if dataset is None:
        return _RECORD_BYTES
    probed = planned.columns["regime"] == "linear_probe"
    if not probed:
        return _RECORD_BYTES + _scores(dataset, "test", 4)
    return _RECORD_BYTES + _scores(dataset, "test", 12) + _head(planned, dataset, resolved)


def _scores(dataset: Dataset, split: SplitName, each: int) -> int:
    """Return the bytes of a split's scores, labels and ids; scores hardly compress, ids well.

    ``each`` are those of one score: 4 of a probability, with a probe's logit 12.
    """
    return len(dataset.splits[split]) * (each * len(dataset.class_names) + 60)


def _head(planned: Planned, dataset: Dataset, resolved: Resolved) -> int:
    """Return the bytes of a probe's coefficients and intercepts, float64; of two classes there is one row."""
    name, variant = planned.columns["backbone"], planned.columns["variant"]
    known = [b.dimension for b in resolved.backbones if (b.name, b.variant) == (name, variant)]
    classes = len(dataset.class_names)
    rows = 1 if classes == 2 and not dataset.multi_label else classes
    return 8 * rows * (((known[0] if known else None) or _UNKNOWN_DIMENSION) + 1)


def free_bytes(folder: Path) -> tuple[int, int]:
    """Return the device of a folder, or of the nearest that exists above it, and its free bytes."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.stat().st_dev, shutil.disk_usage(folder).free


def too_little_disk(need: Footprint, root: Path, output: Path) -> list[str]:
    """Say in one line for each file system that it has less free than will be written there."""
    wanted: dict[int, list[tuple[Path, int, int]]] = {}
    for folder, size in ((root, need.cache), (output, need.output)):
        device, free = free_bytes(folder)
        wanted.setdefault(device, []).append((folder, size, free))
    return [
        f"disk: about {megabytes(size)} will be written below {' and '.join(str(f) for f, _, _ in places)}, "
        f"{megabytes(places[0][2])} are free"
        for places in wanted.values()
        if (size := sum(size for _, size, _ in places)) > places[0][2]
    ]


def megabytes(size: float) -> str:
    """Show bytes as MB or GB.

    Examples
    --------
    >>> megabytes(1_234_000), megabytes(56_000_000_000)
    ('1.2 MB', '56.0 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
