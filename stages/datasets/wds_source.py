"""``wds:`` sources: webdataset shards, tar files of images with their labels beside them.

Files of one sample share their path up to the first dot of the name: ``0001.jpg`` and ``0001.cls``. The label is
``cls`` (a number or a name), ``json`` (a number, a name, a list of names, or an object with the key ``label``) or
``txt`` (a name; names joined with ``|`` make it multi-label).
"""

from __future__ import annotations

import gzip
import itertools
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.datasets.csv_source import SPLIT_NAMES
from stages.datasets.folder_source import IMAGE_SUFFIXES
from stages.datasets.rows import Row, joined, pad_numbers, some
from stages.datasets.unpacked import index_of, keep_image
from stages.errors import DatasetAbsentError, DatasetError
from stages.records import Progress, SplitName, untold

LABELS = ("cls", "json", "txt")
"""Extensions of labels, the first that a sample has counts."""
LARGEST_LABEL = 1 << 20
"""Bytes of a label file; more is no label."""
LARGEST_IMAGE = 1 << 28
"""Bytes of an image file; a packed shard of a few MB may claim any size."""
MOST_SHARDS = 100_000


def read_wds_rows(pattern: str, base: Path, *, unpack_to: Path, progress: Progress = untold) -> list[Row]:
    """Read shards; images are written to files once, named by the hash of their bytes.

    Parameters
    ----------
    pattern : str
        A glob or braces, relative to ``base``: ``train-*.tar``, ``{train,test}/{000..012}.tar``. Every shard
        that braces name must be there; a glob takes what there is. The split of a shard is the word train, val,
        valid, validation or test in its path below the pattern's fixed part.
    base : Path
        What the pattern is relative to.
    unpack_to : Path
        Where image sets are unpacked.
    progress : Progress
        Told of every shard.

    Returns
    -------
    list of Row
        In the order of the shards' names and of the samples in them; an id is "shard/key".

    Raises
    ------
    DatasetAbsentError
        No shard matches.
    DatasetError
        A shard lacks, names no split, is damaged, or holds a sample without image or label.
    """
    found = {part: _glob(base, part) for part in itertools.islice(_braces(pattern), MOST_SHARDS + 1)}
    if len(found) > MOST_SHARDS:
        raise DatasetError(f"wds:{pattern}: names more than {MOST_SHARDS} shards; give a glob")
    shards = sorted({path for paths in found.values() for path in paths})
    lacking = [part for part, paths in found.items() if not paths]
    if shards and lacking:
        raise DatasetError(
            f"wds:{pattern}: {len(lacking)} of {len(found)} shards are not there: {some(lacking)}; fetch them, or "
            "write * for those that are there"
        )
    if not shards:
        raise DatasetAbsentError(f"wds:{pattern}: no shard matches below {base}; give a glob or {{000..012}}")
    splits = {path: _split_of(path, base, pattern) for path in shards}
    names = {path: _name(path, shards) for path in shards}
    stamps = [(path.stat().st_size, path.stat().st_mtime_ns) for path in shards]
    identity = [[names[p], str(p.resolve()), *stamp] for p, stamp in zip(shards, stamps, strict=True)]

    def unpack() -> dict[str, Any]:
        rows: list[tuple[Path, str, str, str]] = []
        for number, path in enumerate(shards):
            progress(number, len(shards), f"unpacking {path.name}")
            rows += _samples(path, names[path], unpack_to)
        labels = pad_numbers([label for _, _, _, label in rows])
        return {
            "rows": [
                [id_, place, label, splits[path]]
                for (path, id_, place, _), label in zip(rows, labels, strict=True)
            ]
        }

    rows = index_of(unpack_to, "wds", identity, unpack)["rows"]
    return [Row(id_, unpack_to / place, label, split) for id_, place, label, split in rows]


def _braces(pattern: str) -> Iterator[str]:
    """Write out {000..012} and {a,b}."""
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if not found:
        yield pattern
        return
    if found[3] is not None:
        choices: Iterable[str] = found[3].split(",")
    else:
        width = len(found[1])
        choices = (f"{number:0{width}d}" for number in range(int(found[1]), int(found[2]) + 1))
    for choice in choices:
        yield from _braces(pattern[: found.start()] + choice + pattern[found.end() :])


