"""Seconds of the single jobs on some hardware: extraction passes, probes, trainings.

What a study is estimated by; the rates stand in `pipeline.rates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cache import CacheError, Store
from pipeline.image_sizes import ImageSizes
from pipeline.jobs import ExtractJob, ProbeJob, TrainJob
from pipeline.rates import BUILD, PUBLISH, Hardware, crop_seconds, decode_seconds, probe_seconds
from stages.backbones import lookup
from stages.costs import forward_cost
from stages.errors import BackboneError
from stages.records import Backbone, Split, SplitName

_PARAMETERS = 25_000_000
"""Taken for a network of which nothing is known: ResNet-50's."""


@dataclass
class Clock:
    """Knows how long jobs take on one machine."""

    hardware: Hardware
    sizes: ImageSizes = field(default_factory=ImageSizes)

    def on_gpu(self, device: str) -> bool:
        """Whether jobs with this device setting run on a GPU there."""
        return device != "cpu" and self.hardware.gpu is not None

    def extraction(self, jobs: Sequence[ExtractJob]) -> float:
        """Return the seconds of a pass of one or more backbones over the same images, on the whole machine."""
        if jobs[0].twins:
            return PUBLISH
        builds = sum(BUILD * parameters(job.backbone) for job in jobs)
        publish = PUBLISH * len(jobs) / self.hardware.cores
        return builds + publish + len(jobs[0].split) * self.pass_image(jobs)

    def pass_image(self, jobs: Sequence[ExtractJob]) -> float:
        """Return the seconds of one image in a pass: both on the CPU, the slower of the two beside a GPU."""
        job, on_gpu = jobs[0], self.on_gpu(jobs[0].device)
        rates = self.hardware.rates(job.precision, on_gpu=on_gpu, training=False)
        size = job.backbone.preprocessing.size
        decode = decode_seconds(self.sizes.megapixels(job.dataset, job.split), size)
        forward = sum(rates.image(forward_cost(member.backbone.name, size)) for member in jobs)
        if on_gpu:
            return max(decode / (job.num_workers or self.hardware.cores), forward)
        return (decode + forward) / self.hardware.cores

    def training(self, job: TrainJob, *, steps: int | None = None, final: bool | None = None) -> float:
        """Return the seconds of a training and its scoring: of one core, or of a whole GPU.

        Parameters
        ----------
        job : TrainJob
        steps : int, optional
            Instead of the job's own: a rung of a search that is not planned yet.
        final : bool, optional
            Instead of the job's own: the final training that follows a search.
        """
        recipe, on_gpu = job.recipe, self.on_gpu(job.recipe.device)
        rates = self.hardware.rates(recipe.precision, on_gpu=on_gpu, training=True)
        size = recipe.image_size or job.backbone.preprocessing.size
        cost = forward_cost(job.backbone.name, size)
        splits, scored = rows_of(job, final)
        megapixels = self.sizes.megapixels(job.dataset.name, splits[0])
        images = (steps or recipe.steps) * recipe.batch_size
        crop = crop_seconds(megapixels, size)
        if store_bytes(splits, self.sizes, job.dataset.name) > recipe.image_memory:
            crop += decode_seconds(megapixels, 0)
        look = self.hardware.rates(recipe.precision, on_gpu=on_gpu, training=False).image(cost)
        seconds = images * rates.image(cost, recipe.micro_batch_size or recipe.batch_size)
        seconds += len(scored) * look + BUILD * parameters(job.backbone)
        beside = images * crop + len(scored) * decode_seconds(megapixels, size)
        return max(seconds, beside / self.hardware.cores) if on_gpu else seconds + beside

    def decoding(self, job: TrainJob) -> float:
        """Return the seconds of one core for decoding the training images once, for all jobs."""
        splits, _ = rows_of(job, None)
        return sum(
            len(split) * decode_seconds(self.sizes.megapixels(job.dataset.name, split), 0) for split in splits
        )


def probe_job_seconds(job: ProbeJob | None, n: int, d: int, classes: int, settings: dict[str, int]) -> float:
    """Return the seconds of one core for a probe; lambdas that were scored before are not scored again."""
    lambdas = settings["lambdas"]
    if job is not None and job.known is not None:
        known = {f"{row.l2_lambda:.9g}" for row in job.known.rows}
        lambdas = sum(f"{value:.9g}" not in known for value in job.settings["lambdas"])
    return probe_seconds(n, d, classes, lambdas, settings["fits"])


def cached_shape(store: Store, job: ProbeJob) -> tuple[int, int, int] | None:
    """Return rows, dimension and classes of the features that a probe is fitted to, None where they are gone."""
    try:
        infos = [store.info(key) for split, key in job.entries.items() if split != "test"]
    except CacheError:
        return None
    return sum(info.rows for info in infos), infos[0].dimension, infos[0].classes


def rows_of(job: TrainJob, final: bool | None) -> tuple[list[Split], Split]:
    """Return the splits that a job is fitted to and the one it is scored on."""
    splits = job.dataset.splits
    fit_on, score_on = job.fit_on, job.score_on
    if final:
        fit_on = tuple(name for name in _FITTED if name in splits)
        score_on = "test"
    return [splits[name] for name in fit_on], splits[score_on]


_FITTED: tuple[SplitName, ...] = ("train", "validation")


def store_bytes(splits: Sequence[Split], sizes: ImageSizes, dataset: str) -> float:
    """Return the bytes of the decoded images of some splits."""
    return sum(3e6 * sizes.megapixels(dataset, split) * len(split) for split in splits)


def parameters(backbone: Backbone) -> int:
    """Return how many a network has, without its classifier; a guess where nothing is known of it."""
    try:
        return lookup(backbone.name).parameters or _PARAMETERS
    except BackboneError:
        return _PARAMETERS
