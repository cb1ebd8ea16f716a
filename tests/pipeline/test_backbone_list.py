"""``penultimate backbones``: what a newcomer reads about the paper's networks."""

from __future__ import annotations

from pipeline.show import backbone_rows, rows_text


def test_the_sixteen_are_listed_with_their_public_checkpoints() -> None:
    rows = {row["name"]: row for row in backbone_rows("paper:")}
    assert len(rows) == 16
    row = rows["paper:nasnet_a_mobile"]
    assert (row["parameters"], row["dimension"], row["input_size"]) == (4_232_978, 1056, 224)
    assert (row["paper_name"], row["public_checkpoint"]) == ("NASNet-A Mobile", "nasnet_a_mobile.tf_in1k")
    assert (row["imagenet_top1"], row["paper_top1"]) == (0.7408, 0.736)
    assert row["mean"] == row["std"] == "0.5 0.5 0.5"
    assert all(row["trained_as_paper"] == "no" and row["imagenet_top1"] > 0.69 for row in rows.values())


def test_other_lists_have_no_columns_of_the_papers() -> None:
    text = rows_text(backbone_rows("resnet18"))
    assert "imagenet_top1" in text
    assert "paper" not in text
