from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import pipeline.config as config
from pipeline.budgets import BUDGETS, grid_of, recipe_of
from pipeline.config import Study, load_study
from pipeline.errors import StudyError
from pipeline.tables import LambdaGrid, PinTable, TrainTable

REFERENCE = Path(config.__file__).parent / "studies" / "reference.toml"

GOOD = """
backbones = ["resnet50.a1_in1k"]
datasets = ["digits"]
[study]
name = "s"
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "study.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def mistakes(folder: Path, text: str | bytes) -> list[str]:
    path = write(folder, text)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    lines = list(caught.value.mistakes)
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_short_forms_are_the_long_forms(tmp_path: Path) -> None:
    short = load_study(write(tmp_path, GOOD + "[fine_tune]\nlearning_rates = 0.1\nseeds = 3\n"))
    long = load_study(
        write(
            tmp_path,
            '[study]\nname = "s"\n[[backbone]]\nname = "resnet50.a1_in1k"\n[[dataset]]\nname = "digits"\n'
            "[fine_tune]\nlearning_rates = [0.1]\nseeds = [3]\n",
        )
    )
    assert short == long
    assert short.fine_tune is not None
    assert short.fine_tune.seeds == (3,)


def test_names_and_tables_may_be_mixed_in_one_list(tmp_path: Path) -> None:
    text = 'backbones = ["resnet18", {name = "resnet18", weights = "random", variant = "r"}]\n'
    study = load_study(write(tmp_path, text + 'datasets = ["digits"]\n[study]\nname = "s"\n'))
    assert [table.label for table in study.backbone] == ["resnet18", "resnet18@r"]


def test_paths_are_relative_to_the_study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert load_study(write(tmp_path, GOOD)).output == tmp_path.resolve() / "runs" / "s"
    named = load_study(write(tmp_path, GOOD + 'output = "elsewhere"\n'))
    assert named.output == tmp_path.resolve() / "elsewhere"


def test_every_mistake_is_listed_at_once_with_its_place_and_the_nearest_name(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        """
        [study]
        name = "s"
        outptu = "x"
        [[backbone]]
        name = "resnet50.a1_in1k"
        [[backbone]]
        name = "resnet18"
        wieghts = "random"
        imagenet_top1 = 74.8
        [[dataset]]
        name = "digits"
        metric = "top1"
        [probes]
        [probe]
        folds = 1
        lambdas = { min = 1.0, max = 0.1 }
        [fine_tune]
        budget = "huge"
        [from_scratch]
        learning_rates = [0.1, -1.0]
        """,
    )
    expected = [
        r"study\.outptu: unknown key; did you mean 'output'",
        r"backbone\[2\]\.wieghts: unknown key; did you mean 'weights'",
        r"backbone\[2\]\.imagenet_top1: .*less than 1 \(found 74\.8\)",
        r"dataset\[1\]\.metric: .*'top_1'.*\(found 'top1'\)",
        r"probes: unknown key; did you mean 'probe'",
        r"probe\.folds: .*\(found 1\)",
        r"probe\.lambdas: needs min < max",
        r"fine_tune\.budget: .*'tiny'.*\(found 'huge'\)",
        r"from_scratch: learning_rates holds -1",
    ]
    unmatched = [p for p in expected if not any(re.match(p, line) for line in found)]
    assert not unmatched, "\n".join(found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "study: missing"),
        ("x = [", "not TOML"),
        (b'[study]\nname = "\xff"\n', "not UTF-8 at byte 16"),
        (GOOD.replace("resnet50.a1_in1k", "resnet50.a1_in1"), "did you mean 'resnet50.a1_in1k'"),
        (GOOD.replace('["resnet50.a1_in1k"]', "[]"), "backbone: "),
        (GOOD.replace('["resnet50.a1_in1k"]', '"resnet18"'), "backbone: "),
        (GOOD.replace('["resnet50.a1_in1k"]', '["resnet18", "resnet18"]'), "listed twice"),
        (GOOD.replace('["digits"]', '["digits", "digits"]'), "'digits' is used twice"),
        (GOOD + '[[backbone]]\nname = "resnet18"\n', "two ways to say one thing"),
        (GOOD.replace('"s"', '""'), "study.name: "),
        (GOOD.replace('"s"', '"a/b"'), "study.name: "),
        (GOOD.replace('"s"', '"a\u202eb"'), "study.name: a name holds no control characters and no / "),
        (GOOD.replace('"digits"', '"di\u202egits"'), "dataset[1].name: "),
        (GOOD.replace("backbones", "backbnoes"), "did you mean 'backbones'"),
        ('folder = "x"\n' + GOOD, "folder: unknown key"),
        (GOOD + "[probe]\nfolds = 'five'\n", "probe.folds: "),
        (GOOD + "[probe]\nlambdas = { max = inf }\n", "probe.lambdas.max: "),
        (GOOD + "[probe]\ntolerance = nan\n", "probe.tolerance: "),
        (
            GOOD + "[extract]\nbatch_size = 0\n",
            "extract.batch_size: must be greater than 0 or 'auto' (found 0)",
        ),
        (GOOD + "[slurm]\nmemory = 'lots'\n", "slurm.memory: 'lots' is no amount of memory: write 16G"),
        (
            GOOD + "[probe]\nlambdas = [0.1, 1.0]\n",
            "probe.lambdas: must be a table, { min = ..., max = ..., count = ... } (found [0.1, 1.0])",
        ),
        (
            "probe = 3\n" + GOOD,
            "probe: must be a table, { enabled = ..., selection = ..., folds = ..., ... } (found 3)",
        ),
        (GOOD.replace('["digits"]', "[3]"), "dataset[1]: must be a table, { name = ..., source"),
        (GOOD.replace('["digits"]', '"digits"'), "dataset: must be a list in [ ] (found 'digits')"),
        (GOOD + "[fine_tune]\nlearning_rates = [inf]\n", "fine_tune.learning_rates[1]: "),
        (GOOD + "[fine_tune]\nlearning_rates = []\n", "fine_tune.learning_rates: "),
        (GOOD + "[fine_tune]\nweight_decays = [-1.0]\n", "fine_tune: weight_decays holds -1"),
        (GOOD + "[fine_tune]\ncrop_scale = [0.5, 0.1]\n", "fine_tune: crop_scale must be"),
        (GOOD + "[fine_tune]\nstep = 3\n", "fine_tune.step: unknown key; did you mean 'steps'"),
        (
            GOOD + "[probe]\nlambdas = { cuont = 3 }\n",
            "probe.lambdas.cuont: unknown key; did you mean 'count'",
        ),
    ],
)
def test_one_mistake_is_one_line(tmp_path: Path, text: str | bytes, line: str) -> None:
    found = mistakes(tmp_path, text)
    assert any(line in mistake for mistake in found), found


@pytest.mark.parametrize("place", ["absent.toml", ".", "study.toml/below.toml", "x" * 300])
def test_a_study_file_that_cannot_be_read_is_named(tmp_path: Path, place: str) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(StudyError) as caught:
        load_study(tmp_path / place)
    assert len(caught.value.mistakes) == 1
    assert str(tmp_path / place) in caught.value.mistakes[0]


def test_a_study_does_not_change(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, GOOD))
    with pytest.raises(ValueError, match="frozen"):
        study.probe.folds = 3  # type: ignore[misc]


def test_lambdas_are_the_papers_45_by_default() -> None:
    values = LambdaGrid().values()
    assert len(values) == 45
    assert (values[0], values[-1]) == pytest.approx((1e-6, 1e5))
    assert values[1] / values[0] == pytest.approx(10 ** (11 / 44))
    assert LambdaGrid(min=2, max=2, count=1).values() == pytest.approx((2.0,))


# Budgets


@pytest.mark.parametrize("regime", ["fine_tune", "from_scratch"])
@pytest.mark.parametrize("budget", ["tiny", "quick", "paper"])
def test_a_budget_fills_in_what_the_table_leaves_out(regime: str, budget: Any) -> None:
    numbers = BUDGETS[regime][budget]
    table = TrainTable(budget=budget)
    assert grid_of(table, regime) == (numbers["learning_rates"], numbers["weight_decays"])
    assert (recipe_of(table, regime).steps, recipe_of(table, regime).batch_size) == (
        numbers["steps"],
        numbers["batch_size"],
    )
    changed = TrainTable(budget=budget, steps=7, learning_rates=(0.5,))
    assert grid_of(changed, regime) == ((0.5,), numbers["weight_decays"])
    assert recipe_of(changed, regime).steps == 7
    assert recipe_of(changed, regime).batch_size == numbers["batch_size"]


def test_the_papers_grid_has_56_points() -> None:
    rates, decays = grid_of(TrainTable(budget="paper"), "fine_tune")
    assert (len(rates), len(decays), decays[0]) == (7, 8, 0.0)
    assert (rates[0], rates[-1]) == (1e-4, 1e-1)
    assert (decays[1], decays[-1]) == (1e-6, 1e-3)


def test_a_tiny_budget_has_nothing_to_choose() -> None:
    for regime in BUDGETS:
        assert [len(axis) for axis in grid_of(TrainTable(budget="tiny"), regime)] == [1, 1]


# reference.toml


def tables() -> Iterator[tuple[str, type[BaseModel]]]:
    """Every table of the study file, with its name there."""
    for name, field in Study.model_fields.items():
        if not field.exclude and name != "pin":
            kinds = [k for k in _classes(field.annotation) if issubclass(k, BaseModel)]
            assert len(kinds) == 1, name
            yield name, kinds[0]


def _classes(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _classes(part)


def section(name: str) -> str:
    """The lines of one table of the reference, comments included."""
    text = REFERENCE.read_text(encoding="utf-8")
    parts = re.split(r"^\[\[?(\w+)\]\]?", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]


def shown(value: Any) -> Any:
    """A default as TOML gives it back."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    return [shown(item) for item in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(("name", "model"), list(tables()), ids=lambda v: v if isinstance(v, str) else "")
