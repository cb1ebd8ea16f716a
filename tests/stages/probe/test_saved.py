import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save
from scipy.special import softmax

from stages.errors import ProbeError
from stages.probe import fit_probe, load_probe, probe_bytes


@pytest.fixture(params=[2, 3, "multi"])
def fitted(request, blobs, table):
    K = 3 if request.param == "multi" else request.param
    X, y = blobs(60, 4, K)
    if request.param == "multi":
        y = np.eye(3, dtype=np.int8)[y]
    metric = "map_11_point" if request.param == "multi" else "top_1"
    return X, fit_probe(table(X, y), None, table(X, y), metric=metric, lambdas=[1.0, 0.1])


def test_a_probe_comes_back_as_it_was(fitted, tmp_path):
    X, result = fitted
    path = tmp_path / "probe.safetensors"
    path.write_bytes(probe_bytes(result, {"backbone": "lite0"}))
    saved = load_probe(path)
    assert np.array_equal(saved.coefficients, result.coefficients)
    assert saved.class_names == result.class_names
    assert saved.metadata["backbone"] == "lite0"
    assert saved.probabilities(X) == pytest.approx(result.test_scores, abs=1e-6)


def test_the_head_gives_the_same_probabilities(fitted, tmp_path):
    X, result = fitted
    path = tmp_path / "probe.safetensors"
    path.write_bytes(probe_bytes(result, {}))
    state = load_probe(path).head_state("fc.")
    z = X @ state["fc.weight"].T + state["fc.bias"]
    p = 1 / (1 + np.exp(-z)) if result.multi_label else softmax(z, axis=1)
    assert p == pytest.approx(result.test_scores, abs=1e-5)


def test_features_of_another_backbone_are_refused(fitted, tmp_path):
    path = tmp_path / "probe.safetensors"
    path.write_bytes(probe_bytes(fitted[1], {}))
    with pytest.raises(ProbeError, match="dimension 4"):
        load_probe(path).logits(np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no probe", "not a safetensors file"),
        (save({"weight": np.zeros((2, 2))}), "no probe of this tool"),
        (
            save(
                {"weight": np.zeros((2, 2)), "bias": np.zeros(2)}, metadata={"format": "penultimate-probe-1"}
            ),
            "header is damaged",
        ),
        (
            save(
                {"weight": np.zeros((3, 2)), "bias": np.zeros(2)},
                metadata={
                    "format": "penultimate-probe-1",
                    "class_names": '["a", "b", "c"]',
                    "multi_label": "false",
                },
            ),
            "do not fit 3 outputs",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "probe.safetensors"
    path.write_bytes(content)
    with pytest.raises(ProbeError, match=message):
        load_probe(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ProbeError, match="no such file"):
        load_probe(tmp_path / "nothing.safetensors")


def test_probing_needs_no_torch():
    code = "import sys, stages.probe, stages.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
