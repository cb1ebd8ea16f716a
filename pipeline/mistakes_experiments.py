"""What can be wrong with the tables of the other experiments before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.config import Study
from stages.names import did_you_mean


def experiment_mistakes(study: Study) -> Iterator[str]:
    """Unknown data sets, and experiments with nothing to run."""
    names = [dataset.name for dataset in study.dataset]
    trains = study.fine_tune is not None or study.from_scratch is not None
    if study.few_examples is not None:
        yield from _unknown("few_examples", study.few_examples.datasets, names)
        if not (study.probe.enabled or trains):
            yield "few_examples: no regime to compare; enable the probe or add [fine_tune] or [from_scratch]"
    if study.convergence is not None:
        yield from _unknown("convergence", study.convergence.datasets, names)
        if not trains:
            yield "convergence: nothing is trained; add [fine_tune], [from_scratch] or both"
    if study.pretrain is not None:
        yield from _unknown("pretrain", [study.pretrain.source], names, key="source")
    if study.regularisation is not None:
        yield from _unbased(study, study.regularisation.variants)


def _unbased(study: Study, variants: Sequence[str]) -> Iterator[str]:
    """Say which networks cannot be compared: those that have later settings but not the first."""
    settings: dict[str, set[str]] = {}
    for backbone in study.backbone:
        setting = setting_of(backbone.variant, variants)
        if setting is not None:
            settings.setdefault(backbone.name, set()).add(setting)
    for name, found in settings.items():
        if variants[0] not in found:
            yield (
                f"regularisation: {name} has the variant {sorted(found)[0]!r} but not the first, {variants[0]!r}, "
                "which the others are compared with; add it, or change the order of variants"
            )


def setting_of(variant: str, settings: Sequence[str]) -> str | None:
    """Return which setting a backbone's variant is: "no-dropout", or "no-dropout,seed=1" of several seeds."""
    name = variant.partition(",seed=")[0]
    return name if name in settings else None


def _unknown(
    place: str, wanted: Sequence[str] | None, names: Sequence[str], *, key: str = ""
) -> Iterator[str]:
    """Say which data sets are not the study's."""
    for i, name in enumerate(wanted or (), start=1):
        if name not in names:
            yield f"{place}.{key or f'datasets[{i}]'}: the study has no data set {name!r}{did_you_mean(name, names)}"
