"""Records that travel between the rooms: frozen dataclasses, units and shapes beside each field.

Labels are one of two kinds. Single-label: int64 of shape (n,), an index into ``class_names``.
Multi-label: int8 of shape (n, K) with 1 = present, 0 = absent, -1 = ignore (neither loss nor ranking
sees that image-label pair). Scores are fractions in [0, 1]; percent appears only where people read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Regime = Literal["linear_probe", "fine_tune", "from_scratch"]
Metric = Literal["top_1", "mean_per_class", "map_11_point"]
SplitName = Literal["train", "validation", "test"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

REGIMES: tuple[Regime, ...] = ("linear_probe", "fine_tune", "from_scratch")
METRICS: tuple[Metric, ...] = ("top_1", "mean_per_class", "map_11_point")
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
GPU_PRECISIONS = ("tf32", "float16")
"""That no CPU has."""

Progress = Callable[[int, int, str], None]
"""Called by a stage with (done, total, note); it must return quickly and may raise to cancel."""


def untold(done: int, total: int, note: str) -> None:
    """Be the `Progress` of those who want none."""


ImageErrorPolicy = Literal["error", "exclude"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input.

    The paper resizes the whole image to the input size, without a crop; SimCLR and others resize the
    short side and take the centre (protocol, "Linear probe", grade M-H).
    """

    size: int
    """Side of the square input, pixels."""
    interpolation: Interpolation
    """Pillow's resampling filter."""
    crop: Literal["whole", "center"]
    """``whole``: both sides become ``size``. ``center``: short side size / crop_fraction, then the centre."""
    crop_fraction: float
    """Share of the resized short side that the centre crop keeps; unused by ``whole``."""
    mean: tuple[float, float, float]
    """Subtracted from RGB in [0, 1]."""
    std: tuple[float, float, float]
    """Divides RGB in [0, 1] after the mean was subtracted."""


@dataclass(frozen=True)
class Weights:
    """Where a backbone's weights come from, and what they are."""

    kind: Literal["pretrained", "file", "package", "random", "cached"]
    """``pretrained``: the name's own tag; ``random``: seeded initialisation;
    ``cached``: there is no network here, only features in the cache that somebody imported."""
    label: str
    """What people read and find entries by: "pretrained", "file:lite0.pth", "package:NAME", "random:0"."""
    path: Path | None = None
    """The file, once it is known to be on this machine."""
    sha256: str | None = None
    """Of the file's bytes; of the text "random:SEED" for random weights; None while unknown."""
    seed: int = 0
    """Seed of the initialisation of ``random`` weights."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its head."""

    name: str
    """As in the study: a timm name, "paper:NAME", "torchvision/NAME" or "python:MODULE:FUNCTION"."""
    weights: Weights
    preprocessing: Preprocessing
    dimension: int
    """Of the penultimate features: timm's ``head_hidden_size``, or the network's own word for ``python:``."""
    pooling: str | None = None
    """timm's ``global_pool`` where it is not the network's default."""
    imagenet_top1: float | None = None
    """Fraction; None = unknown, then the backbone is left out of correlations."""
    variant: str = ""
    """Tells two backbones of one name apart; empty where there is but one."""

    @property
    def label(self) -> str:
        """Name, with the variant where there is one."""
        return f"{self.name}@{self.variant}" if self.variant else self.name


@dataclass(frozen=True)
class Split:
    """One of the data set's own splits: rows in a stated order."""

    name: SplitName
    ids: tuple[str, ...]
    """Sample ids, unique over the whole data set."""
    paths: tuple[Path, ...]
    """The image file of each row."""
    labels: NDArray[Any]
    """(n,) int64 or (n, K) int8, see the module's docstring."""
    groups: tuple[str, ...] | None = None
    """Rows of one group (patient, object, scene) stay on one side of every seeded split and fold."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.intp], name: SplitName | None = None) -> Split:
        """Return the rows asked for, in the order asked for."""
        return Split(
            name=name or self.name,
            ids=tuple(self.ids[i] for i in rows),
            paths=tuple(self.paths[i] for i in rows),
            labels=self.labels[rows],
            groups=None if self.groups is None else tuple(self.groups[i] for i in rows),
        )


@dataclass(frozen=True)
class Dataset:
    """A labelled image set with its splits."""

    name: str
    class_names: tuple[str, ...]
    """K names, sorted by code point; a label is an index into them."""
    multi_label: bool
    metric: Metric
    splits: Mapping[SplitName, Split]
    """Always "train" and "test"; "validation" where the data set has one of its own."""
    notes: tuple[str, ...] = ()
    """What was done to get here that a reader must know (seeded split, ratio, ...)."""

    def with_splits(self, splits: Mapping[SplitName, Split], *notes: str) -> Dataset:
        """Return the same data set over other rows, with what was done added to the notes."""
        return replace(self, splits=dict(splits), notes=(*self.notes, *notes))


@dataclass(frozen=True)
class FeatureBatch:
    """Consecutive rows of a split after one forward pass."""

    features: NDArray[np.float32]
    """(b, d); b <= batch size, less than the rows read where images were excluded."""
    rows: NDArray[np.intp]
    """(b,) positions in the split that the features belong to, ascending."""
    stop: int
    """Rows of the split consumed so far, excluded ones included: where a resumed extraction starts."""
    excluded: tuple[tuple[str, str], ...] = ()
    """(id, reason) of the unreadable images of this batch under the policy ``exclude``."""


@dataclass(frozen=True)
class FeatureTable:
    """Penultimate features of one split, as a probe wants them."""

    features: NDArray[np.floating[Any]]
    """(n, d) float32 or float16, C-contiguous, possibly memory-mapped."""
    labels: NDArray[Any]
    """(n,) int64 or (n, K) int8, see the module's docstring."""
    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    image_sha256: tuple[str, ...] | None = None
    """Of the image bytes of each row: byte-identical images stay in one fold."""
    digest: str = ""
    """Content digest of the entry behind it; a probe records it."""

    @property
    def multi_label(self) -> bool:
        """Whether an image may bear several labels."""
        return self.labels.ndim == 2


