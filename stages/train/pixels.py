"""Images of a training job: decoded once and kept at full size where they fit, else decoded every time.

A store of shrunken images would change what a random crop sees, so there is none. With a folder the pixels
lie in one file a split, memory-mapped, so that all jobs on this machine share one copy::

    FOLDER/DIGEST.rgb     height x width x 3 bytes of every image that fits, one after the other
    FOLDER/DIGEST.json    their sizes, and the SHA-256 of the pixels

DIGEST is taken over the SHA-256 of every image file, and the budget: size and time do not tell one image from
another that was moved into its place. The SHA-256 of the pixels is checked whenever their file is opened; a file
that fails is made anew.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cache.locks import KeyLock, silent
from stages.vision.images import hash_image, read_image

T = TypeVar("T")
R = TypeVar("R")

Pixels = NDArray[np.uint8]
"""(h, w, 3), RGB."""

_CHUNK = 64
"""Images decoded at a time while a store is filled."""


class ImageStore:
    """The images of some files, as RGB at their full size.

    Parameters
    ----------
    groups : sequence of sequences of Path
        The files, n in all; each group (a split) has a file of pixels of its own.
    budget : int
        Bytes of pixels to keep. The files that come after it is spent are decoded anew every time.
    workers : int or None
        Threads; None = as many as torch computes with.
    folder : Path or None
        Where pixels lie for all jobs; None = in this process's memory.
    sha256 : mapping of Path to str, optional
        Of the files whose bytes are known: what is decoded is compared with it.

    Raises
    ------
    BadImageError
        A file cannot be decoded.
    UnreadFileError
        A file cannot be read, or has other bytes than ``sha256`` says.

    Attributes
    ----------
    warnings : list of str
        A folder that cannot be written is told of here; the pixels are in memory then.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Path]],
        *,
        budget: int,
        workers: int | None = None,
        folder: Path | None = None,
        sha256: Mapping[Path, str] | None = None,
    ) -> None:
        self.warnings: list[str] = []
        self._sha256 = dict(sha256 or {})
        self._paths = tuple(path for group in groups for path in group)
        self._pool = ThreadPoolExecutor(workers or torch.get_num_threads(), thread_name_prefix="pixels")
        self._kept: list[Pixels | None] = []
        try:
            self._fill(groups if budget > 0 else (), budget, folder)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> Pixels:
        kept = self._kept[row] if self._kept else None
        return self._read(self._paths[row]) if kept is None else kept

    @property
    def kept(self) -> int:
        """How many images are decoded and kept."""
        return sum(pixels is not None for pixels in self._kept)

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Call a function on items in the store's threads, in order."""
        return list(self._pool.map(function, items))

    def close(self) -> None:
        """End the threads and let the pixels go."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._kept.clear()

    def _fill(self, groups: Sequence[Sequence[Path]], budget: int, folder: Path | None) -> None:
        """Keep the images of groups, one after the other, until the budget is spent."""
        for group in groups:
            found = self._kept_somewhere(group, budget, folder)
            self._kept += [*found, *[None] * (len(group) - len(found))]
            budget -= sum(pixels.nbytes for pixels in found)

    def _kept_somewhere(self, paths: Sequence[Path], budget: int, folder: Path | None) -> list[Pixels]:
        """Keep what fits: in the folder, or in memory where there is none or it cannot be written."""
        if folder is not None:
            try:
                return self._map_file(paths, budget, folder)
            except OSError as problem:
                reason = problem.strerror or type(problem).__name__
                self.warnings.append(
                    f"{folder}: decoded images cannot be kept there ({reason}), each training keeps its own in "
                    "memory: make room, or lower image_memory"
                )
        return self._keep(paths, budget)

    def _read(self, path: Path) -> Pixels:
        """Decode a file whose bytes are those that are known."""
        return np.asarray(read_image(path, self._sha256.get(path)))

    def _keep(self, paths: Sequence[Path], budget: int) -> list[Pixels]:
        """Decode into memory what fits."""
        return [pixels.copy() for pixels in self._decoded(paths, budget)]

    def _decoded(self, paths: Sequence[Path], budget: int) -> Iterator[Pixels]:
        """Decode from the first file on until the budget is spent, and no further."""
        for first in range(0, len(paths), _CHUNK):
            for pixels in self._pool.map(self._read, paths[first : first + _CHUNK]):
                budget -= pixels.nbytes
                if budget < 0:
                    return
                yield pixels

    def _map_file(self, paths: Sequence[Path], budget: int, folder: Path) -> list[Pixels]:
        """Map the file of a group, made where there is none that is sound."""
        unknown = [path for path in dict.fromkeys(paths) if path not in self._sha256]
        self._sha256 |= zip(unknown, self._pool.map(hash_image, unknown), strict=True)
        digest = _digest_of([self._sha256[path] for path in paths], budget)
        folder.mkdir(parents=True, exist_ok=True)
        with KeyLock(folder, digest).held(silent):
            sizes = _sound_sizes(folder, digest)
            if sizes is None:
                sizes = self._write_file(paths, budget, folder, digest)
        return _mapped(folder / f"{digest}.rgb", sizes)

    def _write_file(
        self, paths: Sequence[Path], budget: int, folder: Path, digest: str
    ) -> list[tuple[int, int]]:
        """Decode what fits into a file; its description comes last."""
        temporary = folder / f".{digest}.{secrets.token_hex(4)}.part"
        sizes, sha256 = [], hashlib.sha256()
        try:
            with temporary.open("xb") as file:
                for pixels in self._decoded(paths, budget):
                    data = pixels.tobytes()
                    sha256.update(data)
                    file.write(data)
                    sizes.append((pixels.shape[0], pixels.shape[1]))
            temporary.replace(folder / f"{digest}.rgb")
            description = json.dumps({"sha256": sha256.hexdigest(), "sizes": sizes})
            temporary.write_text(description, encoding="utf-8")
            temporary.replace(folder / f"{digest}.json")
        finally:
            temporary.unlink(missing_ok=True)
        return sizes


def _digest_of(sha256: Sequence[str], budget: int) -> str:
    """Name a group after the bytes of its files and the room for their pixels."""
    return hashlib.sha256(json.dumps([sha256, budget]).encode()).hexdigest()


def _sound_sizes(folder: Path, digest: str) -> list[tuple[int, int]] | None:
    """Return heights and widths where the file's pixels have their SHA-256, else None."""
    try:
        known = json.loads((folder / f"{digest}.json").read_text(encoding="utf-8"))
        with (folder / f"{digest}.rgb").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return [(int(h), int(w)) for h, w in known["sizes"]] if found == known["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(path: Path, sizes: Sequence[tuple[int, int]]) -> list[Pixels]:
    """Map every image of a file."""
    if not sizes:
        return []
    flat = np.memmap(path, dtype=np.uint8, mode="r")
    ends = np.cumsum([3 * h * w for h, w in sizes]).tolist()
    starts = [0, *ends[:-1]]
    return [flat[start:end].reshape(h, w, 3) for start, end, (h, w) in zip(starts, ends, sizes, strict=True)]
