"""``hf:`` sources: a data set of the Hugging Face hub, or a folder that ``datasets`` saved.

The library reads it once; the image bytes, as they came, go to files named by their hash, and what was read is
kept in an index. From then on neither the library nor the hub is needed.
"""

from __future__ import annotations

import importlib.util
import os.path
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.datasets.csv_source import SPLIT_NAMES
from stages.datasets.folder_source import seeded_split
from stages.datasets.hub_source import HubSource, identity_of, parse_source
from stages.datasets.rows import Row, joined, pad_numbers, some
from stages.datasets.unpacked import index_of, keep_image
from stages.errors import DatasetAbsentError, DatasetError, MissingExtraError
from stages.records import Progress, untold

LABEL_NAMES = ("label", "labels", "cls")
"""Columns that are taken for the label where no feature says it is one."""
SAVED = ("state.json", "dataset_dict.json")
"""Files by which a folder of ``save_to_disk`` is told."""
MAGIC = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)

_Sample = tuple[bytes, str, str]
"""Encoded image, suffix, label."""


def read_hf_rows(
    location: str,
    base: Path,
    *,
    unpack_to: Path,
    image_column: str | None,
    label_column: str | None,
    test_fraction: float,
    seed: int,
    fetch: bool,
    progress: Progress = untold,
) -> tuple[list[Row], list[str], bool]:
    """Read a data set through the library ``datasets``, or from what an earlier reading kept.

    Parameters
    ----------
    location : str
        ``user/name``, ``user/name:configuration``, each with ``@revision`` or without; or a folder written by
        ``save_to_disk`` or holding parquet files, relative to ``base``.
    base : Path
        What a folder is relative to.
    unpack_to : Path
        Where image sets are unpacked.
    image_column, label_column : str, optional
        Default: the one that the features tell.
    test_fraction, seed : float, int
        Of the stratified split of a data set that has rows to train on only.
    fetch : bool
        Whether the library may be asked, and may download.
    progress : Progress
        Told of every row.

    Returns
    -------
    rows : list of Row
        The id is the split and the number there: "train/000017".
    notes : list of str
    multi_label : bool

    Raises
    ------
    MissingExtraError
        The library is not installed.
    DatasetAbsentError
        The hub is out of reach, or may not be asked, and the data set was not read before.
    DatasetError
        No such data set, no image or label column, or several that might be it.
    """
    source = parse_source(location, base, image_column, label_column)

    def unpack() -> dict[str, Any]:
        if not fetch:
            raise DatasetAbsentError(
                f"hf:{location}: not read on this machine yet; penultimate extract reads it"
            )
        return _unpack(source, unpack_to, progress)

    index = index_of(unpack_to, "hf", identity_of(source), unpack)
    rows = [Row(id_, unpack_to / place, label, split) for id_, place, label, split in index["rows"]]
    notes = list(index["notes"])
    if rows and not index["multi_label"] and all(row.split == "train" for row in rows):
        rows = seeded_split(rows, test_fraction, seed, notes)
    return rows, notes, bool(index["multi_label"])


def _unpack(source: HubSource, unpack_to: Path, progress: Progress) -> dict[str, Any]:
    """Read every row, keep its image, and return the index."""
    found = _load(source)
    rows: list[list[str]] = []
    notes = [] if source.folder or source.frozen else [
        f"hf:{source.name}: {source.revision or 'no revision'} is no commit and may move: what was read first on "
        "this machine is kept"
    ]  # fmt: skip
    multi_label = False
    for name, table in found.items():
        split = source.splits.get(name) or SPLIT_NAMES.get(name)
        if split is None:
            notes.append(f"{table.num_rows} rows of {name!r} are not part of the set: the name is no split's")
            continue
        image, label = _columns(source, name, table)
        multi_label = multi_label or _several(table.features[label])
        for number, (content, suffix, text) in enumerate(
            _told(source, _samples(source, table, image, label))
        ):
            id_ = f"{split}/{number:06d}"
            rows.append([id_, keep_image(unpack_to, content, suffix), text, split])
            progress(number + 1, table.num_rows, f"unpacking {name} of {source.name}")
    labels = pad_numbers([row[2] for row in rows])
    rows = [[id_, place, label, split] for (id_, place, _, split), label in zip(rows, labels, strict=True)]
    return {"rows": rows, "notes": notes, "multi_label": multi_label}


