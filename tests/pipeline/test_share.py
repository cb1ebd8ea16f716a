"""Handing features on: the colleague without images, and features of one's own."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from pipeline.cache_folder import cache_root, open_store
from pipeline.text_tables import rows_text

OWN = """
[study]
name = "own"
output = "out"
[[backbone]]
name = "mine"
weights = "cached"
[[dataset]]
name = "toys"
source = "cached"
[probe]
folds = 2
lambdas = { min = 1e-2, max = 1e2, count = 3 }
"""


def test_a_colleague_without_images_gets_the_same_scores(cached, penultimate, monkeypatch, tmp_path):
    monkeypatch.chdir(cached.folder)
    assert penultimate("probe", "study.toml").status == 0
    mine = json.loads(next((cached.output / "results" / "linear_probe").glob("*.json")).read_text())
    assert penultimate("cache", "push", str(tmp_path / "remote"), "--study", "study.toml").status == 0
    for folder in cached.folder.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    monkeypatch.setenv("PENULTIMATE_CACHE", str(tmp_path / "colleague"))
    assert penultimate("probe", "study.toml").status == 1, "nothing is there yet"
    pulled = penultimate("cache", "pull", str(tmp_path / "remote"), "--study", "study.toml", "--json")
    assert [row["status"] for row in json.loads(pulled.out)] == ["received", "received"]
    assert penultimate("probe", "study.toml").status == 0
    records = sorted((cached.output / "results" / "linear_probe").glob("*.json"))
    theirs = json.loads(records[-1].read_text())
    assert theirs["result"]["value"] == mine["result"]["value"]
    assert theirs["result"]["content_digests"] == mine["result"]["content_digests"]
    assert theirs["files"][".npz"] == mine["files"][".npz"], "per-example scores to the last bit"


@pytest.fixture
def own_features(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dice = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        labels = np.arange(count) % 2
        np.save(f"{split}.npy", (dice.normal(size=(count, 3)) + 4 * labels[:, None]).astype(np.float32))
        lines = [f"{split}{i},{'ab'[k]}" for i, k in enumerate(labels)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["id,label", *lines]) + "\n")
    (tmp_path / "own.toml").write_text(OWN)
    return tmp_path


def import_own(penultimate):
    for split in ("train", "test"):
        words = ("backbone=mine", "dataset=toys", f"split={split}")
        assert penultimate("cache", "import", f"{split}.npy", f"{split}.csv", *words).status == 0


def test_features_of_ones_own_are_probed_and_joined(own_features, penultimate):
    import_own(penultimate)
    assert penultimate("run", "own.toml").status == 0
    record = json.loads(next((own_features / "out/results/linear_probe").glob("*.json")).read_text())
    assert record["result"]["value"] == 1.0
    probe = next((own_features / "out/results/linear_probe").glob("*.safetensors"))
    (own_features / "one.png").write_bytes(b"")
    refused = penultimate("predict", str(probe), "one.png")
    assert refused.status == 2
    assert "imported features only" in refused.errors[0]


def test_imported_and_computed_entries_are_listed_and_collected_together(
    own_features, penultimate, monkeypatch
):
    import_own(penultimate)
    assert penultimate("cache", "list").status == 0
    assert penultimate("cache", "gc", "--largest-total", "0", "--dry-run").status == 0
    assert len(list(open_store().keys())) == 2
    assert penultimate("cache", "gc", "--largest-total", "0").status == 0
    assert len(list(open_store().keys())) == 0
    assert (cache_root() / "features" / "trash").is_dir()


def test_rows_of_different_columns_are_shown_in_one_table():
    assert rows_text([{"a": 1}, {"a": 2, "b": "x"}]).splitlines() == ["a  b", "1  -", "2  x"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("cache", "push", "remote", "dataset=nothing"), "no such entries here"),
        (("cache", "pull", "."), "no such entries"),
        (("cache", "import", "train.npy"), "features need their labels"),
        (("cache", "import", "train.npy", "train.csv", "backbone=mine"), "say dataset=... split=..."),
        (("cache", "show", "ffff"), "0 entries begin with 'ffff'"),
        (("cache", "list", "nonsense"), "is not NAME=VALUE"),
        (("scratch", "own.toml"), "no [from_scratch] table"),
        (("probe", "own.toml", "--only", "nothing"), "matches none of 1 jobs"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(own_features, penultimate, words, said):
    result = penultimate(*words)
    assert result.status == 2
    assert len(result.errors) == 1
    assert said in result.errors[0]
