"""A fitted probe on new images, sound ones and others."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.run import run
from stages.probe import fit_probe, load_probe
from stages.probe.saved import probe_bytes
from stages.records import FeatureTable


@pytest.fixture(scope="module")
def fitted(workshop_at, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a probe fitted to them."""
    home = tmp_path_factory.mktemp("fitted")
    (home / "work").mkdir()
    workshop = workshop_at(home / "work")
    workshop.images()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENULTIMATE_CACHE", str(home / "cache"))
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        run(workshop.load(), ("extract", "probe"), workers=1)
    (probe,) = (home / "work/out/results/linear_probe").glob("*.safetensors")
    shutil.copy(probe, home / "probe.safetensors")
    return home


@pytest.fixture
def images(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images: two sound ones with a text and an empty file between them."""
    folder = tmp_path / "new"
    folder.mkdir()
    for name, source in (("a.ppm", "green/0.ppm"), ("d.ppm", "red/0.ppm")):
        shutil.copy(fitted / "work/colours/test" / source, folder / name)
    (folder / "b.png").write_text("no image")
    (folder / "c.jpg").touch()
    monkeypatch.chdir(tmp_path)
    return Path("new")


def table(text: str) -> list[list[str]]:
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["path", "class", "probability"]
    return rows


def test_an_unreadable_image_is_named_and_the_others_are_classified(
    fitted: Path, images: Path, penultimate
) -> None:
    result = penultimate("predict", fitted / "probe.safetensors", images)
    assert result.status == 1
    rows = table(result.out)
    assert [row[:2] for row in rows] == [
        ["new/a.ppm", "green"],
        ["new/b.png", ""],
        ["new/c.jpg", ""],
        ["new/d.ppm", "red"],
    ]
    assert [bool(row[2]) for row in rows] == [True, False, False, True]
    first, second = result.errors
    assert first.startswith("new/b.png: not an image")
    assert second.startswith("new/c.jpg: the file is empty")


def test_unreadable_images_change_nothing_for_the_others(fitted: Path, images: Path, penultimate) -> None:
    mixed = json.loads(penultimate("predict", fitted / "probe.safetensors", images, "--json", "--top", 2).out)
    errors = {item["path"]: item for item in mixed if "error" in item}
    assert set(errors) == {"new/b.png", "new/c.jpg"}
    assert all(item["class"] is None and item["probability"] is None for item in errors.values())
    for path in errors:
        Path(path).unlink()
    sound = penultimate("predict", fitted / "probe.safetensors", images, "--json", "--top", 2)
    assert sound.status == 0
    kept = [item for item in mixed if "error" not in item]
    assert [item["path"] for item in kept] == ["new/a.ppm"] * 2 + ["new/d.ppm"] * 2
    for before, after in zip(kept, json.loads(sound.out), strict=True):
        assert before["class"] == after["class"]
        assert before["probability"] == pytest.approx(after["probability"], abs=1e-6)


def test_nothing_readable_at_all_is_said_of_each(fitted: Path, images: Path, penultimate) -> None:
    result = penultimate(
        "predict", fitted / "probe.safetensors", images / "b.png", images / "c.jpg", images / "b.png"
    )
    assert (result.status, len(result.errors)) == (1, 3)
    assert len(table(result.out)) == 3


def test_a_file_that_is_not_there_is_still_bad_input(fitted: Path, images: Path, penultimate) -> None:
    result = penultimate("predict", fitted / "probe.safetensors", images / "a.ppm", "nowhere.png")
    assert (result.status, result.out) == (2, "")
    assert result.errors == ["nowhere.png: no such image or folder"]


def test_a_file_that_cannot_be_opened_costs_the_others_nothing(
    fitted: Path, images: Path, penultimate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests run as root, which opens everything."""
    opened = Path.open

    def closed(path: Path, *words: Any, **more: Any) -> Any:
        if path.name == "a.ppm":
            raise PermissionError(13, "Permission denied")
        return opened(path, *words, **more)

    monkeypatch.setattr(Path, "open", closed)
    done = penultimate("predict", fitted / "probe.safetensors", images / "a.ppm", images / "d.ppm")
    assert done.status == 1
    first, second = done.out.splitlines()[1:]
    assert first.endswith("a.ppm,,")
    assert not second.endswith(",,")
    assert "a.ppm: cannot be opened (Permission denied)" in done.err


def test_a_probe_of_no_network_is_refused_in_one_line(tmp_path: Path, images: Path, penultimate) -> None:
    table = FeatureTable(
        np.eye(4, 3, dtype=np.float32), np.array([0, 1, 0, 1]), ("a", "b", "c", "d"), ("cat", "dog")
    )
    result = fit_probe(table, None, table, metric="top_1", lambdas=[1.0], folds=2)
    (tmp_path / "bare.safetensors").write_bytes(probe_bytes(result, {}))
    done = penultimate("predict", tmp_path / "bare.safetensors", images)
    assert done.status == 2
    assert done.errors[-1].startswith("the probe does not say which network it was fitted on")


def test_a_folder_in_the_probes_place_is_named_and_other_files_of_an_images_folder_are_counted(
    fitted: Path, images: Path, penultimate
) -> None:
    done = penultimate("predict", fitted / "work/out/results/linear_probe", images)
    assert (done.status, len(done.errors)) == (2, 1)
    assert "linear_probe: is a folder; name one of its .safetensors files" in done.errors[0]
    (images / "readme.txt").write_text("mine")
    (images / ".hidden").touch()
    told = penultimate("predict", fitted / "probe.safetensors", images)
    assert "new: 1 of 5 files passed over, no images by their names" in told.err


def test_the_readmes_way_to_a_torch_layer_gives_the_probes_probabilities(fitted: Path) -> None:
    """Two classes: the file has one row, the layer two."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (lines,) = [
        block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "head_state" in block
    ]
    names: dict[str, Any] = {"path": fitted / "probe.safetensors"}
    exec(lines, names)
    probe, torch = load_probe(names["path"]), names["torch"]
    features = np.random.default_rng(0).normal(size=(5, probe.coefficients.shape[1])).astype(np.float32)
    found = names["layer"](torch.from_numpy(features)).softmax(1).detach().numpy()
    np.testing.assert_allclose(found, probe.probabilities(features), atol=1e-5)
