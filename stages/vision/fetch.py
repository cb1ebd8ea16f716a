"""Get pretrained weights onto this machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

import torch

from stages.backbones import BackboneFacts, lookup
from stages.errors import WeightsError
from stages.records import Backbone
from stages.vision.weight_files import FOLDER_VARIABLE, HUB_FILES, find_pretrained, hub_cache

PATIENCE = 5.0
"""Seconds until a server that does not answer counts as out of reach; the hub's own client takes 25."""


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
    found = find_pretrained(facts.builds, facts.source)
    if found is not None:
        return found
    kind, _, rest = facts.source.partition(":")
    if kind == "hub":
        return _from_hub(facts, rest)
    if kind == "url":
        return _from_url(facts, rest)
    raise WeightsError(f'{facts.name} has no pretrained weights: use "file:PATH", "package:NAME" or "random"')


def _from_hub(facts: BackboneFacts, repository: str) -> Path:
    """Download from the Hugging Face hub into its own cache."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in HUB_FILES:
        try:
            # Asks once. The download itself asks six times, with pauses in between, before it gives up.
            get_hf_file_metadata(hf_hub_url(repository, file), timeout=PATIENCE)
            return Path(hf_hub_download(repository, file))
        except LocalEntryNotFoundError as problem:
            raise _unreachable(facts, f"{repository}/{file}", problem) from problem
        except EntryNotFoundError:
            continue
        except Exception as problem:  # the hub's client lets its transport's own kinds of error through
            raise _unreachable(facts, f"{repository}/{file}", problem) from problem
    raise WeightsError(f"{facts.name}: {repository} holds neither {' nor '.join(HUB_FILES)}: use file:PATH")


def _unreachable(facts: BackboneFacts, wanted: str, problem: Exception) -> WeightsError:
    """Say which file was wanted and how else it can be provided."""
    reason = (str(problem).splitlines() or [""])[0] or type(problem).__name__
    if facts.source.startswith("hub:"):
        named = f"{facts.builds}.safetensors (or .pth)"
        cache = f"the Hugging Face cache {hub_cache()} ($HF_HUB_CACHE)"
    else:
        named, cache = wanted, f"{_torch_folder()} ($TORCH_HOME)"
    return WeightsError(
        f"{facts.name}: cannot download {wanted} ({reason}): get the file on another machine and put it as "
        f"{named} into a folder that ${FOLDER_VARIABLE} names, or give weights as file:PATH or "
        f"package:NAME, or copy it into {cache}"
    )


def _torch_folder() -> Path:
    """Return the folder in which torch keeps what it downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _from_url(facts: BackboneFacts, file: str) -> Path:
    """Download into torch's own folder, where torch.hub would put it."""
    path = _torch_folder() / file
    part = path.with_name(f"{file}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(_address(facts.builds), part)
        _check_hash(part, file)
        part.replace(path)
    except (OSError, HTTPException) as problem:
        raise _unreachable(facts, file, problem) from problem
    finally:
        part.unlink(missing_ok=True)
    return path


def _download(address: str, path: Path) -> None:
    """Write what lies at an address into a file.

    Raises
    ------
    OSError
        The server is out of reach, refuses, or breaks off.
    """
    # The addresses are torchvision's, timm's and those in this package, nobody else's.
    request = urllib.request.Request(address, headers={"User-Agent": "penultimate"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer, path.open("wb") as out:  # noqa: S310
            shutil.copyfileobj(answer, out, 1 << 20)
            promised = answer.headers.get("Content-Length")
            if promised and out.tell() != int(promised):
                raise OSError(f"{out.tell()} of {promised} bytes came")
    except HTTPError as problem:
        problem.close()  # it holds the connection
        raise OSError(f"HTTP status {problem.code}") from None
    except URLError as problem:
        raise OSError(str(problem.reason)) from problem


def _check_hash(path: Path, file: str) -> None:
    """Compare a download with the beginning of its SHA-256 that its name carries, as torch.hub has it."""
    promised = re.search(r"-([0-9a-f]{8,})\.\w+$", file)
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if promised and not found.startswith(promised[1]):
        raise OSError(f"what came has SHA-256 {found[:12]}..., not the one its name begins with")


def _address(name: str) -> str:
    """Return the address of weights that do not lie on the hub."""
    if name.startswith("torchvision/"):
        import torchvision

        weights = torchvision.models.get_model_weights(name.removeprefix("torchvision/"))
        return str(weights.DEFAULT.url)
    from timm.models import get_pretrained_cfg

    from stages.vision import bn_inception, nasnet_mobile  # noqa: F401 - timm knows them once imported

    config = get_pretrained_cfg(name)
    assert config is not None
    return str(config.url)
