"""Stage three's job: one training, scored on one split."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path

from cache.locks import KeyLock, silent
from pipeline.jobs import TrainJob
from pipeline.ledger import Ledger, file_stem, truth
from pipeline.place import Done, Place
from pipeline.provenance import provenance
from stages.records import Progress

WEIGHTS = "weights.safetensors"
"""In a job's folder, where they are kept."""
AGAIN = "trained_again_for_its_weights"
"""In the provenance of a result that stands in the place of an earlier one made from the same."""


def train(job: TrainJob, place: Place, progress: Progress | None, threads: int | None = None) -> Done:
    """Train one grid point, or the final network at the chosen one, unless another process does meanwhile.

    Parameters
    ----------
    job : TrainJob
    place : Place
    progress : Progress or None
    threads : int or None
        That torch computes with on the CPU; None = as many as it likes.
    """
    from stages.train import discard_checkpoint

    notify = silent if progress is None else functools.partial(progress, 0, job.recipe.steps)
    with KeyLock(place.output / "training" / "locks", job.spec_digest).held(notify):
        again = Ledger(place.output).has_finished(job.regime, job.name, job.spec_digest)
        if again and not lacks_weights(job, place.output):
            return Done("trained by another process in the meantime")
        done = _train(job, place, progress, threads, again=again)
        discard_checkpoint(training_folder(job, place.output))
        return done


def _train(
    job: TrainJob, place: Place, progress: Progress | None, threads: int | None, *, again: bool
) -> Done:
    """Train and record the result; the checkpoint stays until the record is in its place."""
    from stages.train import fine_tune, train_from_scratch

    run = fine_tune if job.regime == "fine_tune" else train_from_scratch
    if job.switches is not None:
        run = functools.partial(train_from_scratch, switches=job.switches)
    result = run(
        job.backbone,
        job.dataset,
        job.recipe,
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        seed=job.seed,
        fit_on=job.fit_on,
        score_on=job.score_on,
        image_sha256=job.image_sha256,
        folder=training_folder(job, place.output),
        image_folder=place.root / "pixels",
        checkpoint_minutes=job.checkpoint_minutes,
        keep_weights=job.keep_weights,
        keep_checkpoint=True,
        threads=threads,
        progress=progress,
    )
    scored = job.dataset.splits[job.score_on]
    columns = {
        **job.columns,
        "metric": job.dataset.metric,
        "value": result.value,
        "n_train": result.n_train,
        "n_test": result.n_test,
        "steps": result.steps,
        "learning_rate": job.learning_rate,
        "weight_decay": job.weight_decay,
    }
    Ledger(place.output).write(
        job.regime,
        job.name,
        status=result.status,
        spec=job.spec,
        columns=columns if job.columns else {},
        result={
            "value": result.value,
            "curve": [asdict(point) for point in result.curve] if result.status == "complete" else [],
            "class_names": list(job.dataset.class_names),
            "notes": list(job.dataset.notes),
            "selection_notes": list(job.notes),
            "warnings": list(result.warnings),
            "steps": result.steps,
            "seconds": result.seconds,
        },
        provenance=provenance(
            torch=True,
            threads=threads,
            resumed_from=list(result.resumed_from),
            **({AGAIN: True} if again else {}),
        ),
        arrays={"test_scores": result.scores, **truth(scored.labels, scored.ids)},
    )
    line = (
        "diverged"
        if result.value is None
        else f"{job.score_on} {job.dataset.metric} {100 * result.value:.2f} %"
    )
    return Done(f"{line} after {result.steps} steps", (*job.notes, *result.warnings))


def lacks_weights(job: TrainJob, output: Path) -> bool:
    """Whether the weights of a job that keeps them are not there."""
    return job.keep_weights and not (training_folder(job, output) / WEIGHTS).is_file()


def training_folder(job: TrainJob, output: Path) -> Path:
    """Return where a job keeps its curve and checkpoints: by its spec, so that no other job's are resumed."""
    return output / "training" / job.regime / f"{file_stem(job.name)}.{job.spec_digest[:8]}"
