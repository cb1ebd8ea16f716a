"""What a study pins, and what is wrong with its pins as they are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pipeline.config import Study
from pipeline.tables import PinTable
from stages.names import did_you_mean
from stages.records import SplitName

Spot = tuple[str, str, SplitName]
"""Label of a backbone, name of a data set, split: what an entry stands for in a study."""


def pins_of(study: Study) -> Mapping[Spot, PinTable]:
    """Return the pins of the study file and of its lock; where both pin one spot, all that the two say."""
    pins = {pin.place: pin for pin in study.lock}
    for pin in study.pin:
        locked = pins.get(pin.place)
        if locked is None or not locked.fingerprint.startswith(pin.fingerprint):
            pins[pin.place] = pin
        elif pin.content_digest is not None:
            pins[pin.place] = locked.model_copy(update={"content_digest": pin.content_digest})
    return pins


def with_pins(study: Study, pins: Iterable[PinTable]) -> Study:
    """Return the study as if its lock held these pins too."""
    locked = {pin.place: pin for pin in (*study.lock, *pins)}
    return study.model_copy(update={"lock": tuple(locked.values())})


def pin_mistakes(study: Study) -> Iterator[str]:
    """Pins of the study file for what it does not hold, and pins that contradict each other or the lock.

    A lock may hold more than the study: what it pins of backbones and data sets that were taken out is
    passed over.
    """
    backbones = [table.label for table in study.backbone]
    datasets = [table.name for table in study.dataset]
    locked = {pin.place: pin for pin in study.lock}
    seen = set()
    for i, pin in enumerate(study.pin, start=1):
        for key, known in (("backbone", backbones), ("dataset", datasets)):
            name = getattr(pin, key)
            if name not in known:
                yield f"pin[{i}].{key}: {name!r} is not in the study{did_you_mean(name, known)}"
        if pin.place in seen:
            yield f"pin[{i}]: {' / '.join(pin.place)} is pinned twice; keep one"
        seen.add(pin.place)
        other = locked.get(pin.place)
        if other is not None and not _agree(pin, other):
            yield (
                f"pin[{i}]: {' / '.join(pin.place)} is pinned as {pin.fingerprint[:12]} here and as "
                f"{other.fingerprint[:12]} in the lock; take one of them out"
            )


def _agree(one: PinTable, other: PinTable) -> bool:
    """Whether two pins can be met by one entry."""
    shorter, longer = sorted((one.fingerprint, other.fingerprint), key=len)
    digests = {one.content_digest, other.content_digest} - {None}
    return longer.startswith(shorter) and len(digests) < 2
