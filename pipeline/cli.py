"""The command line: parse, one call of the library, print. Errors become lines and an exit status here."""

from __future__ import annotations

import functools
import importlib.util
import io
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline.cli_options import memory_option, output_options, print_json, run_options
from pipeline.errors import (
    EXIT_DONE,
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    EXIT_SURROUNDINGS,
    StudyError,
    SurroundingsError,
)

if TYPE_CHECKING:
    from pipeline.config import Study
    from pipeline.jobs import Stage
    from pipeline.run import Outcome

EPILOG = (
    "Exit status: 0 all done; 1 some jobs failed, the others are done; 2 the input is wrong, nothing was "
    "started; 3 the machine said no (disk, permissions), run again to go on; 4 interrupted, run again."
)
ALL_STAGES: tuple[Stage, ...] = ("extract", "probe", "fine-tune", "scratch", "join")


@click.group(
    epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="penultimate")
def cli() -> None:
    """Find out which pretrained backbone transfers best to your images, and how sure that is.

    A study file names backbones and labelled image sets. Stage one (extract) caches penultimate features,
    stage two (probe) fits linear probes to them on CPU, stage three (fine-tune, scratch, join) trains,
    joins all results and writes scores.csv, statistics.json and report.html.

    `penultimate demo` shows it all in minutes; `penultimate init FOLDER` writes a study for your images.
    """


study_argument = click.argument("study", type=click.Path(path_type=Path))


def stage_command(name: str, stages: tuple[Stage, ...], about: str) -> None:
    """Add a command that runs some stages of a study."""

    @cli.command(name, help=about)
    @study_argument
    @run_options
    def command(study: Path, memory: int | None = None, **options: Any) -> None:
        from pipeline.config import load_study

        loaded = load_study(study)
        if memory is not None:
            probe = loaded.probe.model_copy(update={"memory": memory})
            loaded = loaded.model_copy(update={"probe": probe})
        _run(loaded, stages, **options)

    if "probe" in stages:
        memory_option(command)


stage_command(
    "run",
    ALL_STAGES,
    "Run every stage of STUDY that is missing or stale, then join.",
)
stage_command(
    "extract",
    ("extract",),
    "Stage one: forward passes of every backbone over every image set, into the cache.",
)
stage_command(
    "probe", ("probe",), "Stage two: cross-validated linear probes, on CPU, from cached features alone."
)
stage_command("fine-tune", ("fine-tune",), "Stage three: fine-tune every backbone from its weights.")
stage_command("scratch", ("scratch",), "Stage three: train every backbone from random initialisation.")


@cli.command("join")
@study_argument
@click.option("--format", "format_", type=click.Choice(["text", "md"]), default="text",
              help="What to print: a short table, or the report in Markdown for a pull request.")  # fmt: skip
@run_options
def join_command(study: Path, format_: str, **options: Any) -> None:
    """Stage three: join all results into scores, statistics, figures and report."""
    from pipeline.config import load_study

    _run(load_study(study), ("join",), markdown=format_ == "md", **options)


@cli.command()
@run_options
def demo(**options: Any) -> None:
    """Run the demo: three ImageNet backbones, three small image sets, all regimes, into ./runs/demo.

    Everything it needs came with the installation; nothing is downloaded.
    """
    from pipeline.config import load_study

    study = load_study(Path(__file__).parent / "studies" / "demo.toml")
    _run(study.model_copy(update={"folder": Path.cwd()}), ALL_STAGES, **options)


def _run(
    study: Study,
    stages: tuple[Stage, ...],
    *,
    only: str | None,
    jobs: int | None,
    executor: str | None,
    retries: int | None,
    slurm: tuple[str, ...],
    rehash: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
    markdown: bool = False,
) -> None:
    """Run stages and say what came out; the exit status tells whether all jobs are done."""
    from pipeline.ask import settled
    from pipeline.consent import Consent
    from pipeline.execution import with_execution
    from pipeline.progress import Reporter
    from pipeline.run import run
    from pipeline.show import outcome_json, outcome_markdown, outcome_text

    study = with_execution(study, executor=executor, retries=retries, slurm=slurm)
    reporter = Reporter(quiet=quiet or as_json)
    agree = Consent(stages, only=only, processes=jobs, reporter=reporter, yes=yes, quiet=quiet or as_json)
    job = functools.partial(run, stages=stages, only=only, workers=jobs, rehash=rehash, reporter=reporter)
    job = functools.partial(job, agree=agree)
    outcome = settled(study, job, quiet=quiet or as_json)
    if as_json:
        print_json(outcome_json(outcome) | {"estimate": agree.as_json()})
    else:
        text = outcome_markdown(outcome) if markdown else outcome_text(outcome)
        click.echo(text, err=quiet) if text and not (quiet and not outcome.failed) else None
    sys.exit(_status(outcome))


