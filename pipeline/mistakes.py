"""A study file's mistakes, in its own words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline import tables, tables_experiments
from pipeline.config import Study
from pipeline.mistakes_experiments import experiment_mistakes
from pipeline.pins import pin_mistakes
from stages.names import UNSHOWN, did_you_mean

TABLES: Mapping[str, type[tables.Table]] = {
    "study": tables.StudyTable,
    "backbone": tables.BackboneTable,
    "dataset": tables.DatasetTable,
    "extract": tables.ExtractTable,
    "probe": tables.ProbeTable,
    "lambdas": tables.LambdaGrid,
    "fine_tune": tables.TrainTable,
    "from_scratch": tables.TrainTable,
    "few_examples": tables_experiments.FewExamplesTable,
    "convergence": tables_experiments.ConvergenceTable,
    "pretrain": tables_experiments.PretrainTable,
    "setting": tables_experiments.SettingTable,
    "regularisation": tables_experiments.RegularisationTable,
    "report": tables.ReportTable,
    "execution": tables.ExecutionTable,
    "slurm": tables.SlurmTable,
    "pin": tables.PinTable,
}
"""The table behind each key of the study file."""


_UNION = re.compile(r"constrained-|literal\[|(int|float|str|bool)$")
"""How pydantic calls the members of a union that a value might have been."""


def explain(error: ValidationError) -> Iterator[str]:
    """Turn pydantic's errors into lines of the study file's own words."""
    either: dict[str, list[str]] = {}
    for item in error.errors():
        if isinstance(tag := item["loc"][-1] if item["loc"] else 0, str) and _UNION.match(tag):
            place = _place(item["loc"][:-1])
            either.setdefault(f"{place}|{item['input']!r}", []).append(
                item["msg"].removeprefix("Input should be ")
            )
            continue
        place = _place(item["loc"])
        if item["type"] == "extra_forbidden":
            key = str(item["loc"][-1])
            yield f"{place}: unknown key{did_you_mean(key, _keys_beside(item['loc']))}"
        elif item["type"] == "missing":
            yield f"{place}: missing"
        elif item["type"] == "value_error":
            yield f"{place}: {item['ctx']['error']}" if place else str(item["ctx"]["error"])
        elif item["type"] in ("model_type", "model_attributes_type"):
            yield f"{place}: must be a table, {_form(item['loc'])} (found {item['input']!r})"
        elif item["type"] == "string_pattern_mismatch" and UNSHOWN in item["ctx"]["pattern"]:
            also = " and no / or \\, and begins with no dot" if item["loc"] == ("study", "name") else ""
            yield f"{place}: a name holds no control characters{also} (found {item['input']!a})"
        elif item["type"] == "tuple_type":
            yield f"{place}: must be a list in [ ] (found {item['input']!r})"
        else:
            yield f"{place}: {item['msg'][:1].lower()}{item['msg'][1:]} (found {item['input']!r})"
    for where, messages in either.items():
        place, _, found = where.partition("|")
        yield f"{place}: must be {' or '.join(messages)} (found {found})"


def _place(location: tuple[int | str, ...]) -> str:
    """Write pydantic's location as TOML people would: backbone[2].weights."""
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _form(location: tuple[int | str, ...]) -> str:
    """Return the beginning of a table as TOML people would write it."""
    model = TABLES[[part for part in location if isinstance(part, str)][-1]]
    keys = list(model.model_fields)
    return f"{{ {', '.join(f'{key} = ...' for key in keys[:3])}{', ...' if len(keys) > 3 else ''} }}"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are known where an unknown one stood."""
    model: type[BaseModel] = Study
    for part in location[:-1]:
        if isinstance(part, str):
            model = TABLES.get(part, model)
    keys = [name for name, field in model.model_fields.items() if not field.exclude]
    return [*keys, "backbones", "datasets"] if model is Study else keys


def unknown_backbones(raw: Mapping[str, Any]) -> Iterator[str]:
    """Look names up even where the rest of the file is wrong, so that one look mends all."""
    tables = raw.get("backbone", raw.get("backbones"))
    for i, item in enumerate(tables if isinstance(tables, list) else (), start=1):
        name = item.get("name") if isinstance(item, Mapping) else item
        cached = isinstance(item, Mapping) and item.get("weights") == "cached"
        if isinstance(name, str) and name and not cached:
            yield from _unknown_backbone(i, name)


def _unknown_backbone(i: int, name: str) -> Iterator[str]:
    """Say that a name is no backbone's, with the nearest known ones."""
    from stages.backbones import lookup
    from stages.errors import BackboneError

    try:
        lookup(name)
    except BackboneError as error:
        yield f"backbone[{i}].name: {error}"


def name_mistakes(study: Study) -> Iterator[str]:
    """Unknown backbones, and names that stand for two things."""
    seen: set[str] = set()
    for i, backbone in enumerate(study.backbone, start=1):
        if backbone.weights != "cached":
            yield from _unknown_backbone(i, backbone.name)
        if backbone.label in seen:
            yield f'backbone[{i}]: {backbone.label!r} is listed twice; tell them apart with variant = "..."'
        seen.add(backbone.label)
    seen.clear()
    for i, dataset in enumerate(study.dataset, start=1):
        if dataset.name in seen:
            yield f"dataset[{i}].name: {dataset.name!r} is used twice; every data set needs its own name"
        seen.add(dataset.name)
    yield from pin_mistakes(study)
    yield from experiment_mistakes(study)
