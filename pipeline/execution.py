"""What the command line says of where jobs run, put over what the study file says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.tables import SlurmTable, Table
from stages.names import did_you_mean

T = TypeVar("T", bound=Table)


def with_execution(
    study: Study, *, executor: str | None = None, retries: int | None = None, slurm: Sequence[str] = ()
) -> Study:
    """Return the study with other answers to where and how often its jobs are run.

    Parameters
    ----------
    study : Study
    executor : str, optional
        "local", "dask:ADDRESS" or "slurm"; None = as the study says.
    retries : int, optional
    slurm : sequence of str
        "KEY=VALUE" of the study's ``[slurm]`` table.

    Raises
    ------
    StudyError
        One line for each mistake.
    """
    if executor is not None and not executor.strip():
        raise StudyError("--executor is empty; give local, dask:ADDRESS or slurm")
    given = {"executor": executor, "retries": retries}
    execution = _changed(study.execution, {k: v for k, v in given.items() if v is not None}, "--{key}")
    table = _changed(study.slurm, _pairs(slurm), "--slurm {key}")
    return study.model_copy(update={"execution": execution, "slurm": table})


def _pairs(texts: Sequence[str]) -> dict[str, Any]:
    """Take KEY=VALUE apart; several of ``setup`` are several lines."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in SlurmTable.model_fields:
            hint = did_you_mean(key, SlurmTable.model_fields)
            keys = ", ".join(SlurmTable.model_fields)
            if key in SlurmTable.model_fields:
                raise StudyError(f"--slurm {text}: without a value; write {key}=...")
            raise StudyError(f"--slurm {text}: not KEY=VALUE of a known key{hint} (known: {keys})")
        if key == "setup":
            found.setdefault(key, []).append(value)
        else:
            found[key] = value
    return found


def _changed(table: T, changes: dict[str, Any], words: str) -> T:
    """Put changes over a table and check them as those of a study file are checked."""
    if not changes:
        return table
    try:
        return type(table).model_validate({**table.model_dump(), **changes})
    except ValidationError as error:
        raise StudyError(_mistakes(error, changes, words)) from None


def _mistakes(error: ValidationError, changes: dict[str, Any], words: str) -> list[str]:
    """Say what is wrong with each change."""
    lines = []
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else next(iter(changes))
        what = item["ctx"]["error"] if item["type"] == "value_error" else item["msg"]
        lines.append(f"{words.format(key=key)}: {what}")
    return lines
