"""Pretrained weights that lie on this machine: a folder of one's own, and caches already filled."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models import create_model

from stages.backbones import lookup, resolve
from stages.errors import WeightsError
from stages.vision.fetch import fetch_weights
from stages.vision.networks import build_network
from stages.vision.weight_files import folder_names

SMALL = "mobilenetv3_small_050.lamb_in1k"

pytestmark = pytest.mark.usefixtures("empty_caches")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "checkpoints"
    path.mkdir()
    monkeypatch.setenv("PENULTIMATE_WEIGHTS", str(path))
    return path


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet50.tv_in1k", "resnet50.tv_in1k.safetensors"),
        ("resnet50.tv_in1k", "resnet50.tv_in1k.pth"),
        ("resnet50", "resnet50.a1_in1k.bin"),
        ("resnet50", "timm/resnet50.a1_in1k/model.safetensors"),
        ("resnet50", "resnet50.a1_in1k/pytorch_model.bin"),
        ("paper:resnet_50", "resnet50.tv_in1k.pt"),
        ("paper:inception_v1", "googlenet-1378be20.pth"),
        ("paper:inception_v1", "torchvision/googlenet.pth"),
        ("paper:bn_inception", "bn_inception-52deb4733.pth"),
        ("paper:nasnet_a_mobile", "nasnetamobile-7e03cead.pth"),
    ],
)
def test_a_folder_is_searched_by_name(name: str, file: str, folder: Path) -> None:
    assert resolve(name).weights.path is None
    backbone = resolve(name)
    path = write(folder / file)
    assert resolve(name).weights.path == path
    assert fetch_weights(backbone) == path
    assert resolve(name).weights.kind == "pretrained"


@pytest.mark.parametrize(
    "file", ["resnet50.pth", "resnet50.a1_in1k.txt", "resnet50.a2_in1k.pth", "model.safetensors"]
)
def test_what_may_be_other_weights_is_not_taken(file: str, folder: Path) -> None:
    """A bare architecture's name says not whose weights they are."""
    write(folder / file)
    assert resolve("resnet50").weights.path is None


def test_the_folder_goes_before_the_caches(folder: Path, tmp_path: Path) -> None:
    cached = write(tmp_path / "torch/hub/checkpoints/googlenet-1378be20.pth")
    assert resolve("torchvision/googlenet").weights.path == cached
    own = write(folder / "googlenet-1378be20.pth")
    assert resolve("torchvision/googlenet").weights.path == own


def test_the_folder_concerns_pretrained_weights_only(folder: Path) -> None:
    write(folder / "resnet50.a1_in1k.pth")
    assert resolve("resnet50", weights="random").weights.path is None
    bare = "mnasnet_050"
    write(folder / f"{bare}.pth")
    assert not lookup(bare).source
    assert resolve(bare, weights="random").weights.path is None


def test_a_folder_that_is_none_is_an_error_for_whoever_needs_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENULTIMATE_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=r"PENULTIMATE_WEIGHTS is .*nowhere, which is no folder"):
        resolve("resnet50")
    assert resolve("resnet50", must_exist=False).weights.path is None
    assert resolve("resnet50", weights="random").weights.kind == "random"


def test_names_in_a_folder_are_the_names_own() -> None:
    names = folder_names("resnet50.tv_in1k", "hub:timm/resnet50.tv_in1k")
    assert names[0] == "resnet50.tv_in1k.safetensors"
    assert "timm/resnet50.tv_in1k/model.safetensors" in names
    assert all("resnet50.tv_in1k" in name for name in names)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("with_branch", [True, False])
def test_a_filled_hub_cache_is_read_without_the_network(with_branch: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = create_model(SMALL)
    repository = tmp_path / "hub" / f"models--timm--{SMALL}"
    if with_branch:
        write(repository / "refs" / "main", b"abc\n")
        write(repository / "snapshots" / "older" / "model.safetensors")
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    save_file(whole.state_dict(), snapshot / "model.safetensors")
    loaded, expected = build_network(resolve(SMALL)).state_dict(), whole.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.items())


def test_a_hub_cache_with_several_revisions_and_no_branch_is_not_guessed_at(tmp_path: Path) -> None:
    for revision in ("abc", "def"):
        write(tmp_path / "hub" / f"models--timm--{SMALL}" / "snapshots" / revision / "model.safetensors")
    assert resolve(SMALL).weights.path is None
