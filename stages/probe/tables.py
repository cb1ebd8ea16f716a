"""Checks of the tables of one data set, and tables put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from stages.errors import InputError, ProbeError
from stages.probe.rows import Rows
from stages.probe.targets import check_features, check_labels
from stages.records import METRICS, FeatureTable, Metric


def check_tables(tables: Sequence[FeatureTable], metric: Metric) -> None:
    """Raise `ProbeError` or `InputError` unless the tables are splits of one data set the metric fits."""
    first = tables[0]
    if metric not in METRICS:
        raise InputError(f"metric {metric!r} is unknown: use one of {', '.join(METRICS)}")
    if first.multi_label and metric != "map_11_point":
        raise ProbeError(f"metric {metric!r} needs one label an image: use map_11_point for multi-label data")
    for table in tables:
        if table.class_names != first.class_names:
            raise ProbeError(_other_classes(first, table))
        if table.features.ndim != 2 or table.features.shape[1] != first.features.shape[1]:
            widths = " and ".join(str(one.features.shape[-1]) for one in (first, table))
            raise ProbeError(
                f"the splits have features of different width ({widths}): make all with one network"
            )
        if table.multi_label != first.multi_label:
            raise ProbeError("one split is multi-label and another is not: they are not of one data set")
        check_features(table.features)
        check_labels(table.labels, len(table.features), len(first.class_names))
        for what in ("ids", "groups", "image_sha256"):
            column = getattr(table, what)
            if column is not None and len(column) != len(table.features):
                raise ProbeError(f"{len(column)} {what} for {len(table.features)} rows of features")


def _other_classes(first: FeatureTable, other: FeatureTable) -> str:
    """Say in which class names two splits differ."""
    apart = sorted(set(first.class_names) ^ set(other.class_names))
    what = f"such as {apart[0]!r}, which only one has" if apart else "in another order"
    return (
        f"the splits have different class names ({len(first.class_names)} and {len(other.class_names)}, {what}): "
        "imported features of a split that lacks a class need `cache import --classes 'a|b|...'`, all in order"
    )


def stack_tables(first: FeatureTable, second: FeatureTable) -> FeatureTable:
    """Return the rows of both; rows without a group or hash where the other table has them join none.

    The features are not copied: they are a `Rows`, of which slices can be read.
    """
    return replace(
        first,
        features=cast(Any, Rows([first.features, second.features])),
        labels=np.concatenate([first.labels, second.labels]),
        ids=first.ids + second.ids,
        groups=_both(first.groups, second.groups, len(first.ids), len(second.ids)),
        image_sha256=_both(first.image_sha256, second.image_sha256, len(first.ids), len(second.ids)),
        digest="",
    )


def _both(
    first: tuple[str, ...] | None, second: tuple[str, ...] | None, n_first: int, n_second: int
) -> tuple[str, ...] | None:
    """Return one string a row, empty where a table has none."""
    if first is None and second is None:
        return None
    return (first or ("",) * n_first) + (second or ("",) * n_second)
