"""What the figures of the page show, for who has not read the paper."""

from __future__ import annotations

CAPTIONS: dict[str, tuple[str, str]] = {
    "regimes": (
        "Regimes beside each other",
        "Every point is a backbone, every bar the mean over backbones (of log odds); a dotted line is the best "
        "published score, where one was given.",
    ),
    "fine_tune_against_scratch": (
        "Fine-tuned against from scratch",
        "Every point is one backbone on one data set. Above the line, starting from the pretrained weights "
        "gave the better score.",
    ),
    "ranking": (
        "Ranking by the mean over data sets",
        "Best on top, with the standard error over data sets. Filled: not significantly different from the best "
        "(paired t over data sets, raw p). A bar on the right links backbones no two of which differ "
        "significantly (Holm over all pairs).",
    ),
    "regularisation_paths": (
        "Regularisation paths of the probes",
        "Score in selection (cross-validation, or validation images) against lambda, the strength that holds the "
        "weights small. The mark is the lambda that was chosen, a cross a fit that missed its tolerance. A mark "
        "at either end means that the grid was too short.",
    ),
    "training_fine_tune": (
        "Training curves, fine-tuned",
        "Loss on the training images of each final run, as a running mean over a tenth of it; the mark is its end.",
    ),
    "training_from_scratch": (
        "Training curves, from scratch",
        "Loss on the training images of each final run, as a running mean over a tenth of it; the mark is its end.",
    ),
}
"""Of the figures that the page shows as pictures, in this order: title and what is seen. The scatter plots and
heat maps are parts of the page itself."""
