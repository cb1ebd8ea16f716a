"""The advice in words, from the numbers."""

from stages.report import join_scores
from stages.report.statistics import statistics


def test_advice_states_what_a_shortcut_would_have_cost(make_row):
    values = {"a": (0.8, 0.90), "b": (0.7, 0.95), "c": (0.6, 0.85)}
    rows = [
        make_row(backbone=name, dataset=dataset, regime=regime, value=value, imagenet_top1=top1)
        for top1, (name, pair) in zip((0.8, 0.7, 0.6), values.items(), strict=True)
        for regime, value in zip(("linear_probe", "fine_tune"), pair, strict=True)
        for dataset in ("x", "y", "z")
    ]
    said = "\n".join(statistics(join_scores(rows))["advice"])
    assert (
        "by the linear probe finds the best one on 0 of 3 data sets; it costs 5.0 points on average" in said
    )
    assert "fine-tuned: b has the highest mean over 3 data sets" in said
    assert "it gains on" in said
    assert statistics(join_scores(rows[:1]))["advice"] == []


def test_advice_names_ties_as_ties(make_row):
    """The probe cannot tell a from b; fine-tuned they differ, so its choice costs their mean, in any order."""
    values = {"a": (0.8, 0.90), "b": (0.8, 0.94), "c": (0.6, 0.85)}
    for order in ("abc", "bac", "cba"):
        rows = [
            make_row(backbone=name, dataset=dataset, regime=regime, value=value, imagenet_top1=None)
            for name in order
            for regime, value in zip(("linear_probe", "fine_tune"), values[name], strict=True)
            for dataset in ("x", "y", "z")
        ]
        said = "\n".join(statistics(join_scores(rows))["advice"])
        assert "it costs 2.0 points on average" in said
        assert "on 3 it cannot tell several apart, their mean counts" in said
        assert "a and b (equal scores) on x, y and z" in said
        assert "highest mean over 3 data sets, not significantly ahead of" in said