def _glob(base: Path, pattern: str) -> list[Path]:
    """Return the files of one glob, absolute or relative."""
    path = Path(pattern)
    root = Path(path.anchor) if path.anchor else base
    return [p for p in root.glob(str(path.relative_to(path.anchor))) if p.is_file()]


def _split_of(path: Path, base: Path, pattern: str) -> SplitName:
    """Return the split that a shard's own path names."""
    fixed = re.split(r"[*?\[{]", pattern, maxsplit=1)[0].rpartition("/")[0]
    start = base / fixed
    below = path.relative_to(start) if path.is_relative_to(start) else Path(path.name)
    for text in (str(below), str(path.parent.name)):
        words = re.split(r"[^A-Za-z]+", text)
        found = {SPLIT_NAMES[word.lower()] for word in words if word.lower() in SPLIT_NAMES}
        if len(found) == 1:
            return found.pop()
        if found:
            raise DatasetError(f"{path}: names {sorted(found)}, several splits; name one in the shard's path")
    raise DatasetError(
        f"{path}: names no split; put train, validation or test into the shard's name or folder"
    )


def _name(path: Path, shards: list[Path]) -> str:
    """Return a shard's part of an id: its name, with its folder's where two shards share a name."""
    twins = sum(other.name == path.name for other in shards)
    return path.stem if twins == 1 else f"{path.parent.name}/{path.stem}"


def _samples(path: Path, shard: str, unpack_to: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Yield shard, id, place of the image and label of every sample of a shard, in its order."""
    images: dict[str, str] = {}
    labels: dict[str, dict[str, bytes]] = {}
    with _readable(path) as archive:
        for key, suffix, member in _members(archive, path):
            if suffix in IMAGE_SUFFIXES:
                _check_image(member, key in images, f"{path}: sample {key!r}")
                images[key] = keep_image(unpack_to, _content(archive, member), suffix)
            elif suffix[1:] in LABELS and member.size <= LARGEST_LABEL:
                if suffix[1:] in labels.setdefault(key, {}):
                    raise DatasetError(f"{path}: sample {key!r} has two labels of the kind {suffix[1:]}")
                labels[key][suffix[1:]] = _content(archive, member)
    for key in labels:
        if key not in images:
            raise DatasetError(f"{path}: sample {key!r} has a label and no image; {_kinds()}")
    for key, place in images.items():
        yield path, f"{shard}/{key}", place, _label(labels.get(key, {}), f"{path}: sample {key!r}")


@contextmanager
def _readable(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a shard; whatever shows while it is read that it is damaged is one kind of error."""
    try:
        with tarfile.open(path) as archive:
            yield archive
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise DatasetError(f"{path}: not a tar file that can be read ({error}); fetch it again") from error


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield key, suffix and member of the plain files that are not hidden; links lead out of a shard."""
    for member in archive:
        folder, _, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if not member.isfile() or name.startswith("."):
            continue
        if not member.name.isprintable():
            raise DatasetError(f"{path}: {member.name!a} is no name to be written down; rename the file")
        yield f"{folder}/{stem}" if folder else stem, f".{extension.lower()}", member


def _check_image(member: tarfile.TarInfo, known: bool, where: str) -> None:
    """Refuse a second image, and one that no machine wants to hold."""
    if known:
        raise DatasetError(f"{where} has two images; a sample has one")
    if member.size > LARGEST_IMAGE:
        raise DatasetError(
            f"{where}: an image of {member.size >> 20} MB; {LARGEST_IMAGE >> 20} MB are the most"
        )


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the bytes of a plain file."""
    file = archive.extractfile(member)
    return file.read() if file else b""


def _kinds() -> str:
    """Say what a sample consists of."""
    return f"a sample is KEY.jpg (or .png, ...) and KEY.{', KEY.'.join(LABELS)}"


def _label(files: dict[str, bytes], where: str) -> str:
    """Return a sample's label as text."""
    kind = next((kind for kind in LABELS if kind in files), None)
    if kind is None:
        raise DatasetError(f"{where} has no label; {_kinds()}")
    try:
        text = files[kind].decode("utf-8-sig").strip()
        value = json.loads(text) if kind == "json" else text
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: its {kind} cannot be read ({error})") from error
    if isinstance(value, dict):
        value = value.get("label", value.get("cls"))
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str | int) and not isinstance(name, bool) for name in names):
        raise DatasetError(f"{where}: its {kind} holds no number, name, list of names or key 'label'")
    return joined([str(name) for name in names], where) if isinstance(value, list) else str(value)
