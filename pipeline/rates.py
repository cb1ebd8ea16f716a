"""How fast hardware is: the constants behind every estimate, and where each comes from.

A forward pass of one image is taken to cost::

    GMACs x gmac  +  mega-activations x activation  +  layers x layer / rows of a call

multiplications, memory traffic and the calls of the layers. A training step has three constants of its own,
which hold its forward and backward pass and the optimiser. The three of the CPU are fitted to measured networks
(least squares of relative errors, none negative); those of GPUs are computed from published peak rates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import StudyError
from pipeline.executors import worker_count
from stages.costs import ForwardCost
from stages.names import did_you_mean


@dataclass(frozen=True)
class Rates:
    """Seconds on one unit of hardware: a CPU core, or a whole GPU."""

    gmac: float
    """A thousand million multiplications with addition, float32."""
    activation: float
    """A million values that layers put out, float32."""
    layer: float
    """Calling one layer once, whatever the rows."""
    rows: int
    """Of one call; a training step is one call, whatever this says."""

    def image(self, cost: ForwardCost, rows: int | None = None) -> float:
        """Return the seconds of one image."""
        calls = cost.layers * self.layer / (rows or self.rows)
        return cost.gmacs * self.gmac + cost.mega_activations * self.activation + calls


CORE_FORWARD = Rates(gmac=24.3e-3, activation=1.20e-3, layer=0.161e-3, rows=8)
"""Batch norms folded, convolutions packed; pieces have 4 to 16 rows and are reckoned with 8. Seventeen networks of
0.02 to 15 GMACs at 64 to 299 pixels, 2 to 351 ms an image: all within 27 %."""
CORE_TRAINING = Rates(gmac=115e-3, activation=12.7e-3, layer=1.9e-3, rows=32)
"""Forward, backward and optimiser: twice a fit to six networks at 32 to 224 pixels in batches of 8 to 32 on an AMD
core, where all are within 20 % of the fit. On two Intel cores the demo's trainings took 2.1 to 2.5 times the fit side
by side, 1.4 times alone; a study at 64 pixels there up to 4 times."""

DECODE_FILE = 0.09e-3
"""Opening an image file and what is the same for every image, seconds of a core."""
DECODE_SOURCE = 13e-3
"""Decoding and shrinking a million pixels of JPEG with Pillow, seconds of a core."""
DECODE_INPUT = 9e-3
"""Writing a million pixels of the network's input, seconds of a core. Five image sets: all within 22 %."""
CROP_SOURCE = 4.6e-3
"""Cutting a random crop out of an image of a million pixels that is decoded already, seconds of a core."""

PROBE = {
    "scale": 2.54e-7,
    "rows": 1.02,
    "dimension": 0.595,
    "classes": 0.667,
    "lambdas": 0.286,
    "fits": 0.682,
}
"""Seconds of a core = scale x n^rows x d^dimension x K^classes x lambdas^... x (folds + 1)^fits: a power law
fitted to twenty problems (n 200 to 10,000, d 256 to 2048, K 2 to 101): all within a factor of 1.7."""

PROBE_BESIDE = 0.2
"""Reading the features of a probe and writing its record, seconds of a core."""
START_TORCH = 4.0
"""A process that loads torch and timm and builds its first network, seconds."""
START_PROBE = 1.5
"""A process that loads numpy, scipy and scikit-learn, seconds."""
BUILD = 0.1e-6
"""Building a network, folding its batch norms and loading its weights: seconds a parameter."""
PUBLISH = 0.3
"""Writing, proving and publishing a cached entry in a process of its own, seconds beside its bytes."""
JOIN = 3.0
"""Loading matplotlib and drawing, seconds."""
JOIN_CELL = 0.3
"""What one more backbone on one more data set adds to the join, seconds."""


@dataclass(frozen=True)
class Gpu:
    """Published peak rates of a GPU."""

    title: str
    tflops: Mapping[str, float]
    """Dense, by precision."""
    bandwidth: float
    """TB/s."""
    cores: int
    """CPU cores beside it that are reckoned with where the name says no number."""

    @property
    def source(self) -> str:
        """What an estimate says of it."""
        return (
            f"{self.title}: not measured, from published peak rates ({self.tflops['float32']:g} TFLOPS float32, "
            f"{self.bandwidth:g} TB/s) at {EFFICIENCY:.0%} of the peak; decoding as measured on one CPU"
        )

    def rates(self, precision: str, *, training: bool) -> Rates:
        """Return what the peaks would allow, reduced to what convolutions are wont to reach."""
        tflops = self.tflops.get(precision, self.tflops["float32"])
        width = 2 if precision in ("bfloat16", "float16") else 4
        traffic = TRAFFIC * width / (self.bandwidth * 1e6)
        more = 3 if training else 1
        return Rates(
            gmac=more * 2e-3 / (tflops * EFFICIENCY), activation=more * traffic, layer=more * LAUNCH, rows=64
        )


EFFICIENCY = 0.35
"""Share of a GPU's peak that is reckoned with: an assumption, not a measurement."""
TRAFFIC = 5
"""How often a layer's output travels between a GPU and its memory (written, normalised, activated, read)."""
LAUNCH = 20e-6
"""Seconds of a GPU between the beginnings of two layers, at least."""

