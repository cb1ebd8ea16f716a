"""Commands that read cached features: near-duplicates, maps, read-outs, and their place in the report."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cache_folder import cache_root
from pipeline.config import Study
from pipeline.join_read_outs import _sentences
from pipeline.kept_figures import FOLDER, safe_name
from pipeline.ledger import Ledger
from stages.analysis.ranking import Ranking


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def doubled(workshop, penultimate) -> Study:
    """A set one of whose training images stands in test too; its probe is fitted."""
    workshop.images()
    folder = workshop.folder / "colours"
    shutil.copy(folder / "train" / "green" / "0.ppm", folder / "test" / "green" / "0.ppm")
    study = workshop.load()
    assert workshop.publish(study) == 2
    assert penultimate("probe", workshop.folder / "study.toml", "--quiet", "--jobs", 1).status == 0
    return study


def test_a_copy_in_test_is_found_and_the_probe_scored_without_it(
    workshop, doubled: Study, penultimate
) -> None:
    """One hand-made pair; at a cosine of 1 the mean colours of other images do not meet it."""
    result = penultimate(
        "analyse", "duplicates", workshop.folder / "study.toml", "--cosine", "0.99999999", "--json"
    )
    assert result.status == 0
    (found,) = json.loads(result.out)
    assert (found["candidates"], found["duplicates"], found["images"]) == (1, 1, [1, 1])
    assert found["probe"]["left_out"] == 1
    record = next(r for r in Ledger(doubled.output).records() if r.job.startswith("probe/"))
    arrays = record.arrays()
    kept = [i for i, id_ in enumerate(arrays["ids"]) if "green/0" not in id_]
    right = arrays["test_scores"].argmax(axis=1)[kept] == arrays["labels"][kept]
    assert found["probe"]["value_without"] == pytest.approx(right.mean())
    assert found["probe"]["value"] == record.result["value"]
    (row,) = rows_of(doubled.output / FOLDER / "duplicates_colours-train_colours-test.csv")
    assert (row["first"], row["second"]) == ("train/green/0.ppm", "test/green/0.ppm")
    assert (row["duplicate"], float(row["picture_similarity"])) == ("yes", pytest.approx(1))


def test_hidden_copies_are_looked_for_and_nothing_of_them_stays(
    workshop, penultimate, tmp_path, monkeypatch
) -> None:
    """Mirrored noise is the same picture to the pixel; what features propose is an upper bound on what is found."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    workshop.images()
    file = workshop.study()
    assert penultimate("extract", file, "--quiet").status == 0
    before = sorted(cache_root().rglob("*.h5"))
    result = penultimate("analyse", "duplicates", file, "--hide", 4, "--json")
    assert result.status == 0, result.err
    (found,) = json.loads(result.out)
    confirmed = found["confirmed"]
    assert confirmed["made"] == found["candidates"]["made"] == 4
    assert confirmed["found"] <= found["candidates"]["found"]
    assert set(confirmed["recall_by_change"]) == {"crop", "rescale", "jpeg", "flip"}
    assert confirmed["recall_by_change"]["flip"] == 1
    assert sorted(cache_root().rglob("*.h5")) == before
    assert not list(tmp_path.glob("penultimate-copies-*"))


def test_every_set_is_large_enough_for_the_copies_before_any_is_made(
    workshop, penultimate, monkeypatch
) -> None:
    monkeypatch.setattr("pipeline.hidden_copies.hide_copies", None)
    workshop.images()
    workshop.images("few", train=2, test=1)
    sets = [{"name": name, "source": f"csv:{name}/split.csv"} for name in ("colours", "few")]
    file = workshop.study({"dataset": sets})
    workshop.publish(workshop.load({"dataset": sets}))
    (line,) = penultimate("analyse", "duplicates", file, "--hide", 10).errors
    assert line.startswith("few/train has ")
    assert "--hide asks for copies of 10: give at most " in line


def test_without_the_images_features_alone_decide_and_it_is_said(
    workshop, doubled: Study, penultimate
) -> None:
    (workshop.folder / "colours").rename(workshop.folder / "elsewhere")
    result = penultimate("analyse", "duplicates", workshop.folder / "study.toml")
    assert result.status == 0
    assert "by cosine 0.9 alone, for the images are not here" in result.out
    shown = penultimate("analyse", "duplicates", workshop.folder / "study.toml", "--no-pixels")
    assert "by cosine 0.9 alone, for pixels were not to be compared" in shown.out
    assert not list((doubled.output / FOLDER).glob("*.png"))


def test_inside_one_split_each_pair_counts_once(workshop, doubled: Study, penultimate) -> None:
    sides = ["--between", "colours/train", "colours/train", "--cosine", "0.5", "--no-pixels", "--json"]
    (found,) = json.loads(penultimate("analyse", "duplicates", workshop.folder / "study.toml", *sides).out)
    features = table_of(doubled)
    unit = features / np.linalg.norm(features, axis=1)[:, None]
    cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    assert found["duplicates"] == int((cosines >= 0.5).sum())
    assert found["probe"] is None
    assert found["images"] == [len(np.unique(np.argwhere(np.triu(unit @ unit.T, 1) >= 0.5)))] * 2