def test_the_reference_holds_every_key_with_its_default(name: str, model: type[BaseModel]) -> None:
    written = tomllib.loads(REFERENCE.read_text(encoding="utf-8"))[name]
    table: Mapping[str, Any] = written[0] if isinstance(written, list) else written
    for key, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if key in table:
            if default is not PydanticUndefined:
                assert table[key] == shown(default), f"{name}.{key}"
            continue
        assert default is None, f"{name}.{key} has a default and is not shown with it"
        # What both training tables share without a default is explained once.
        places = section(name) + (section("fine_tune") if name == "from_scratch" else "")
        assert re.search(rf"^# {key} = ", places, flags=re.MULTILINE), f"{name}.{key} is not in the reference"
    assert set(table) <= set(model.model_fields)


def test_the_reference_shows_no_key_that_is_unknown() -> None:
    for name, model in tables():
        keys = re.findall(r"^#? ?(\w+) = ", section(name), flags=re.MULTILINE)
        assert set(keys) <= set(model.model_fields), name


def test_the_reference_loads_and_is_all_defaults(tmp_path: Path) -> None:
    study = load_study(REFERENCE)
    empty = "[fine_tune]\n[from_scratch]\n[few_examples]\n[convergence]\n[regularisation]\n"
    plain = load_study(write(tmp_path, GOOD + empty + '[pretrain]\nsource = "digits"\n'))
    for name, _ in tables():
        if name != "study":
            assert getattr(study, name) == getattr(plain, name), name


