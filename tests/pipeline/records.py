"""Records for the tests of the ledger and of one record."""

from __future__ import annotations

from typing import Any

from pipeline.ledger import Ledger, Record

JOB = "probe/net/pets"


def write(ledger: Ledger, job: str = JOB, status: Any = "complete", **more: Any) -> Record:
    """Write an attempt at a job."""
    fields: dict[str, Any] = {"spec": {"a": 1}, "columns": {"value": 0.5}, "provenance": {"host": "here"}}
    return ledger.write("linear_probe", job, status=status, **{**fields, **more})