def test_the_probe_is_that_of_the_test_side_whichever_comes_first(
    workshop, doubled: Study, penultimate
) -> None:
    ends = [
        json.loads(
            penultimate(
                *("analyse", "duplicates", workshop.folder / "study.toml", "--cosine", "0.99999999"),
                *("--between", *sides, "--json"),
            ).out
        )[0]["probe"]
        for sides in (("colours/train", "colours/test"), ("colours/test", "colours/train"))
    ]
    assert ends[0] == ends[1]
    assert ends[0]["left_out"] == 1


def test_a_figure_goes_with_the_pairs_that_it_showed(workshop, doubled: Study, penultimate) -> None:
    words = ("analyse", "duplicates", workshop.folder / "study.toml", "--quiet")
    assert penultimate(*words, "--cosine", "0.99999999").status == 0
    assert len(list((doubled.output / FOLDER).glob("duplicates_*.figure.json"))) == 1
    assert penultimate(*words, "--no-pixels").status == 0
    assert sorted(p.suffix for p in (doubled.output / FOLDER).iterdir()) == [".csv", ".json"]


def test_other_names_have_other_files() -> None:
    stems = {safe_name(name) for name in ("a b", "a-b", "a/b", "a_b", "x" * 300, "x" * 301)}
    assert len(stems) == 6
    assert max(map(len, stems)) < 80
    assert safe_name("a-b") == "a-b"


def test_one_set_that_nothing_can_be_fitted_to_does_not_cost_the_others(workshop, penultimate) -> None:
    workshop.images()
    workshop.images("tiny", train=1, test=2)
    sets = [{"name": name, "source": f"csv:{name}/split.csv"} for name in ("tiny", "colours")]
    study = workshop.load({"dataset": sets})
    workshop.publish(study)
    result = penultimate("analyse", "read-outs", workshop.folder / "study.toml", "--json")
    assert result.status == 1
    assert [row["dataset"] for row in json.loads(result.out)] == ["colours"]
    (line,) = result.errors
    assert line.startswith("test_resnet.r160_in1k on tiny: folds = 5: give at least 2")


def test_hiding_refuses_what_it_would_not_do(workshop, cached: Study, penultimate) -> None:
    for more in (["--no-pixels"], ["--between", "colours/train", "colours/test"]):
        result = penultimate("analyse", "duplicates", workshop.folder / "study.toml", "--hide", 2, *more)
        assert result.status == 2
        assert "--hide puts copies among the images of one split" in result.errors[0]