def _load(source: HubSource) -> Mapping[str, Any]:
    """Return the tables by split, as the library gives them."""
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError("datasets", "hub")
    import datasets

    name = str(source.folder or source.name)
    try:
        if source.folder and any((source.folder / file).is_file() for file in SAVED):
            found = datasets.load_from_disk(name)
        else:
            found = datasets.load_dataset(name, source.configuration, revision=source.revision)
    except ConnectionError as error:
        raise DatasetAbsentError(
            f"hf:{name}: not in the library's cache, and the hub is out of reach ({_first_line(error)}); fetch it "
            "where there is a network, save_to_disk, and name that folder: hf:FOLDER"
        ) from error
    except Exception as error:  # the library's readers raise whatever they meet
        reason = _first_line(error)
        raise DatasetError(f"hf:{name}: the library datasets cannot read it ({reason})") from error
    if isinstance(found, datasets.Dataset):
        return {"train": found}
    return dict(found)


def _first_line(error: Exception) -> str:
    """Return an error's first line, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _columns(source: HubSource, split: str, table: Any) -> tuple[str, str]:
    """Return the columns of image and label, or say which there are."""
    import datasets

    def chosen(what: str, wanted: str | None, likely: list[str]) -> str:
        known = list(table.features)
        if wanted is not None and wanted not in known:
            raise DatasetError(
                f"hf:{source.name}: {split} has no column {wanted!r}; known: {', '.join(known)}"
            )
        if wanted is None and len(likely) != 1:
            which = f"which of {some(likely)}" if likely else f"none of {some(known)} tells"
            raise DatasetError(
                f'hf:{source.name}: {split}: {which} is the {what}? say it: {what}_column = "..."'
            )
        return wanted if wanted is not None else likely[0]

    features = table.features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    classes = [name for name, kind in features.items() if isinstance(_element(kind), datasets.ClassLabel)]
    named = [name for name in features if name in LABEL_NAMES]
    image = chosen("image", source.image_column, images)
    label = chosen("label", source.label_column, classes or named)
    if not isinstance(features[image], datasets.Image):
        raise DatasetError(
            f"hf:{source.name}: column {image!r} of {split} holds no images but {features[image]}"
        )
    return image, label


def _element(feature: Any) -> Any:
    """Return the feature of a list's elements, or the feature itself."""
    return getattr(feature, "feature", feature)


def _several(feature: Any) -> bool:
    """Whether a label column holds lists."""
    return _element(feature) is not feature


def _samples(source: HubSource, table: Any, image: str, label: str) -> Iterator[_Sample]:
    """Yield the bytes of every image, their suffix, and the label as text."""
    import datasets

    several, kind = _several(table.features[label]), _element(table.features[label])
    names = kind.names if isinstance(kind, datasets.ClassLabel) else None
    table = table.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
    for number, row in enumerate(table):
        where = f"hf:{source.name}: row {number}"
        content = (row[image] or {}).get("bytes")
        if content is None:
            path = (row[image] or {}).get("path")
            if not path or not Path(path).is_file() or not _belongs(path, source):
                raise DatasetError(f"{where} has no image; drop the row, or save the images with the table")
            content = Path(path).read_bytes()
        values = [_text(value, names, where) for value in (row[label] if several else [row[label]])]
        yield content, _suffix(content), joined(values, where) if several else values[0]


def _told(source: HubSource, samples: Iterator[_Sample]) -> Iterator[_Sample]:
    """Pass the rows on; where the library fails on one, say so in a line."""
    try:
        yield from samples
    except DatasetError:
        raise
    except Exception as error:  # the library's readers raise whatever they meet
        raise DatasetError(f"hf:{source.name}: a row cannot be read ({_first_line(error)})") from error


def _belongs(path: str, source: HubSource) -> bool:
    """Whether a file lies in the source's folder or where the library downloads: a table may name any file."""
    import datasets
    from huggingface_hub import constants

    config = datasets.config
    homes = [config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE, source.folder]
    place = Path(os.path.normpath(Path(path).absolute()))  # links stay: the library's cache is made of them
    return any(place.is_relative_to(Path(home).absolute()) for home in homes if home)


def _text(value: Any, names: list[str] | None, where: str) -> str:
    """Return one label as text."""
    if value is None or value == "" or value != value or (names is not None and value == -1):
        raise DatasetError(f"{where} has no label; label it, or drop the row")
    return names[value] if names is not None else str(value)


def _suffix(content: bytes) -> str:
    """Return the suffix that fits an encoded image's first bytes."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in MAGIC if content.startswith(magic)), ".image")
