"""The generator of the table that ships."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import nn

from stages.backbones import COLUMNS, lookup
from stages.vision.backbone_table import measure, read_top1, timm_rows, torchvision_rows


def test_the_generator_gives_the_rows_that_ship(monkeypatch: object) -> None:
    """A few architectures, afresh, against the table."""
    wanted = {"resnet10t", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "resnet18"}
    import stages.vision.backbone_table as table

    monkeypatch.setattr(table, "list_models", lambda: sorted(wanted))  # type: ignore[attr-defined]
    rows = list(timm_rows({("tf_efficientnet_lite0.in1k", 224): 74.846, ("resnet18.a1_in1k", 288): 1.0}))
    assert {row["name"].partition(".")[0] for row in rows} == wanted
    for row in rows:
        facts = lookup(row["name"])
        assert set(row) == set(COLUMNS)
        assert (int(row["dimension"]), int(row["size"])) == (facts.dimension, facts.size)
        assert (row["interpolation"], int(row["parameters"])) == (facts.interpolation, facts.parameters)
    top1 = {row["name"]: row["imagenet_top1"] for row in rows}
    assert top1["tf_efficientnet_lite0.in1k"] == "0.74846"
    assert top1["resnet18.a1_in1k"] == ""
    assert [row["name"] for row in rows if row["default"] == "1" and "resnet18" in row["name"]] == [
        "resnet18.a1_in1k"
    ]


def test_torchvisions_rows(monkeypatch: object) -> None:
    import torchvision

    monkeypatch.setattr(torchvision.models, "list_models", lambda module: ["googlenet", "regnet_y_400mf"])  # type: ignore[attr-defined]
    rows = list(torchvision_rows())
    assert rows[0]["parameters"] == "5599904"
    assert rows[0]["dimension"] == "1024"
    assert all(set(row) == set(COLUMNS) for row in rows)


def test_a_network_that_gives_no_vector_is_no_backbone() -> None:
    with torch.device("meta"):
        assert measure(nn.Conv2d(3, 4, 3), 16) == (0, 3 * 4 * 9 + 4)


def test_results_are_read_by_name_and_size(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("model,img_size,top1,top5\na.b,224,70.5,90\na.b,288,71.5,91\n")
    assert read_top1(tmp_path / "r.csv") == {("a.b", 224): 70.5, ("a.b", 288): 71.5}


def test_the_networks_written_here_have_rows_like_any_other(monkeypatch: object) -> None:
    import stages.vision.backbone_table as table

    monkeypatch.setattr(table, "list_models", lambda: ["bn_inception", "nasnet_a_mobile"])  # type: ignore[attr-defined]
    rows = list(timm_rows(table.OWN_TOP1))
    with (Path(table.__file__).parent.parent / "backbones.csv").open(newline="") as file:
        shipped = {row["name"]: row for row in csv.DictReader(file)}
    assert [row["name"] for row in rows] == ["bn_inception.caffe_in1k", "nasnet_a_mobile.tf_in1k"]
    assert all(row == shipped[row["name"]] for row in rows)
