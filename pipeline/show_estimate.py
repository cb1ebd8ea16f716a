"""Estimates as text and as JSON values."""

from __future__ import annotations

from typing import Any

from pipeline.estimates import AGAINST_A_RUN, Estimate
from pipeline.footprint import megabytes
from pipeline.text_tables import rows_text


def estimate_text(estimate: Estimate) -> str:
    """Return an estimate for a terminal: stages, workers, disk, and where the rates come from."""
    if not estimate.stages:
        return "\n".join(["nothing is left that could be estimated", *_remarks(estimate)])
    rows = [
        {
            "stage": stage.stage,
            "jobs": stage.jobs or None,
            "time": duration(stage.seconds),
            "seconds": round(stage.seconds),
            "within": f"x {stage.factor:.2g}",
            "rates": stage.source,
        }
        for stage in estimate.stages
    ]
    on = f"{estimate.hardware.name}{' (this machine)' if estimate.hardware.here else ''}"
    return "\n".join(
        [
            f"what is left on {on}: {about(estimate)}",
            rows_text(rows),
            "",
            rows_text([{"workers": n, "time": duration(s)} for n, s in estimate.by_workers.items()]),
            f"a worker is one {estimate.hardware.name}; the longest jobs go first, start-up is counted",
            disk_line(estimate),
            f"shipped rates: {estimate.hardware.source}",
            *([f"the model against a real run: {AGAINST_A_RUN}"] if estimate.hardware.gpu is None else []),
            *_remarks(estimate),
        ]
    )


def about(estimate: Estimate) -> str:
    """Say time and precision in a few words."""
    return f"about {duration(estimate.seconds)} (estimate, within a factor of {estimate.factor:.2g})"


def disk_line(estimate: Estimate) -> str:
    """Say what will be written."""
    disk = estimate.disk
    parts = {
        "features": disk.features,
        "batches on their way": disk.staging,
        "decoded images": disk.pixels,
        "checkpoints": disk.checkpoints,
        "results": disk.results,
    }
    shown = ", ".join(f"{name} {megabytes(size)}" for name, size in parts.items() if size)
    return f"disk: {megabytes(disk.total)} at most" + (f": {shown}" if shown else "")


def _remarks(estimate: Estimate) -> list[str]:
    """Say what is not in the figures, and where the disk is too small."""
    return [
        *(f"note: {line}" for line in estimate.unknown),
        *(f"warning: {line}" for line in estimate.shortages),
    ]


def duration(seconds: float) -> str:
    """Show seconds as people do.

    Examples
    --------
    >>> duration(12.3), duration(100.0), duration(5000.0), duration(4e5)
    ('12 s', '1.7 min', '83.3 min', '4.6 days')
    """
    for limit, unit, size in ((100, "s", 1), (6000, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}" if size == 1 else f"{seconds / size:.1f} {unit}"
    days = seconds / 86400
    return f"{days:.1f} days" if days < 100 else f"{days:.0f} days"


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON values; bytes and seconds are plain numbers."""
    disk = estimate.disk
    return {
        "hardware": {
            "name": estimate.hardware.name,
            "this_machine": estimate.hardware.here,
            "cores": estimate.hardware.cores,
            "gpu": estimate.hardware.gpu.title if estimate.hardware.gpu else None,
            "source": estimate.hardware.source,
            "against_a_run": AGAINST_A_RUN if estimate.hardware.gpu is None else None,
        },
        "seconds": estimate.seconds,
        "within_factor": estimate.factor,
        "stages": [
            {
                "stage": stage.stage,
                "jobs": stage.jobs,
                "seconds": stage.seconds,
                "within_factor": stage.factor,
                "rates": stage.source,
            }
            for stage in estimate.stages
        ],
        "seconds_by_workers": {str(n): seconds for n, seconds in estimate.by_workers.items()},
        "disk_bytes": {
            "features": disk.features,
            "staging": disk.staging,
            "pixels": disk.pixels,
            "checkpoints": disk.checkpoints,
            "results": disk.results,
            "total": disk.total,
        },
        "shortages": list(estimate.shortages),
        "notes": list(estimate.unknown),
    }
