"""Get pretrained weights onto this machine."""

from __future__ import annotations

from pathlib import Path

import torch

from stages.backbones import lookup
from stages.errors import WeightsError
from stages.records import Backbone
from stages.vision.weight_files import HUB_FILES, downloaded, hub_cache


def fetch_weights(backbone: Backbone) -> Path:
    """Return the weights file of a backbone, downloading pretrained weights where necessary.

    Raises
    ------
    WeightsError
        The file cannot be had; the message names the file wanted and the ways to provide it.
    """
    if backbone.weights.path is not None:
        return backbone.weights.path
    facts = lookup(backbone.name)
    found = downloaded(facts.source)
    if found is not None:
        return found
    kind, _, rest = facts.source.partition(":")
    if kind == "hub":
        return _from_hub(facts.name, rest)
    if kind == "url":
        return _from_url(facts.name, rest)
    raise WeightsError(f'{facts.name} has no pretrained weights: use "file:PATH", "package:NAME" or "random"')


def _from_hub(name: str, repository: str) -> Path:
    """Download from the Hugging Face hub into its own cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in HUB_FILES:
        try:
            return Path(hf_hub_download(repository, file))
        except LocalEntryNotFoundError as problem:
            raise _unreachable(name, f"{repository}/{file}", problem) from problem
        except EntryNotFoundError:
            continue
        except Exception as problem:  # the hub's client lets its transport's own kinds of error through
            raise _unreachable(name, f"{repository}/{file}", problem) from problem
    raise WeightsError(f"{name}: {repository} holds neither {' nor '.join(HUB_FILES)}: use file:PATH")


def _unreachable(name: str, wanted: str, problem: Exception) -> WeightsError:
    """Say which file was wanted and how else it can be provided."""
    reason = (str(problem).splitlines() or [""])[0] or type(problem).__name__
    return WeightsError(
        f"{name}: cannot download {wanted} ({reason}): give weights as file:PATH or package:NAME, "
        f"or copy the file into the Hugging Face cache {hub_cache()} ($HF_HUB_CACHE)"
    )


def _from_url(name: str, file: str) -> Path:
    """Download into torch's own folder, as torch.hub would."""
    url = _address(name)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(folder / file), progress=False)
    except (OSError, RuntimeError) as problem:
        raise WeightsError(
            f"{name}: cannot download {file} ({problem}): give weights as file:PATH or package:NAME, "
            f"or copy the file into {folder} ($TORCH_HOME)"
        ) from problem
    return folder / file


def _address(name: str) -> str:
    """Return the address of weights that do not lie on the hub."""
    if name.startswith("torchvision/"):
        import torchvision

        weights = torchvision.models.get_model_weights(name.removeprefix("torchvision/"))
        return str(weights.DEFAULT.url)
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    assert config is not None
    return str(config.url)