@dataclass(frozen=True)
class SelectionRow:
    """One candidate of a selection: what was tried and how it did."""

    l2_lambda: float
    """On the sum of losses; scikit-learn's C = 1 / l2_lambda."""
    value: float
    """The data set's metric on validation rows or pooled over folds, a fraction."""
    converged: bool
    """Whether every fit behind the value met its tolerance."""
    reused: bool = False
    """Whether it was taken from an earlier selection that had this lambda too."""


@dataclass(frozen=True)
class PathResult:
    """Linear probes along a grid of lambdas, each with its certificate; axis 0 is the grid as given.

    The objective, its two certificates and the rule for ``converged`` are the protocol's ("The
    certificate"); all are float64 figures of the original features.
    """

    lambdas: NDArray[np.float64]
    """(L,) on the sum of losses, in the order they were given."""
    coefficients: NDArray[np.float64]
    """(L, K, d), or (L, 1, d) for two classes; in the original feature space."""
    intercepts: NDArray[np.float64]
    """(L, K) or (L, 1); -inf for a class without rows, +inf for a label without a negative."""
    objective: NDArray[np.float64]
    """(L,) sum of losses in nats + (l2_lambda / 2) ||W||^2."""
    bound: NDArray[np.float64]
    """(L,) the optimum lies no more than this below ``objective``: rigorous."""
    converged: NDArray[np.bool_]
    """(L,) whether the tolerance was met, by the protocol's rule."""
    evaluations: NDArray[np.int64]
    """(L,) passes over the features (one product with the weights and one back), certificate included."""
    seconds: NDArray[np.float64]
    """(L,) wall time of each point; what the points share is in the first one fitted."""
    tolerance: float
    events: tuple[str, ...] = ()
    """What a reader must know: missed tolerances, classes left out."""
    estimator: Callable[[], NDArray[np.float64]] | None = field(default=None, repr=False, compare=False)
    """Works the estimates out from the features, which it keeps hold of."""

    @cached_property
    def estimate(self) -> NDArray[np.float64]:
        """(L,) how far the optimum most likely lies below ``objective``: half the squared Newton decrement.

        Worked out when it is first asked for, which takes about as long as the path: the bound alone decides
        on convergence.
        """
        return np.full(len(self.lambdas), np.nan) if self.estimator is None else self.estimator()


