"""What the words, the columns of scores.csv and the keys of statistics.json mean: results explain themselves."""

from __future__ import annotations

WORDS: dict[str, str] = {
    "backbone": "a network pretrained on ImageNet, without its last layer (its classifier)",
    "ImageNet top-1": "share of ImageNet's validation images that the network, with its classifier, got right",
    "linear probe": "the backbone is left as it is; a linear classifier is fitted to the features it gives",
    "fine-tuned": "the backbone is trained further, with a new classifier, on the data set at hand",
    "from scratch": "the same network is trained on the data set at hand from random weights",
    "regime": "one of these three ways to use a network",
    "top_1": "the score is the share of test images whose class was named right",
    "mean_per_class": "the score is that share within each class, averaged over the classes",
    "map_11_point": (
        "the score is the 11-point interpolated average precision of each label, averaged over the labels "
        "(an image may bear several)"
    ),
    "log odds": (
        "ln(p / (1 - p)) of a score p: 0 at 50 %, 2.2 at 90 %. Differences between good scores count as much "
        "as between poor ones; a difference of d multiplies the odds of being right by exp(d), 0.7 doubles them"
    ),
    "r": (
        "the correlation, over backbones, between ImageNet top-1 and transfer, both in log odds: 1 = all on a "
        "rising line, 0 = ImageNet top-1 says nothing. In brackets the 95 % interval"
    ),
    "not significantly different": (
        "the test cannot tell two scores apart (p > 0.05); that does not show that they are equal"
    ),
    "l2_lambda": "how strongly a probe's weights are held small; chosen on other images than the test's",
    "cell": "one backbone on one data set in one regime",
}
"""For who reads nothing but the report."""

COLUMNS: dict[str, str] = {
    "study": "name of the study",
    "backbone": "name of the backbone",
    "weights": "where its weights come from",
    "variant": "tells two backbones of one name apart; empty where there is but one",
    "dataset": "name of the data set",
    "regime": "linear_probe, fine_tune or from_scratch",
    "metric": "top_1, mean_per_class or map_11_point",
    "value": "score on the test split, a fraction; empty unless status is complete",
    "n_train": "training images, validation ones included where the last fit uses them",
    "n_test": "test images",
    "seed": "of folds or training; empty where there is none",
    "steps": "optimiser steps; empty for a linear probe",
    "imagenet_top1": "fraction; empty = unknown, then the backbone enters no correlation",
    "l2_lambda": "chosen strength of a linear probe, on the sum of losses (scikit-learn's C = 1 / l2_lambda)",
    "learning_rate": "chosen peak learning rate of a training",
    "weight_decay": "chosen c of a training; the optimiser had c / learning_rate",
    "status": "complete, diverged, failed or missing",
    "source": "file that the row was read from; empty for a missing cell",
    "job": "name of the job that made the row",
}

DEFINITIONS: dict[str, str] = {
    "log odds": "ln(p / (1 - p)) of the score p; an additive change d multiplies the odds by exp(d)",
    "cell": "one backbone on one data set in one regime; its score is the mean over its complete seeds",
    "clamping": (
        "p is moved into [e, 1 - e]: e = 1/(2n + 2) for top-1 on n test rows, 1/(2K(m + 1)) for mean "
        "per-class accuracy and mAP with K classes and m test rows (positives) in the largest; where the "
        "class counts are unknown, 1/(2n + 2) for those too"
    ),
    "bar": (
        "standard error over data sets of the mean log odds, with the data sets' own means removed and "
        "sqrt(M / (M - 1)) for M backbones (Morey 2008); null where the table is incomplete or too small"
    ),
    "r": (
        "Pearson correlation over backbones between log odds of ImageNet top-1 and log odds of transfer; "
        "95 % interval by Fisher's z from 4 backbones on, data sets fixed; related architectures are not "
        "independent draws, so the interval is rather too narrow than too wide"
    ),
    "tests on one data set": (
        "two trained models, their predictions exchanged per image: exact McNemar for top-1, a binomial per "
        "class for mean per-class accuracy (up to 100,000 draws), ranks for mAP (up to 10,000); two-sided; Holm "
        "over the pairs of one data set and regime. They compare trained models, not architectures: another seed "
        "may decide otherwise. Of several seeds the lowest stands for a backbone"
    ),
    "not significantly different from the best": (
        "raw p > 0.05 against the best of the data set and regime; it does not mean equivalent"
    ),
    "tests over data sets": (
        "paired t-test on log odds over the data sets that both backbones have, data sets as random, at "
        "least three; Holm over the pairs of the regime"
    ),
    "bootstrap": "2.5 to 97.5 percentile over resampled backbones; the band is that of the regression line",
    "verdict": (
        "defined; not informative (3 backbones: the number exists and says nothing); not defined (fewer, or "
        "no variation)"
    ),
}