def _status(outcome: Outcome) -> int:
    """Return the exit status of a run: jobs that wait for others are not done either."""
    return EXIT_SOME_FAILED if outcome.failed or outcome.waiting else EXIT_DONE


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="The study file (default: ./NAME.toml).")
@output_options
def init(folder: Path, output: Path | None, as_json: bool, quiet: bool) -> None:
    """Write a first study for FOLDER: split folders, class folders, or images with a split.csv."""
    from pipeline.init import write_first_study

    written = write_first_study(folder, output)
    if as_json:
        print_json({"study": str(written.path), "dataset": written.summary})
    elif not quiet:
        click.echo(f"{written.path}: {written.summary}")
        click.echo(f"next: penultimate run {written.path}")


@cli.command()
@click.argument("pattern", default="")
@output_options
def backbones(pattern: str, as_json: bool, quiet: bool) -> None:
    """List the known backbones whose name contains PATTERN: dimension, input, normalisation, ImageNet top-1.

    `penultimate backbones paper` lists the sixteen networks of the paper.
    """
    from pipeline.show_backbones import backbone_rows, backbones_text

    rows = backbone_rows(pattern)
    if not rows:
        raise StudyError(f"no known backbone has {pattern!r} in its name; try a shorter part of it")
    if as_json:
        print_json(rows)
    elif not quiet:
        click.echo(backbones_text(rows))


def _add_commands() -> None:
    """Add the group `penultimate cache` and what runs beside studies."""
    from pipeline.cli_analysis import analyse
    from pipeline.cli_beside import bench, predict
    from pipeline.cli_cache import cache
    from pipeline.cli_datasets import datasets
    from pipeline.cli_keep import gc, remove, restore, verify
    from pipeline.cli_pins import pin
    from pipeline.cli_plan import plan, status
    from pipeline.cli_pretrain import pretrain, studies

    for command in (status, plan, datasets, predict, bench, cache, analyse, pretrain, studies):
        cli.add_command(command)
    for command in (verify, gc, pin, remove, restore):
        cache.add_command(command)


_add_commands()


def main() -> NoReturn:
    """Run the command line and exit with the status of `EPILOG`."""
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):  # a terminal of few letters shows the others as escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, _terminated)
    try:
        _check_neighbours()
        cli.main(prog_name="penultimate", standalone_mode=False)
        sys.exit(EXIT_DONE)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_INPUT)
    except BrokenPipeError:  # `penultimate plan STUDY | head`: whoever reads has seen enough
        sys.stdout = None
        sys.exit(EXIT_DONE)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: everything finished is kept; run the same command again to go on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        _exit_with(error)


def _terminated(number: int, _frame: object) -> NoReturn:
    """Treat SIGTERM and SIGHUP (preemption, a terminal that is gone) as Ctrl-C; a second one is ignored."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _exit_with(error: Exception) -> NoReturn:
    """Say a known error in lines and exit; an unknown one is a bug and keeps its traceback."""
    status = EXIT_INPUT if isinstance(error, StudyError) else _status_of(error)
    if status is None:
        raise error
    for line in str(error).splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(status)


def _status_of(error: Exception) -> int | None:
    """Return the exit status of an error, None for one that nobody foresaw."""
    from cache import CacheError, CacheReadError, CacheWriteError, LockTimeoutError, RemoteError
    from stages.errors import InputError, MissingExtraError

    surroundings = (CacheReadError, CacheWriteError, LockTimeoutError, RemoteError, SurroundingsError)
    if isinstance(error, surroundings):
        return EXIT_SURROUNDINGS
    if isinstance(error, InputError | MissingExtraError | CacheError):
        return EXIT_INPUT
    return EXIT_SURROUNDINGS if isinstance(error, OSError) else None


def _check_neighbours() -> None:
    """Refuse to run where another package called `cache` or `stages` stands before ours."""
    homes = {}
    for name in ("pipeline", "stages", "cache"):
        spec = importlib.util.find_spec(name)
        homes[name] = Path(spec.origin).parent.parent if spec and spec.origin else None
    for name, home in homes.items():
        if home != homes["pipeline"]:
            raise StudyError(
                f"the package {name!r} is found in {home}, not beside penultimate in {homes['pipeline']}: "
                "something else of that name shadows it; give penultimate an environment of its own"
            )


if __name__ == "__main__":
    main()