@dataclass(frozen=True)
class ProbeResult:
    """A linear probe, selected, refitted and scored once on test."""

    metric: Metric
    value: float
    """Fraction on the test split."""
    l2_lambda: float
    """The chosen strength, on the sum of losses."""
    selection: tuple[SelectionRow, ...]
    """Every candidate, in the order of the grid."""
    selection_method: str
    """In words: "5-fold cross-validation over train + validation, seed 0"."""
    coefficients: NDArray[np.float64]
    """(K, d), or (1, d) for two classes; in the original feature space."""
    intercepts: NDArray[np.float64]
    """(K,) or (1,)."""
    test_scores: NDArray[np.float32]
    """(n_test, K) probabilities (softmax; per-label sigmoids where multi-label)."""
    n_train: int
    """Rows of the refit (train + validation)."""
    n_test: int
    seconds: float
    """Wall time of selection, refit and scoring."""
    warnings: tuple[str, ...] = ()
    """Edge-of-grid optimum, missed tolerance, classes left out of folds."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """log_loss, calibration_error: figures beside the metric; objective, bound, estimate of the refit."""
    class_names: tuple[str, ...] = ()
    """K names, one a column of ``test_scores``."""
    multi_label: bool = False
    test_logits: NDArray[np.float64] | None = None
    """(n_test, K) before softmax or sigmoid: rank by these, probabilities near each other are equal in float32."""
    folds: NDArray[np.int16] | None = None
    """(n_train + n_validation,) fold of each row; validation selection: 0 = validated on, -1 = fitted on."""
    seed: int = 0
    """Of the folds or of the held-out rows."""


@dataclass(frozen=True)
class TrainRecipe:
    """Everything of a training job but its data and its grid point (protocol, "Fine-tuning")."""

    steps: int
    """Optimiser steps; the cosine ends there."""
    batch_size: int = 256
    """Images a step; sampled without replacement within an epoch."""
    micro_batch_size: int | None = None
    """Images a forward pass; None = the whole batch. Gradients accumulate."""
    momentum: float = 0.9
    """Nesterov."""
    batch_norm_momentum: float | None = None
    """torch's convention, for a whole batch; None = min(10/s, 0.1), s = steps an epoch."""
    decay_everything: bool = False
    """Whether weight decay acts on biases and norms too, not on convolution and linear weights alone."""
    dropout: float = 0.0
    """Probability before the classifier; dropout inside the network is off."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes; single-label only."""
    classifier_std: float = 0.01
    """Standard deviation of the new classifier's weights (ours); its biases start at zero."""
    image_size: int | None = None
    """Side of the input in pixels; None = the backbone's own."""
    evaluation_crop: Literal["whole", "central_87.5", "simclr"] = "whole"
    """Which pixels are scored (protocol: grade L for the first two, H for SimCLR's)."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the area that a random resized crop keeps."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Aspect ratios of a random resized crop."""
    horizontal_flip: bool = True
    validation_curve: bool = True
    """Take the metric at log-spaced and regular steps too where the job scores validation; test never. Steps
    are left out where scoring would cost more than a tenth of the training."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: Literal["auto", "always", "never"] = "auto"
    """torch.compile; the word auto: on CUDA, from the steps on that pay for it."""
    device: str = "auto"
    """The word auto: CUDA where there is one, else CPU."""
    num_workers: int = 0
    """Threads that decode and cut crops; 0 = as many as torch computes with."""
    image_memory: int = 2 << 30
    """Bytes of decoded training images to keep; the rest is decoded every time it is used."""
    tensorboard: bool = False
    """Write the curve as TensorBoard's events too, beside ``curve.jsonl``."""


@dataclass(frozen=True)
class SourceSwitches:
    """What training on a source task may do beside its recipe (protocol, "Other experiments", Regularisation)."""

    batch_norm_scale: bool = True
    """Whether batch norms have a trained scale; without, it is fixed at 1."""
    auxiliary_head: bool = False
    """Whether auxiliary classifiers inside the network add to the loss."""
    auxiliary_weight: float = 0.4
    """Of the loss of each of them (TF-Slim's default, grade L; 0.3 in Szegedy et al. 2015)."""


NO_SWITCHES = SourceSwitches()
"""As every network is trained that is no source's."""

WITHOUT_EFFECT = ("compile", "device", "num_workers", "image_memory", "validation_curve", "tensorboard")
"""Fields of a `TrainRecipe` that change how a result is come by, and not the result."""


@dataclass(frozen=True)
class CurvePoint:
    """One line of a training curve."""

    step: int
    loss: float
    """Mean over the images of the last step; multi-label: summed over labels."""
    learning_rate: float
    images_per_second: float
    value: float | None = None
    """The data set's metric on validation after this step, a fraction; None = not taken here."""


@dataclass(frozen=True)
class TrainResult:
    """One training job: one grid point, one seed, scored on one split."""

    regime: Regime
    metric: Metric
    value: float | None
    """Fraction on ``scored_on``; None where the loss diverged."""
    status: Literal["complete", "diverged"]
    scored_on: SplitName
    learning_rate: float
    """Peak of the schedule."""
    weight_decay: float
    """The grid's c; the optimiser got c / learning_rate."""
    seed: int
    steps: int
    """Steps done; less than asked for only where the loss diverged."""
    scores: NDArray[np.float32]
    """(n, K) probabilities on ``scored_on``; (0, K) where the loss diverged."""
    curve: tuple[CurvePoint, ...]
    n_train: int
    n_test: int
    """Rows of ``scored_on``."""
    seconds: float
    """Of work, in all attempts that led here."""
    resumed_from: tuple[int, ...] = ()
    """Steps at which an interrupted job was taken up again."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """One row of scores.csv; the columns are the fields, in this order."""

    study: str
    backbone: str
    weights: str
    variant: str
    dataset: str
    regime: Regime
    metric: Metric
    value: float | None
    """Fraction on the test split; None unless ``status`` is "complete"."""
    n_train: int | None
    n_test: int | None
    seed: int | None
    steps: int | None
    imagenet_top1: float | None
    """Fraction."""
    l2_lambda: float | None
    learning_rate: float | None
    weight_decay: float | None
    status: Literal["complete", "diverged", "failed", "missing"]
    source: str
    """Which file the row was read from; "" for a missing cell."""
    job: str