_CORRELATION: dict[str, str] = {
    "models": "backbones that entered: those with a score and a known ImageNet top-1",
    "verdict": "see definitions",
    "reason": "why the verdict is not 'defined'",
    "pearson": "r",
    "interval": "95 % interval of r [low, high], Fisher's z; null below 4 backbones",
    "spearman": "rank correlation",
    "kendall": "rank correlation, tau-b",
    "slope": "of the least-squares line, log odds per log odds",
    "intercept": "of the least-squares line, log odds",
    "text": "the correlation as people read it",
}

DICTIONARY: dict[str, str] = {
    "schema": "version of this file's keys",
    "cells.*": "number of cells with that status; 'clamped' counts complete cells whose score was clamped",
    "imagenet_top1.*": "fraction, of each backbone; null = unknown, then it enters no correlation",
    "regimes.*.rule": "how missing cells were handled in the means, in words",
    "regimes.*.datasets": "data sets that the means are over",
    "regimes.*.left_out": "backbones of the regime that are in no mean because of gaps",
    "regimes.*.means.*.mean_log_odds": "mean over data sets of the log odds",
    "regimes.*.means.*.bar": "see definitions",
    "regimes.*.means.*.as_fraction": "fraction with those log odds; not the mean of the scores",
    **{f"regimes.*.correlation.{key}": text for key, text in _CORRELATION.items()},
    **{f"regimes.*.per_dataset.*.{key}": text for key, text in _CORRELATION.items()},
    "regimes.*.correlation.bootstrap": "interval of r, draws counted, band around the line (log odds)",
    "regimes.*.correlation.leave_one_dataset_out": (
        "range of r with one data set left out, and which: over the same backbones, by the same rule for gaps; "
        "null below 4 backbones or 3 data sets, or where the others no longer link the backbones"
    ),
    "regimes.*.correlation.best": "backbone with the highest mean log odds; null with fewer than two means",
    "regimes.*.correlation.ties_with_best": (
        "backbones whose mean is not significantly different from it (paired t over data sets, raw p > 0.05); "
        "null = not tested, for which three data sets are needed; with those of them in ahead_of_best"
    ),
    "regimes.*.correlation.ahead_of_best": (
        "backbones significantly ahead of it on the data sets that both have (raw p): with gaps, tests and means "
        "are over different data sets"
    ),
    "regimes.*.correlation.not_tested": "backbones with a mean that no test compared with the best",
    "regimes.*.per_dataset.*.not_tested": "backbones with a score that no test compared with the best",
    "regimes.*.per_dataset.*.bootstrap": "as for the mean over data sets",
    "regimes.*.per_dataset.*.best": "backbone with the highest score",
    "regimes.*.per_dataset.*.ties_with_best": (
        "not significantly different from it, with those in ahead_of_best; null = not tested"
    ),
    "regimes.*.per_dataset.*.ahead_of_best": (
        "backbones that the test of the lowest seeds puts ahead of it: the seeds contradict their mean"
    ),
    "regimes.*.per_dataset.*.tested_seeds": "seeds that were tested, where a score is a mean over several",
    "regimes.*.paired_t_tests[].first": "backbone that the second is subtracted from",
    "regimes.*.paired_t_tests[].second": "backbone that is subtracted",
    "regimes.*.paired_t_tests[].datasets": "data sets that both have",
    "regimes.*.paired_t_tests[].mean": "mean difference in log odds",
    "regimes.*.paired_t_tests[].interval": "95 % t interval",
    "regimes.*.paired_t_tests[].p_value": "two-sided",
    "regimes.*.paired_t_tests[].p_holm": "Holm over the pairs of the regime",
    "pairs[].dataset": "data set of a test of two trained models",
    "pairs[].regime": "its regime",
    "pairs[].first": "backbone that the second is subtracted from",
    "pairs[].second": "backbone that is subtracted",
    "pairs[].difference": "difference in the data set's metric, fractions",
    "pairs[].test": "which test",
    "pairs[].p_value": "two-sided",
    "pairs[].p_holm": "Holm over the pairs of this data set and regime",
    "pairs[].first_seed": "seed of the first model that was tested; null where it has none",
    "pairs[].second_seed": "of the second",
    "pairs[].draws": "made by a test that draws; 0 = exact",
    "regime_comparisons[].first": "regime that the second is subtracted from",
    "regime_comparisons[].second": "regime that is subtracted",
    "regime_comparisons[].cells": "cells that both regimes have a score for",
    "regime_comparisons[].wins": "cells in which the first is higher",
    "regime_comparisons[].ties": "cells in which both are equal",
    "regime_comparisons[].mean": (
        "mean over data sets of the mean over backbones of the difference in log odds; without gaps the mean "
        "over cells"
    ),
    "regime_comparisons[].odds_ratio": "exp(mean)",
    "regime_comparisons[].per_dataset.*": "mean over backbones of the difference in log odds",
    "regime_comparisons[].interval": "95 % t interval of the mean over data sets, data sets as random",
    "regime_comparisons[].p_value": "two-sided paired t-test over data sets, df = data sets - 1",
    "regime_comparisons[].text": "the comparison in one line",
    "scores_columns": "what each column of scores.csv and scores.parquet means",
    "advice": "sentences generated from these numbers",
    "notes": "what was done to the images and to join the scores that a reader must know",
}
