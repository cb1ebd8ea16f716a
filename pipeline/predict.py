"""A fitted probe on new images: the backbone's features, the probe's probabilities."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cache import FileDigests
from pipeline.cache_folder import cache_root
from pipeline.errors import StudyError
from pipeline.progress import SILENT, Reporter
from stages.backbones import resolve
from stages.datasets.folder_source import IMAGE_SUFFIXES
from stages.errors import DatasetError, WeightsError
from stages.probe.saved import SavedProbe, load_probe
from stages.records import Backbone, Split


def predict(
    probe: Path,
    images: Iterable[Path],
    *,
    weights: str | None = None,
    top: int = 1,
    reporter: Reporter = SILENT,
) -> list[dict[str, Any]]:
    """Classify images with a fitted probe.

    Parameters
    ----------
    probe : Path
        A ``.safetensors`` of ``OUTPUT/results/linear_probe``.
    images : iterable of Path
        Files, or folders whose images are taken in sorted order.
    weights : str, optional
        Where the backbone's weights are, when not where they were ("file:PATH", "package:NAME"). Their
        content must be what the probe was fitted on.
    top : int
        The most likely classes to list per image; a multi-label probe lists them by probability too.
    reporter : Reporter

    Returns
    -------
    list of dict
        ``path``, ``class``, ``probability``; ``top`` items an image, in the order of the images. An image
        that cannot be read has one item, with None for class and probability and the reason as ``error``.

    Raises
    ------
    StudyError
        No images.
    ProbeError, WeightsError
        The probe or the weights cannot be used.

    Examples
    --------
    >>> predict(Path("pets.safetensors"), [Path("cat.jpg")])  # doctest: +SKIP
    [{'path': 'cat.jpg', 'class': 'Siamese', 'probability': 0.93}]
    """
    saved = load_probe(probe)
    paths = _paths(images, reporter)
    backbone = _backbone(saved, weights)
    features, rows, unreadable = _features(saved, backbone, paths, reporter)
    items: dict[int, list[dict[str, Any]]] = {
        i: [{"path": str(paths[i]), "class": None, "probability": None, "error": reason}]
        for i, reason in unreadable.items()
    }
    if rows:
        probabilities = saved.probabilities(np.concatenate(features))
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        for row, scores, order in zip(rows, probabilities, best, strict=True):
            path = str(paths[row])
            items[row] = [
                {"path": path, "class": saved.class_names[k], "probability": float(scores[k])} for k in order
            ]
    return [item for i in range(len(paths)) for item in items[i]]


def _paths(images: Iterable[Path], reporter: Reporter) -> tuple[Path, ...]:
    """List the image files meant, and say how many of a folder's files are none by their name."""
    found: list[Path] = []
    for path in images:
        if path.is_dir():
            files = [p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]
            named = sorted(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES)
            if len(named) < len(files):
                others = f"{len(files) - len(named)} of {len(files)} files"
                reporter.say(
                    f"{path}: {others} passed over, no images by their names; name one to have it looked at"
                )
            found += named
        elif path.is_file():
            found.append(path)
        else:
            raise StudyError(f"{path}: no such image or folder")
    if not found:
        raise StudyError("no images in the folders given; name files or folders that hold some")
    return tuple(found)


def _backbone(saved: SavedProbe, weights: str | None) -> Backbone:
    """Resolve the backbone that the probe was fitted on; its weights must have the same content."""
    if lacking := {"ingredients", "coordinates", "backbone"} - set(saved.metadata):
        raise StudyError(
            f"the probe does not say which network it was fitted on (no {', '.join(sorted(lacking))}): use one "
            "that `penultimate probe` wrote"
        )
    recipe = json.loads(saved.metadata["ingredients"])
    if "weights_sha256" not in recipe:
        raise StudyError(
            f"{saved.metadata['backbone']}: known by imported features only; there is no network here to run"
        )
    wanted, facts = recipe["weights_sha256"], recipe["preprocessing"]
    label = weights or json.loads(saved.metadata["coordinates"])["weights"]
    kind, _, seed = label.partition(":")
    backbone = resolve(
        recipe["backbone"],
        weights="random" if kind == "random" else label,
        seed=int(seed) if kind == "random" else 0,
        pooling=None if recipe["pooling"] == "default" else recipe["pooling"],
        base_folder=Path.cwd(),
        **{**facts, "mean": tuple(facts["mean"]), "std": tuple(facts["std"])},
    )
    if backbone.weights.path is None and kind != "random":
        raise WeightsError(f"{recipe['backbone']}: its weights are not on this machine; give --weights")
    if backbone.weights.path is not None:
        found = FileDigests(cache_root() / "digests.sqlite").digest(backbone.weights.path)
        if found != wanted:
            raise WeightsError(
                f"{backbone.weights.path}: not the weights that the probe was fitted on "
                f"(SHA-256 {found[:12]}, expected {wanted[:12]}); give --weights"
            )
        backbone = replace(backbone, weights=replace(backbone.weights, sha256=found))
    return backbone


def _features(
    saved: SavedProbe, backbone: Backbone, paths: tuple[Path, ...], reporter: Reporter
) -> tuple[list[np.ndarray[Any, Any]], list[int], dict[int, str]]:
    """Extract the features of the images; labels are not known and not used.

    Returns batches of features, the positions of the images they belong to, and the reasons why the others
    have none.
    """
    from stages.extract import extract_features

    unreadable = {i: reason for i, path in enumerate(paths) if (reason := _unopened(path))}
    there = [i for i in range(len(paths)) if i not in unreadable]
    names, files = tuple(map(str, there)), tuple(paths[i] for i in there)
    split = Split("test", names, files, np.zeros(len(there), dtype=np.int64))
    precision = json.loads(saved.metadata["ingredients"])["precision"]
    features: list[np.ndarray[Any, Any]] = []
    rows: list[int] = []
    if not there:
        return features, rows, unreadable
    with reporter.bar("features", "images") as progress:
        batches = extract_features(
            backbone, split, precision=precision, on_bad_image="exclude", progress=progress
        )
        try:
            for batch in batches:
                features.append(batch.features)
                rows += [there[row] for row in batch.rows.tolist()]
                unreadable.update((int(name), reason) for name, reason in batch.excluded)
        except DatasetError:
            if len(unreadable) < len(paths):  # said at the end of a split without one readable image
                raise
    return features, rows, unreadable


def _unopened(path: Path) -> str:
    """Say why a file cannot be opened; empty where it can."""
    try:
        path.open("rb").close()
    except OSError as problem:
        return f"{path}: cannot be opened ({problem.strerror or type(problem).__name__})"
    return ""
