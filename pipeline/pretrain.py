"""Source-task training: checkpoints of one network under several settings, and the study that compares them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.atomic import make_folder, write_file
from pipeline.beforehand import check_devices, check_writable
from pipeline.cache_folder import cache_root
from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.jobs import Planned, TrainJob
from pipeline.ledger import Ledger, Record, file_stem
from pipeline.place import Place
from pipeline.plan import Plan
from pipeline.plan_pretrain import plan_pretrain
from pipeline.progress import SILENT, Reporter
from pipeline.resolve import Resolved, resolve
from pipeline.stage_run import Books, Failure, run_stage
from pipeline.tables import Table
from pipeline.tables_experiments import PretrainTable
from pipeline.work_train import WEIGHTS, lacks_weights, training_folder


@dataclass(frozen=True)
class Checkpoint:
    """One trained network."""

    backbone: str
    variant: str
    accuracy: float
    """The source's metric on its test split, a fraction."""
    metric: str
    weights: Path


@dataclass(frozen=True)
class PretrainOutcome:
    """What came of it."""

    checkpoints: tuple[Checkpoint, ...]
    done: tuple[str, ...]
    failed: tuple[Failure, ...]
    lacking: tuple[str, ...]
    """Trainings without a checkpoint that are not failures: diverged."""
    study: Path | None
    """The study written for them; None where a training lacks."""


def pretrain(
    study: Study,
    *,
    workers: int | None = None,
    root: Path | None = None,
    rehash: bool = False,
    reporter: Reporter = SILENT,
    agree: Callable[[Plan, bool], None] | None = None,
) -> PretrainOutcome:
    """Train every network of a study on its source task under every setting, as far as that is not done.

    Parameters
    ----------
    study : Study
        With a ``[pretrain]`` table, from a file.
    workers, root, rehash, reporter, agree
        As :func:`pipeline.run.run` has them.

    Returns
    -------
    PretrainOutcome
        Beside the study's file lies ``NAME.pretrained.toml``: the study of the other data sets with the
        checkpoints as backbones, their source accuracy in the place of ImageNet top-1.

    Raises
    ------
    StudyError
        There is no such table, or it does not fit; nothing was started.
    """
    if study.pretrain is None:
        raise StudyError('the study has no [pretrain] table; add one with source = "NAME OF A DATA SET"')
    root = root or cache_root()
    with reporter.bar("hashing images", "images") as progress:
        resolved = resolve(study, root=root, rehash=rehash, progress=progress)
    planned = planned_pretrainings(study, study.pretrain, resolved)
    place = Place(root, study.output)
    whole = Plan(study, tuple(planned), resolved, (), (), (), Ledger(study.output).history())
    check_devices(p.job for p in planned if p.job is not None and p.state != "done")
    check_writable(whole, ("scratch",), place)
    if agree is not None:
        agree(whole, True)
    books, todo = Books(), [p for p in planned if p.state != "done"]
    if todo:
        run_stage("scratch", todo, books, place, workers=workers, reporter=reporter, siblings=planned)
    return _outcome(study, study.pretrain, resolved, books)


def planned_pretrainings(study: Study, table: PretrainTable, resolved: Resolved) -> list[Planned]:
    """Plan; a training whose weights were taken away is done again.

    Raises
    ------
    StudyError
        The source's images are not here, or the settings do not fit.
    """
    found = []
    for planned in plan_pretrain(study, table, resolved, Ledger(study.output).history()):
        job = planned.job
        assert isinstance(job, TrainJob)
        if planned.state == "done" and lacks_weights(job, study.output):
            planned = Planned(
                planned.name, planned.stage, "missing", "its weights are gone", job, job.columns
            )
        found.append(planned)
    return found


def _outcome(study: Study, table: PretrainTable, resolved: Resolved, books: Books) -> PretrainOutcome:
    """Gather the checkpoints, and write the study that compares them once all are there."""
    history = Ledger(study.output).history()
    checkpoints, lacking = [], []
    for planned in planned_pretrainings(study, table, resolved):
        job = planned.job
        assert isinstance(job, TrainJob)
        record = history.result_of(job.name, job.spec_digest)
        if planned.state == "done" and record is not None and record.status == "complete":
            checkpoints.append(_checkpoint(study, job, record))
        elif planned.name not in {failure.job for failure in books.failed}:
            lacking.append(planned.name)
    whole = checkpoints and not lacking and not books.failed
    written = _write_study(study, table, checkpoints) if whole else None
    return PretrainOutcome(
        tuple(checkpoints), tuple(books.done), tuple(books.failed), tuple(lacking), written
    )


def _checkpoint(study: Study, job: TrainJob, record: Record) -> Checkpoint:
    """Put a readable copy of the weights beside the results."""
    folder = study.output / "pretrained"
    weights = folder / f"{file_stem(job.name)}.safetensors"
    content = (training_folder(job, study.output) / WEIGHTS).read_bytes()
    make_folder(folder)
    if not weights.is_file() or weights.read_bytes() != content:
        write_file(weights, content)
    columns = record.columns
    return Checkpoint(
        job.backbone.name, columns["variant"], record.result["value"], columns["metric"], weights
    )


def _write_study(study: Study, table: PretrainTable, checkpoints: Sequence[Checkpoint]) -> Path | None:
    """Write the study of the other data sets; None where there is no other, or the study has no file."""
    targets = [dataset for dataset in study.dataset if dataset.name != table.source]
    if not targets or study.file is None:
        return None
    own = {backbone.name: backbone for backbone in study.backbone}
    backbones = [
        {
            **_set(own[one.backbone], without=("name", "weights", "seed", "imagenet_top1", "variant")),
            "name": one.backbone,
            "weights": f"file:{one.weights}",
            "variant": one.variant,
            **({"imagenet_top1": one.accuracy} if 0 < one.accuracy < 1 else {}),
        }
        for one in checkpoints
    ]
    tables: dict[str, Any] = {
        "study": {"name": f"{study.name}-pretrained"},
        "backbone": backbones,
        "dataset": [_set(dataset) for dataset in targets],
    }
    for name in ("extract", "probe", "fine_tune", "from_scratch", "report"):
        value = getattr(study, name)
        if isinstance(value, Table) and (name in study.model_fields_set):
            tables[name] = _set(value)
    tables["regularisation"] = {"variants": [setting.variant for setting in table.setting]}
    head = (
        "# Written by `penultimate pretrain`, and written again by it. imagenet_top1 is the accuracy on the source, "
        f"{table.source}.\n"
    )
    path = study.file.with_name(f"{study.file.stem}.pretrained.toml")
    write_file(path, (head + _toml(tables)).encode())
    return path


def _set(table: Table, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a table's author has written."""
    return {k: v for k, v in table.model_dump(mode="json", exclude_unset=True).items() if k not in without}


def _toml(tables: Mapping[str, Any]) -> str:
    """Write tables and lists of tables."""
    lines = []
    for name, value in tables.items():
        many = isinstance(value, list)
        for table in value if many else [value]:
            lines += ["", f"[[{name}]]" if many else f"[{name}]"]
            lines += [f"{key} = {_value(item)}" for key, item in table.items() if item is not None]
    return "\n".join(lines[1:]) + "\n"


def _value(value: Any) -> str:
    """Write one value: JSON's texts, numbers, booleans and lists of them are TOML's."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
