"""The study file as a whole: its tables put together, and what is wrong with one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from pipeline.errors import StudyError
from pipeline.tables import (
    BackboneTable,
    DatasetTable,
    ExecutionTable,
    ExtractTable,
    PinTable,
    ProbeTable,
    ReportTable,
    SlurmTable,
    StudyTable,
    Table,
    TrainTable,
)
from pipeline.tables_experiments import (
    ConvergenceTable,
    FewExamplesTable,
    PretrainTable,
    RegularisationTable,
)

__all__ = [
    "BackboneTable",
    "DatasetTable",
    "ExecutionTable",
    "ExtractTable",
    "PinTable",
    "ProbeTable",
    "ReportTable",
    "SlurmTable",
    "Study",
    "StudyTable",
    "TrainTable",
    "load_study",
]

FOLDER = "<folder of the study file>"
FILE = "<the study file>"
LOCK = "<its lock>"
"""Under which `load_study` hands its own findings to `Study`: no keys that TOML people would write."""


def _short_forms(value: object) -> object:
    """Let a list of names stand for a list of tables."""
    if isinstance(value, list | tuple):
        return [{"name": item} if isinstance(item, str) else item for item in value]
    return value


class Study(Table):
    """A study: which backbones, which data sets, which stages.

    Relative paths in it are relative to ``folder``, where the study file lies.
    """

    study: StudyTable
    backbone: Annotated[tuple[BackboneTable, ...], BeforeValidator(_short_forms)] = ()
    dataset: Annotated[tuple[DatasetTable, ...], BeforeValidator(_short_forms)] = ()
    extract: ExtractTable = ExtractTable()
    probe: ProbeTable = ProbeTable()
    fine_tune: TrainTable | None = None
    from_scratch: TrainTable | None = None
    few_examples: FewExamplesTable | None = None
    convergence: ConvergenceTable | None = None
    pretrain: PretrainTable | None = None
    regularisation: RegularisationTable | None = None
    report: ReportTable = ReportTable()
    execution: ExecutionTable = ExecutionTable()
    slurm: SlurmTable = SlurmTable()
    pin: tuple[PinTable, ...] = ()
    folder: Path = Field(default=Path(), exclude=True, validation_alias=FOLDER)
    file: Path | None = Field(default=None, exclude=True, validation_alias=FILE)
    lock: tuple[PinTable, ...] = Field(default=(), exclude=True, validation_alias=LOCK)

    @model_validator(mode="before")
    @classmethod
    def _plural_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = dict(value)
            for plural, singular in (("backbones", "backbone"), ("datasets", "dataset")):
                if plural in value and singular in value:
                    raise ValueError(f"{plural} and [[{singular}]] are two ways to say one thing; keep one")
                if plural in value:
                    value[singular] = value.pop(plural)
        return value

    @model_validator(mode="after")
    def _something_to_do(self) -> Study:
        lacking = [k for k, given in (("backbone", self.backbone), ("dataset", self.dataset)) if not given]
        if lacking and not (self.report.scores and len(lacking) == 2):
            raise ValueError(
                f"{' and '.join(lacking)}: none named; a study without both only joins [report] scores"
            )
        return self

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.name

    @property
    def output(self) -> Path:
        """Folder of results, scores and report."""
        return (self.folder / self.study.output_folder).resolve()

    def training(self, regime: str) -> TrainTable | None:
        """Return the table of a training regime, None where it is not run."""
        return self.fine_tune if regime == "fine_tune" else self.from_scratch


def load_study(path: Path | str) -> Study:
    """Read a study file.

    Parameters
    ----------
    path : path
        A TOML file; `pipeline/studies/reference.toml` shows every key.

    Returns
    -------
    Study
        Frozen; relative paths are relative to the file's folder. What STUDY.lock beside the file pins is in
        ``lock``.

    Raises
    ------
    StudyError
        With one line per mistake: no such file, not TOML, unknown keys (with the nearest known one),
        wrong types and values, unknown backbones, names used twice.

    Examples
    --------
    >>> from pipeline.config import load_study
    >>> file = getfixture("tmp_path") / "study.toml"
    >>> _ = file.write_text('''
    ... backbones = ["resnet50.tv_in1k"]
    ... datasets = ["digits"]
    ... [study]
    ... name = "first"
    ... ''')
    >>> study = load_study(file)
    >>> study.name, study.backbone[0].name, study.probe.lambdas.count
    ('first', 'resnet50.tv_in1k', 45)
    """
    from pipeline.lock import lock_file, read_lock
    from pipeline.mistakes import explain, name_mistakes, unknown_backbones

    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "a folder of images? `penultimate init FOLDER` writes a first study"
        raise StudyError(f"{path}: no such study file; {hint}") from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); name a TOML file") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: not TOML: {error}") from error
    try:
        found = {FOLDER: path.parent.resolve(), FILE: path, LOCK: read_lock(lock_file(path))}
        study = Study.model_validate({**raw, **found})
    except ValidationError as error:
        lines = [*explain(error), *unknown_backbones(raw)]
        raise StudyError(f"{path}: {line}" for line in lines) from None
    mistakes = list(name_mistakes(study))
    if mistakes:
        raise StudyError(f"{path}: {mistake}" for mistake in mistakes)
    return study
