"""Weights that have to be fetched or built before a plan can know what they are."""

from __future__ import annotations

from pathlib import Path

from pipeline.plan import Plan
from pipeline.progress import Reporter
from stages.errors import StageError
from stages.records import Backbone


def prepare_weights(plan: Plan, reporter: Reporter) -> dict[str, str]:
    """Get every backbone's weights onto this machine and hash those that no file stands for.

    A backbone whose weights cannot be had is complained about and left alone: its jobs fail one by one,
    and the others run.

    Parameters
    ----------
    plan : Plan
        Its backbones without a known hash are prepared.
    reporter : Reporter

    Returns
    -------
    dict of str to str
        Label to SHA-256, of one's own networks (``python:``), whose weights are known once they are built.
    """
    built: dict[str, str] = {}
    for backbone in plan.resolved.backbones:
        if backbone.weights.sha256 is not None or backbone.weights.kind == "cached":
            continue
        try:
            if backbone.name.startswith("python:"):
                built[backbone.label] = _built_sha256(backbone)
            else:
                reporter.say(f"{backbone.label}: fetching its weights")
                _fetch(backbone)
        except StageError as error:
            reporter.complain(f"{backbone.label}: {error}")
    return built


def _fetch(backbone: Backbone) -> Path:
    """Download pretrained weights into the place where the next plan finds them."""
    from stages.vision.fetch import fetch_weights

    return fetch_weights(backbone)


def _built_sha256(backbone: Backbone) -> str:
    """Hash the state of a network that its owner's code builds."""
    from stages.vision.networks import build_network
    from stages.vision.weights import state_sha256

    return state_sha256(build_network(backbone))