def test_what_an_interruption_leaves_is_told(
    workshop, cached: Study, penultimate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.near_duplicates.same_pictures", interrupted)
    result = penultimate("analyse", "duplicates", workshop.folder / "study.toml")
    assert result.status == 4
    assert "interrupted: the files of the pairs of splits that were finished are kept" in result.err


def test_scores_are_ranked_over_the_same_data_sets() -> None:
    """The second is as good where both are, and is not ahead because it lacks the set on which the first lost."""

    def ranking(score: str, dataset: str, regret: float, backbones: int = 3) -> Ranking:
        names = tuple("abc"[:backbones])
        return Ranking(dataset, score, "fine_tune", names, (), None, None, None, ("a",), ("a",), regret)

    rankings = [
        *(ranking("ridge", dataset, regret) for dataset, regret in (("one", 0.0), ("two", 0.3))),
        ranking("leep", "one", 0.0),
        *(ranking("logme", dataset, 0.0, 2) for dataset in ("one", "two")),
    ]
    assert _sentences(rankings) == [
        "choosing a backbone for fine-tuning, mean regret in log odds: ridge 0.150, "
        "LEEP 0.000 (on 1 of 2 data sets alone)"
    ]


def table_of(study: Study) -> np.ndarray[Any, Any]:
    from pipeline.cached_tables import CachedTables
    from pipeline.plan import plan

    features = (
        CachedTables(plan(study, stages=("probe",)))
        .table("test_resnet.r160_in1k", "colours", "train")
        .features
    )
    return np.asarray(features, dtype=float)


def test_a_map_is_drawn_and_stands_in_the_report(workshop, doubled: Study, penultimate) -> None:
    file = workshop.folder / "study.toml"
    words = ["--split", "train", "--perplexity", "3", "--seed", "4"]
    result = penultimate("analyse", "tsne", file, *words)
    assert result.status == 0, result.err
    assert "perplexity 3, seed 4" in result.out
    rows = rows_of(doubled.output / FOLDER / "tsne_colours_train.csv")
    assert len(rows) == 12
    assert {row["class"] for row in rows} == {"green", "red"}
    assert penultimate("join", file).status == 0
    assert "t-SNE of colours" in (doubled.output / "report.html").read_text(encoding="utf-8")
    stamp = (doubled.output / "join.json").stat().st_mtime_ns
    assert penultimate("join", file).status == 0
    assert (doubled.output / "join.json").stat().st_mtime_ns == stamp
    penultimate("analyse", "tsne", file, "--split", "train", "--perplexity", "2")
    assert penultimate("join", file).status == 0
    assert "perplexity 2, seed 0" in (doubled.output / "report.html").read_text(encoding="utf-8")


def test_read_outs_are_computed_once_and_joined(workshop, penultimate) -> None:
    workshop.images()
    nets = [
        {
            "name": "test_resnet.r160_in1k",
            "weights": "random",
            "size": 32,
            "variant": v,
            "seed": i,
            "imagenet_top1": 0.4,
        }
        for i, v in enumerate(["a", "b"])
    ]
    study = workshop.load({"backbone": nets})
    workshop.publish(study)
    file = workshop.folder / "study.toml"
    assert penultimate("probe", file, "--quiet", "--jobs", 1).status == 0
    first = json.loads(penultimate("analyse", "read-outs", file, "--json").out)
    assert [row["backbone"] for row in first] == ["test_resnet.r160_in1k@a", "test_resnet.r160_in1k@b"]
    assert {"k_nearest_neighbours", "nearest_class_mean", "ridge", "logme", "shrinkage_h_score"} <= set(
        first[0]
    )
    records = sorted((study.output / "results" / "read_outs").glob("*.json"))
    assert json.loads(penultimate("analyse", "read-outs", file, "--json").out) == first
    assert sorted((study.output / "results" / "read_outs").glob("*.json")) == records
    result = penultimate("join", file)
    assert "choosing a backbone for the linear probe, mean regret in log odds:" in result.out
    rankings = rows_of(study.output / "rankings.csv")
    # Both networks have the same features here: whatever is chosen costs nothing.
    assert {(row["target"], float(row["regret"])) for row in rankings} == {("linear_probe", 0.0)}
    assert (study.output / "figures" / "choosing.png").is_file()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["duplicates", "--between", "colours/train", "colours"],
            "'colours' is not DATASET/SPLIT, as in pets/train",
        ),
        (
            ["duplicates", "--between", "color/train", "color/test"],
            "the study has no data set 'color'; did you mean",
        ),
        (["duplicates", "--backbone", "resnet"], "the study has no backbone 'resnet'"),
        (["tsne", "--split", "validation"], "colours has no split 'validation'; it has train, test"),
        (["tsne", "--class", "grene"], "class 'grene' is unknown; did you mean 'green'"),
        (["tsne"], "perplexity 30 needs more than 30 images"),
        (["read-outs", "--dataset", "nothing"], "the study has no data set 'nothing'"),
    ],
)
def test_mistakes_are_one_line(workshop, cached: Study, penultimate, words: list[str], line: str) -> None:
    result = penultimate("analyse", words[0], workshop.folder / "study.toml", *words[1:])
    assert result.status == 2
    assert len(result.errors) == 1
    assert line in result.errors[0]
    assert not (cached.output / FOLDER).exists()


def test_features_that_are_not_cached_are_told(workshop, penultimate) -> None:
    workshop.images()
    file = workshop.study()
    for words in (["duplicates"], ["tsne"], ["read-outs"]):
        result = penultimate("analyse", *words, file)
        assert result.status == 2
        assert "colours through test_resnet.r160_in1k: features are not cached" in result.errors[0]
    assert not list(cache_root().glob("features/**/*.h5"))


def test_source_classes_are_read_once_the_weights_are_here(workshop, penultimate, monkeypatch) -> None:
    """LEEP is what the whole network says of the training images; a machine without weights says why it has none."""
    import torch
    from safetensors.torch import save_file
    from timm.models import create_model

    from pipeline.cached_tables import CachedTables
    from pipeline.plan import plan
    from stages.analysis.leep import leep

    workshop.images()
    whole = create_model("test_resnet.r160_in1k").eval()
    save_file(whole.state_dict(), workshop.folder / "weights.safetensors")
    net = {"name": "test_resnet.r160_in1k", "weights": "file:weights.safetensors", "size": 32}
    study, file = workshop.load({"backbone": [net]}), workshop.folder / "study.toml"
    assert penultimate("extract", file, "--quiet", "--jobs", 1).status == 0

    def scores() -> Any:
        (row,) = json.loads(penultimate("analyse", "read-outs", file, "--json").out)
        record = Ledger(study.output).history().finished[f"read-outs/{row['backbone']}/colours"]
        assert row["leep"] == record.result["scores"]["leep"]["value"]
        return record

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("pipeline.source_classes.SourceClasses.at_hand", lambda self, label: False)
        assert "needs the weights' own classifier" in scores().result["scores"]["leep"]["reason"]
    found = scores()
    tables = CachedTables(plan(study))
    table = tables.table(tables.backbones()[0], "colours", "train")
    with torch.inference_mode():
        logits = whole.get_classifier()(torch.from_numpy(np.array(table.features)))
    expected = leep(logits.double().softmax(dim=1).numpy(), table.labels)
    assert found.result["scores"]["leep"]["value"] == pytest.approx(expected, rel=1e-4)
    assert scores().path == found.path
