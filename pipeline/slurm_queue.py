"""What Slurm's own commands say: whether jobs are accepted, where they stand, and how to cancel them.

Only squeue, sbatch, scancel and sinfo are used, which every Slurm has; accounting (sacct) many have not.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from pipeline.errors import SurroundingsError
from pipeline.tables import SlurmTable

ANSWER_SECONDS = 60.0
"""How long one of Slurm's commands may take to answer."""

WAITING = frozenset("PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED SUSPENDED RESV_DEL_HOLD".split())
RUNNING = frozenset("RUNNING COMPLETING SIGNALING STAGE_OUT STOPPED RESIZING SPECIAL_EXIT".split())


class NoAnswerError(Exception):
    """Slurm's controller did not answer this time."""


def parameters(table: SlurmTable, *, gpu: bool) -> dict[str, str | int]:
    """Return what a job asks for, under the names of sbatch's options."""
    wanted: dict[str, str | int | None] = {
        "partition": table.partition,
        "time": table.minutes,
        "cpus_per_task": table.cpus,
        "mem": table.memory,
        "account": table.account,
        "qos": table.qos,
        "constraint": table.constraint,
        "gpus_per_node": 1 if gpu else None,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def refuse_unacceptable(wanted: Mapping[str, str | int]) -> None:
    """Ask Slurm whether it would take such a job.

    Raises
    ------
    SurroundingsError
        There is no Slurm here, its controller does not answer, or it would not; in Slurm's own words.
    """
    if shutil.which("sbatch") is None:
        raise SurroundingsError(
            "--executor slurm: no sbatch on this machine: run it where jobs are submitted"
        )
    options = [f"--{name.replace('_', '-')}={value}" for name, value in wanted.items()]
    try:
        answer = _run(["sbatch", "--test-only", *options, "--wrap", "true"])
    except subprocess.TimeoutExpired as error:
        raise SurroundingsError(
            f"slurm: no answer within {ANSWER_SECONDS:.0f} s; is slurmctld up?"
        ) from error
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if line.strip()] or ["no reason given"]
        why = lines[-1].removeprefix("sbatch: error: ").removeprefix("allocation failure: ")
        asked = " ".join(options)
        raise SurroundingsError(f"slurm does not take the jobs: {why} (asked for: {asked})")


def has_gpus(partition: str | None) -> bool:
    """Whether any node of a partition, or of all, has GPUs."""
    answer = _run(
        ["sinfo", "--noheader", "--format=%G", *([f"--partition={partition}"] if partition else [])]
    )
    return "gpu" in answer.stdout


def states(name: str) -> dict[str, str]:
    """Return the state of every job of this name that Slurm still knows, by its number ("12_3").

    Raises
    ------
    NoAnswerError
        The controller does not answer.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--name={name}", "--format=%i|%T"]
    try:
        answer = _run(command)
    except subprocess.TimeoutExpired as error:
        raise NoAnswerError(f"squeue took over {ANSWER_SECONDS:.0f} s") from error
    if answer.returncode:
        raise NoAnswerError(" ".join(answer.stderr.split()))
    pairs = (line.strip().partition("|") for line in answer.stdout.splitlines())
    return {number: state for number, _, state in pairs if state}


def cancel(name: str) -> None:
    """Ask Slurm to end every job of this name; those under way get SIGTERM and time to save."""
    try:
        _run(["scancel", f"--name={name}"])
    except subprocess.TimeoutExpired as error:
        raise NoAnswerError(f"scancel took over {ANSWER_SECONDS:.0f} s") from error


def largest_array() -> int:
    """Return how many jobs one array may have."""
    for line in _run(["scontrol", "show", "config"]).stdout.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize" and value.strip().isdigit():
            return max(1, int(value) - 1)
    return 1000


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands."""
    return subprocess.run(  # noqa: S603  # no shell, and the words are ours
        command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
    )
