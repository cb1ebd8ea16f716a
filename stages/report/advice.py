"""What to do, in words: which backbone, how sure, what a cheaper choice costs, where to fine-tune."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from stages.records import Regime
from stages.report.pairwise import LEVEL
from stages.report.table import TransferTable
from stages.report.text import REGIME_NAMES

_CLEAR = 0.1
"""Log odds; less than that between two regimes is called no difference."""


def advice(table: TransferTable, statistics: Mapping[str, Any]) -> list[str]:
    """Return sentences generated from the numbers.

    Parameters
    ----------
    table : TransferTable
    statistics : mapping
        With the keys "regimes" and "regime_comparisons" of :func:`stages.report.statistics.statistics`.

    Returns
    -------
    list of str
        Empty where there are fewer than two backbones with comparable scores.
    """
    said = [line for regime in table.regimes for line in _overall(statistics, regime)]
    said += [line for regime in table.regimes[:2] for line in _per_dataset(table, statistics, regime)]
    said += _shortcuts(table)
    said += _fine_tuning(statistics)
    return said


def _overall(statistics: Mapping[str, Any], regime: Regime) -> Iterator[str]:
    """The best mean of a regime, and which backbones the data sets cannot tell from it."""
    part = statistics["regimes"][regime]
    order = sorted(part["means"], key=lambda name: -part["means"][name]["mean_log_odds"])
    left_out, among = part["left_out"], _among(part)
    if len(order) < 2:
        if len(left_out) + len(order) > 1 and part["datasets"]:
            yield f"{REGIME_NAMES[regime]}: {among}, so no best mean is named"
        return
    best = part["correlation"]["best"]
    how = ", by the additive model," if part["rule"].startswith("additive model") else ""
    lead = f"{best} has the highest mean{how} over {_count(part['datasets'], 'data set')}"
    lead = f"{REGIME_NAMES[regime]}: {f'{among}; of them ' if left_out else ''}{lead}"
    gaps = f"; left out for gaps: {_list(left_out)}" if left_out else ""
    rest = ", ".join(_standing(part))
    if part["correlation"]["ties_with_best"] is None:
        rest = f", {rest}" if rest else ""
        yield f"{lead}{rest}; with fewer than three common data sets nothing is said of how sure that is{gaps}"
        return
    yield f"{lead}{_lead(part, best, order[1])}, {rest} (paired t over data sets, raw p against {LEVEL}){gaps}"


def _among(part: Mapping[str, Any]) -> str:
    """How many backbones have a mean, and why not all."""
    has, every = len(part["means"]), len(part["means"]) + len(part["left_out"])
    if part["rule"].startswith("additive model"):
        return f"{has} of {every} backbones {'is' if has == 1 else 'are'} linked by common data sets"
    return f"{has or 'none'} of {every} backbones {'has' if has < 2 else 'have'} a score on every data set"


def _standing(part: Mapping[str, Any]) -> Iterator[str]:
    """Whom the best mean is ahead of, and whom not."""
    correlation = part["correlation"]
    best, ahead, untested = correlation["best"], correlation["ahead_of_best"], correlation["not_tested"]
    close = correlation["ties_with_best"]
    if close is not None:
        others = [name for name in close if name != best and name not in ahead]
        clear = len(part["means"]) - len(close) - len(untested)
        some = ahead or untested or part["left_out"]
        if others:
            yield f"not significantly ahead of {_list(others)}"
        elif clear:
            yield f"significantly ahead of {others_in_words(clear) if some else 'every other'}"
    if ahead:
        yield f"significantly behind {_list(ahead)} on their common data sets"
    if untested and close is not None:
        yield f"not compared with {_list(untested)} for want of three common data sets"


def _lead(part: Mapping[str, Any], best: str, second: str) -> str:
    """By how much the best mean is ahead of the next on their common data sets, with its interval."""
    for test in part["paired_t_tests"]:
        if {test["first"], test["second"]} == {best, second} and test["interval"] is not None:
            sign = 1 if test["first"] == best else -1
            low, high = sorted(sign * end for end in test["interval"])
            odds = f"{sign * test['mean']:+.2f} log odds [{low:+.2f}, {high:+.2f}]"
            some = test["datasets"] < len(part["datasets"])
            where = f", over their {test['datasets']} common data sets" if some else ""
            return f" ({odds} against {second}, the next{where})"
    return ""


def _per_dataset(table: TransferTable, statistics: Mapping[str, Any], regime: Regime) -> Iterator[str]:
    """Who is best on which data sets, and how often the test images cannot tell."""
    values = table.matrix(regime, "value")
    compared = {
        name: part
        for name, part in statistics["regimes"][regime]["per_dataset"].items()
        if part["best"] is not None and values[name].notna().sum() >= 2
    }
    winners: dict[str, list[str]] = {}
    for name in compared:
        winners.setdefault(_best_of(values[name]), []).append(name)
    if not winners:
        return
    order = sorted(winners, key=lambda name: -len(winners[name]))
    words = "; ".join(f"{name} on {_list(winners[name])}" for name in order)
    tested = [part for part in compared.values() if part["ties_with_best"] is not None]
    tied = [part for part in tested if set(part["ties_with_best"]) - {part["best"], *part["ahead_of_best"]}]
    sure = (
        f"; on {len(tied)} of {len(tested)} data sets another is not significantly different from the best"
        if tested
        else ""
    )
    against = [name for name, part in compared.items() if part["ahead_of_best"]]
    sure += (
        f"; on {_list(against)} the lowest seeds, which are tested, contradict the means" if against else ""
    )
    yield f"{REGIME_NAMES[regime]}, the best on single data sets: {words}{sure}"


def _best_of(values: pd.Series[float]) -> str:
    """Name the backbone with the highest score, or all that share it."""
    equal = sorted(str(name) for name in values.index[values == values.max()])
    return equal[0] if len(equal) == 1 else f"{_list(equal)} (equal scores)"


def _shortcuts(table: TransferTable) -> Iterator[str]:
    """What choosing by the probe, or by ImageNet top-1, would have lost after fine-tuning."""
    if "fine_tune" not in table.regimes:
        return
    tuned = table.matrix("fine_tune", "value")
    if "linear_probe" in table.regimes:
        yield from _loss("the linear probe", table.matrix("linear_probe", "value"), tuned)
    known = {name: value for name, value in table.imagenet_top1.items() if value is not None}
    if len(known) == len(table.backbones):
        guide = pd.DataFrame({name: pd.Series(known) for name in tuned.columns})
        yield from _loss("ImageNet top-1", guide, tuned)


def _loss(guide: str, chooser: pd.DataFrame, tuned: pd.DataFrame) -> Iterator[str]:
    """How far the guide's choice stays behind the best fine-tuned backbone, data set by data set.

    Where the guide cannot tell several apart, the mean over them counts: no order of names decides.
    """
    losses: dict[str, float] = {}
    undecided = 0
    for name in tuned.columns:
        both = pd.DataFrame({"guide": chooser[name], "tuned": tuned[name]}).dropna().to_numpy(dtype=float)
        if len(both) >= 2:
            chosen = both[both[:, 0] == both[:, 0].max(), 1]
            losses[str(name)] = 100 * float(both[:, 1].max() - chosen.mean())
            undecided += len(chosen) > 1
    if not losses:
        return
    right = sum(loss == 0 for loss in losses.values())
    worst = max(losses, key=lambda name: losses[name])
    mean = sum(losses.values()) / len(losses)
    costs = f"; it costs {mean:.1f} points on average, {losses[worst]:.1f} on {worst}, the worst"
    ties = f"; on {undecided} it cannot tell several apart, their mean counts" if undecided else ""
    yield (
        f"choosing the backbone to fine-tune by {guide} finds the best one on {right} of {len(losses)} "
        f"data sets{costs if right < len(losses) else ''}{ties} (judged by the test scores themselves)"
    )


def _fine_tuning(statistics: Mapping[str, Any]) -> Iterator[str]:
    """Where fine-tuning pays, data set by data set."""
    for c in statistics["regime_comparisons"]:
        if (c["first"], c["second"]) != ("fine_tune", "linear_probe") or not c["per_dataset"]:
            continue
        gains = sorted(c["per_dataset"].items(), key=lambda item: -item[1])
        pays = [f"{name} ({gain:+.2f})" for name, gain in gains if gain > _CLEAR]
        harms = [f"{name} ({gain:+.2f})" for name, gain in gains if gain < -_CLEAR]
        same = [name for name, gain in gains if abs(gain) <= _CLEAR]
        parts = [
            f"it gains on {_list(pays)}" if pays else "it gains clearly on no data set",
            *([f"loses on {_list(harms)}"] if harms else []),
            *([f"makes less than {_CLEAR} of a difference on {_list(same)}"] if same else []),
        ]
        yield f"fine-tuning against the linear probe, mean log odds over backbones: {'; '.join(parts)}"


def _list(names: Sequence[str], most: int = 6) -> str:
    """Names in a row; beyond a handful, how many more."""
    shown = list(names[:most])
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def others_in_words(number: int) -> str:
    """How many others."""
    return f"{number} other" if number == 1 else f"{number} others"


def _count(items: Sequence[str], noun: str) -> str:
    """Number and noun."""
    return f"{len(items)} {noun}" if len(items) == 1 else f"{len(items)} {noun}s"
