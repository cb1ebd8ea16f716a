"""The walls of the house: who may import whom, and what a command that needs no torch never loads."""

from __future__ import annotations

import ast
import json
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cache", "stages", "pipeline")
MAY_IMPORT = {"cache": {"cache"}, "stages": {"cache", "stages"}, "pipeline": set(PACKAGES)}
SEPARATE = {"extract", "probe", "train", "analysis", "report"}
TORCH = {"torch", "torchvision", "timm"}
WITH_TORCH = {"stages/vision", "stages/extract", "stages/train"}
PLAIN_WAY = ("pipeline/bench.py", "pipeline/bench_train.py")
"""Measure the stages beside the plain way to do their work, which is plain torch; never at load."""
HEAVY = TORCH | {"matplotlib", "pandas", "plotly", "scipy", "sklearn", "skimage", "statsmodels", "joblib"}
OF_CACHE = set(sys.stdlib_module_names) | {"numpy", "h5py", "filelock", "fsspec", "cache"}


@dataclass(frozen=True)
class Import:
    """One import statement."""

    file: str
    line: int
    module: str
    """Dotted, with the imported name where it may be a module."""
    at_load: bool
    """Whether it runs when its module is imported."""

    @property
    def root(self) -> str:
        """The top-level package."""
        return self.module.partition(".")[0]

    @property
    def room(self) -> str:
        """Folder of the importing file: "stages/probe", or "stages" for what stands at its top."""
        return str(Path(self.file).parent)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports_of(file: Path) -> Iterator[Import]:
    """Every import of a file, wherever it stands."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    yield from _walk(tree, str(file.relative_to(ROOT)), at_load=True)


def _walk(node: ast.AST, file: str, *, at_load: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(file, child.lineno, alias.name, at_load)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{file}:{child.lineno} is a relative import"
            for alias in child.names:
                yield Import(file, child.lineno, f"{child.module}.{alias.name}", at_load)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for inner in ast.walk(child):
                # For the type checker only: it counts for who knows whom, not for what is loaded.
                if isinstance(inner, ast.ImportFrom):
                    for alias in inner.names:
                        yield Import(file, inner.lineno, f"{inner.module}.{alias.name}", at_load=False)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, file, at_load=at_load and not function)


IMPORTS = [
    found
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
    for found in imports_of(file)
]


def test_the_walk_sees_the_house() -> None:
    assert {found.file.partition("/")[0] for found in IMPORTS} == set(PACKAGES)
    assert any(found.room == "stages/vision" and found.root == "torch" for found in IMPORTS)
    assert any(found.room == "pipeline" and not found.at_load for found in IMPORTS)
    assert any(found.root == "h5py" for found in IMPORTS)


def test_imports_run_from_pipeline_to_stages_to_cache() -> None:
    wrong = [
        found
        for found in IMPORTS
        if found.root in PACKAGES and found.root not in MAY_IMPORT[found.file.partition("/")[0]]
    ]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_rooms_of_the_stages_do_not_import_each_other() -> None:
    wrong = []
    for found in IMPORTS:
        own = found.room.removeprefix("stages/")
        parts = found.module.split(".")
        if own in SEPARATE and parts[0] == "stages" and parts[1] in SEPARATE - {own}:
            wrong.append(found)
    assert not wrong, "\n".join(map(str, wrong))


def test_only_vision_extract_and_train_import_torch() -> None:
    wrong = [
        found
        for found in IMPORTS
        if found.root in TORCH and found.room not in WITH_TORCH and found.file not in PLAIN_WAY
    ]
    assert not wrong, "\n".join(map(str, wrong))


def test_only_the_cache_imports_h5py() -> None:
    wrong = [found for found in IMPORTS if found.root == "h5py" and not found.file.startswith("cache/")]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_cache_imports_little() -> None:
    wrong = [found for found in IMPORTS if found.file.startswith("cache/") and found.root not in OF_CACHE]
    assert not wrong, "\n".join(map(str, wrong))


def test_heavy_imports_of_the_pipeline_stand_in_functions() -> None:
    wrong = [f for f in IMPORTS if f.room == "pipeline" and f.at_load and f.root in HEAVY]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_command_line_loads_pydantic_and_numpy_in_functions() -> None:
    light = {
        "pipeline/cli.py",
        "pipeline/cli_cache.py",
        "pipeline/cli_options.py",
        "pipeline/errors.py",
        "pipeline/__init__.py",
    }
    allowed = set(sys.stdlib_module_names) | {"click"}
    wrong = [
        found
        for found in IMPORTS
        if found.file in light
        and found.at_load
        and found.root not in allowed
        and not found.module.startswith(("pipeline.errors.", "pipeline.cli_options."))
    ]
    assert not wrong, "\n".join(map(str, wrong))


# What is loaded, in fresh processes

REPORT = """
import json, sys
wanted = {roots}
def loaded():
    return sorted(wanted & {{name.partition(".")[0] for name in sys.modules}})