def test_the_reference_shows_every_key_of_a_pin() -> None:
    """There is no pin of an entry that nobody has: the table is a comment from its head on."""
    text = REFERENCE.read_text(encoding="utf-8").partition("# [[pin]]")[2]
    assert re.findall(r"^#   (\w+) = ", text, flags=re.MULTILINE) == list(PinTable.model_fields)
    table = tomllib.loads(re.sub("^#   ", "", text.partition("\n")[2], flags=re.MULTILINE))
    assert PinTable.model_validate({**table, "content_digest": None}).fingerprint == "abcdef012345"


def test_the_reference_loads_with_its_comments_taken_away(tmp_path: Path) -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    study = load_study(write(tmp_path, text))
    assert study.backbone[0].size == 224
    assert study.fine_tune is not None
    assert study.fine_tune.steps == 500


def test_the_reference_names_the_numbers_of_the_budgets() -> None:
    """Where a comment shows the quick budget's value, it is the quick budget's."""
    for regime in ("fine_tune", "from_scratch"):
        text = section(regime)
        for key in ("learning_rates", "weight_decays", "steps", "batch_size"):
            match = re.search(rf"^# {key} = ([^#\n]+)", text, flags=re.MULTILINE)
            if match:
                assert tomllib.loads(f"v = {match[1]}")["v"] == shown(BUDGETS[regime]["quick"][key]), key


def test_the_demo_loads_and_runs_every_regime() -> None:
    study = load_study(REFERENCE.with_name("demo.toml"))
    assert (len(study.backbone), len(study.dataset)) == (3, 3)
    assert study.probe.enabled
    assert study.fine_tune is not None
    assert study.from_scratch is not None
    assert study.report.limitations