GPUS: Mapping[str, Gpu] = {
    "h200": Gpu("NVIDIA H200", {"float32": 67, "tf32": 494, "bfloat16": 989, "float16": 989}, 4.8, 16),
    "h100": Gpu("NVIDIA H100 SXM", {"float32": 67, "tf32": 494, "bfloat16": 989, "float16": 989}, 3.35, 16),
    "a100": Gpu(
        "NVIDIA A100 80 GB", {"float32": 19.5, "tf32": 156, "bfloat16": 312, "float16": 312}, 2.0, 16
    ),
}
"""Peak rates as the maker's data sheets have them, without sparsity."""

MEASURED_ON = (
    "an AMD EPYC core of 2024 (Zen 4, AVX-512, 2.6 GHz), torch 2.15; training at half its speed, as on an Intel Xeon "
    "of 2023"
)
CPU_FACTOR = 2.0
"""What is claimed for a CPU that has nothing else to do; it was held against two kinds of core."""
GPU_FACTOR = 3.0
"""What is claimed for a GPU: none was measured."""


@dataclass(frozen=True)
class Hardware:
    """One machine, which does one stage's work at a time with all it has."""

    name: str
    """"cpu-2", "h200-16": what `--hardware` takes."""
    cores: int
    gpu: Gpu | None
    source: str
    """Where its rates come from."""
    factor: float
    """The estimate is claimed to be within this factor of the truth."""
    here: bool = False
    """Whether it is the machine that this runs on."""

    def rates(self, precision: str, *, on_gpu: bool, training: bool) -> Rates:
        """Return the rates of its GPU, or of one of its cores."""
        if on_gpu and self.gpu is not None:
            return self.gpu.rates(precision, training=training)
        return CORE_TRAINING if training else CORE_FORWARD


def hardware(name: str | None = None) -> Hardware:
    """Return the hardware of a name, or this machine's.

    Parameters
    ----------
    name : str, optional
        "cpu-N", or a GPU's name with the cores beside it or without: "h200", "a100-32".

    Raises
    ------
    StudyError
        Nothing is known of hardware of that name.

    Examples
    --------
    >>> hardware("cpu-8").cores, hardware("h200").factor
    (8, 3.0)
    """
    if name is None:
        return _this_machine()
    found = re.fullmatch(r"([a-z][a-z0-9]*?)(?:-([1-9]\d{0,3}))?", name.lower())
    kind, cores = (found[1], int(found[2] or 0)) if found else (name, 0)
    if kind == "cpu":
        if not cores:
            raise StudyError(f"--hardware is {name!r}: say how many cores, such as cpu-2 or cpu-16")
        return Hardware(name.lower(), cores, None, f"measured on {MEASURED_ON}", CPU_FACTOR)
    if kind not in GPUS:
        near = did_you_mean(kind, [*GPUS, "cpu"])
        raise StudyError(
            f"--hardware is {name!r}, of which no rates are known{near}: cpu-N, {', '.join(GPUS)}"
        )
    gpu = GPUS[kind]
    cores = cores or gpu.cores
    return Hardware(f"{kind}-{cores}", cores, gpu, gpu.source, GPU_FACTOR)


def _this_machine() -> Hardware:
    """Return the machine that this runs on, told without loading torch."""
    cores = worker_count(None)
    model = _gpu_model()
    if model is None:
        return replace(hardware(f"cpu-{cores}"), here=True)
    kind = next((kind for kind in GPUS if kind in model.lower()), None)
    if kind is not None:
        return replace(hardware(f"{kind}-{cores}"), here=True)
    stand_in = replace(hardware(f"a100-{cores}"), here=True)
    return replace(
        stand_in, source=f"no rates of {model} are known, those of another GPU are taken; {stand_in.source}"
    )


def _gpu_model() -> str | None:
    """Return the name of the first NVIDIA GPU as its driver has it; None where there is none."""
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return "this GPU" if Path("/dev/nvidia0").exists() else None


def probe_seconds(n: int, d: int, classes: int, lambdas: int, fits: int) -> float:
    """Return the seconds of one core for a linear probe, selection and refit.

    Parameters
    ----------
    n, d, classes, lambdas : int
        Rows that are fitted, dimension, classes (or labels), strengths to be scored.
    fits : int
        Fits at each strength: the folds, or 1 with validation; the refit is counted here.
    """
    law = PROBE
    seconds = law["scale"] * n ** law["rows"] * d ** law["dimension"] * max(classes, 2) ** law["classes"]
    return float(seconds * max(lambdas, 1) ** law["lambdas"] * (fits + 1) ** law["fits"])


def decode_seconds(source_megapixels: float, size: int) -> float:
    """Return the seconds of one core that it takes to decode an image and bring it to the input size."""
    return DECODE_FILE + DECODE_SOURCE * source_megapixels + DECODE_INPUT * size * size / 1e6


def crop_seconds(source_megapixels: float, size: int) -> float:
    """Return the seconds of one core that a random resized crop of a decoded image takes."""
    return DECODE_FILE + CROP_SOURCE * source_megapixels + DECODE_INPUT * size * size / 1e6