"""


def python(script: str, *, path: Path | None = None, cwd: Path | None = None) -> tuple[str, float]:
    """Run a script in a fresh process; return its output and its CPU seconds."""
    environment = {**os.environ, "PYTHONPATH": str(path) if path else ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        timeout=120,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_command(words: list[str], roots: set[str], **where: Path) -> tuple[int, list[str], str, float]:
    """Run a command in a fresh process; return status, which of the roots it loaded, output, CPU seconds."""
    script = REPORT.format(roots=repr(roots)) + textwrap.dedent(
        f"""
        import contextlib, io
        import pipeline.cli
        sys.argv = ["penultimate", *{words!r}]
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                pipeline.cli.main()
        except SystemExit as end:
            print(json.dumps([end.code, loaded(), said.getvalue()]))
        """
    )
    out, seconds = python(script, **where)
    status, loaded, said = json.loads(out.splitlines()[-1])
    return status, loaded, said, seconds


LIGHT = HEAVY | {"numpy", "h5py", "pydantic", "tqdm", "PIL", "jinja2"}


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["cache", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    status, loaded, said, seconds = run_command(words, LIGHT)
    assert status == 0
    assert "Usage:" in said
    assert loaded == []
    print(f"penultimate {' '.join(words)}: {seconds:.2f} s of CPU")  # noqa: T201


BLOCKER = """
import importlib.machinery
import sys

HIDDEN = {hidden}


class WithoutSome(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return super().find_spec(name, path, target)


at = sys.meta_path.index(importlib.machinery.PathFinder)
sys.meta_path[at] = WithoutSome
"""


def environment_without(folder: Path, hidden: set[str]) -> Path:
    """A folder for PYTHONPATH under which these packages are as good as not installed, in workers too."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER.format(hidden=repr(hidden)), encoding="utf-8")
    tries = f"""
        import importlib, json
        found = []
        for name in {sorted(hidden)!r}:
            try:
                importlib.import_module(name)
                found.append(name)
            except ModuleNotFoundError:
                pass
        print(json.dumps(found))
    """
    assert json.loads(python(tries, path=folder)[0]) == []
    return folder


STUDY = """
backbones = [{ name = "test_resnet.r160_in1k", weights = "random", size = 32, imagenet_top1 = 0.4 }]
[study]
name = "tiny"
output = "out"
[[dataset]]
name = "greys"
source = "csv:greys/split.csv"
[probe]
folds = 2
lambdas = { min = 1, max = 10, count = 2 }
"""


def write_study(folder: Path) -> None:
    """Write a study over two dozen grey images of two classes."""
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    (folder / "greys").mkdir()
    rows = ["path,label,split"]
    for i in range(24):
        label = ("dark", "light")[i % 2]
        (folder / "greys" / f"{i}.pgm").write_bytes(b"P5 4 4 255\n" + bytes([10 + 200 * (i % 2) + i] * 16))
        rows.append(f"{i}.pgm,{label},{'train' if i < 16 else 'test'}")
    (folder / "greys" / "split.csv").write_text("\n".join(rows), encoding="utf-8")


FILL_CACHE = """
import numpy as np
from cache import CacheKey
from pipeline.config import load_study
from pipeline.plan import plan
from pipeline.cache_folder import open_store
from stages.extract.recipe import coordinates, ingredients

for planned in plan(load_study("study.toml")).to_run("extract"):
    job = planned.job
    labels = job.split.labels
    features = np.stack([np.frombuffer(path.read_bytes()[-16:], np.uint8) for path in job.split.paths])
    key = CacheKey.from_ingredients(
        ingredients(job.backbone, job.split, job.image_sha256, job.class_names)
    )
    metadata = {
        "coordinates": coordinates(job.backbone, job.dataset, job.split.name),
        "class_names": list(job.class_names),
        "multi_label": False,
        "expected_rows": len(labels),
        "provenance": {},
    }
    with open_store().writer(key, metadata) as writer:
        writer.append(features.astype(np.float32), labels, list(job.split.ids), stop=len(labels))
        writer.publish()
print("filled")
"""


def test_probe_and_join_work_where_torch_is_not_installed(tmp_path: Path) -> None:
    hidden = environment_without(tmp_path / "without", set(TORCH))
    write_study(tmp_path)
    where = {"path": hidden, "cwd": tmp_path}
    assert python(FILL_CACHE, **where)[0].strip() == "filled"
    for command in ("probe", "join"):
        status, loaded, said, _ = run_command([command, "study.toml"], set(TORCH), **where)
        assert status == 0, said
        assert loaded == []
    scores = (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(scores) == 2
    assert ",complete," in scores[1]
    assert (tmp_path / "out" / "report.html").is_file()


def test_stages_that_need_torch_say_which_extra_brings_it(tmp_path: Path) -> None:
    hidden = environment_without(tmp_path / "without", {"torch"})
    write_study(tmp_path)
    status, _, said, _ = run_command(["extract", "study.toml"], set(), path=hidden, cwd=tmp_path)
    assert status in (1, 2), said
    assert 'pip install "penultimate[vision]"' in said


def test_join_without_the_report_extra_writes_scores_and_says_what_is_missing(tmp_path: Path) -> None:
    extra = {"matplotlib", "plotly", "jinja2", "pyarrow", "statsmodels"}
    hidden = environment_without(tmp_path / "without", TORCH | extra)
    write_study(tmp_path)
    where = {"path": hidden, "cwd": tmp_path}
    python(FILL_CACHE, **where)
    for command in ("probe", "join"):
        status, loaded, said, _ = run_command([command, "study.toml"], TORCH | extra, **where)
        assert status == 0, said
        assert loaded == []
    assert 'pip install "penultimate[report]"' in said
    assert sorted(path.name for path in (tmp_path / "out").glob("s*")) == ["scores.csv", "statistics.json"]
    assert not (tmp_path / "out" / "report.html").exists()
