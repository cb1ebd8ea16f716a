"""Writing one entry: batches are staged and synced, then built apart from this process, then published."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cache.atomic import make_file, make_folder, temporary_name
from cache.children import run_builder
from cache.entry import Entry
from cache.errors import CacheWriteError, InputChangedError, InvalidInputError
from cache.keys import CacheKey, canonical_json
from cache.locks import KeyLock
from cache.publish import publish
from cache.rows import Batch, EntryMetadata, check_batch, refuse_repeated
from cache.staged import batch_of, header_of, payload_of
from cache.staging import LOG_NAME, Frame, StagingLog

if TYPE_CHECKING:
    from cache.store import Store

NOTE_SECONDS = 5.0
_BUILT_NAME = "entry.h5"


class Writer:
    """Stages the rows of one entry and publishes them; made by `Store.writer`, used in a with-block.

    Where the entry is published already, ``published`` holds it, ``next_row`` is the number of input rows
    and `publish` returns it: the natural loop does nothing. Otherwise entering waits for the key's lock.
    Leaving the block without `publish` keeps what was staged for a later resume.
    """

    def __init__(self, store: Store, key: CacheKey, metadata: EntryMetadata, timeout: float | None) -> None:
        self.key = key
        self.metadata = metadata
        self.published: Entry | None = None
        """The entry, once it is in the store."""
        self.next_row = 0
        """Input rows already staged: where extraction has to go on."""
        self._store = store
        self._timeout = timeout
        self._folder = store.staging_folder(key)
        self._lock = KeyLock(store.root / "locks", key.digest)
        self._stack = contextlib.ExitStack()
        self._log: StagingLog | None = None
        self._opening: dict[str, Any] | None = None
        self._columns: tuple[str, ...] = ()
        self._ids: set[str] = set()
        self._rows = self._batches = 0
        self._noted = 0.0

    def __enter__(self) -> Self:
        if self._is_published():  # by somebody else, perhaps into a store that we may only read
            return self
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._lock.held(self._store.notify, self._timeout))
            if not self._is_published():
                make_folder(self._folder, self._store.root)
                self._log = StagingLog(make_file(self._folder / LOG_NAME, self._store.root))
                stack.callback(self._log.close)
                self._resume(self._log)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if isinstance(error, InputChangedError):
                self.discard()
            elif self._log is not None and self.published is None:
                with contextlib.suppress(CacheWriteError):
                    self._log.sync()

    def append(
        self,
        features: NDArray[np.floating[Any]],
        labels: NDArray[Any],
        ids: Sequence[str],
        *,
        stop: int,
        row_metadata: Mapping[str, Sequence[str | None]] | None = None,
        excluded: Sequence[Sequence[str]] = (),
    ) -> None:
        """Stage the next rows; where this fails nothing of the batch is kept and it may be repeated.

        Parameters
        ----------
        features : ndarray of shape (b, d), float32 or float16
            Finite; b may be 0 where every row of the batch was excluded.
        labels : ndarray of shape (b,), int64, or (b, K), int8
            Index into the class names; multi-label: 1, 0 or -1 (ignore).
        ids : sequence of str
            Unique over the entry.
        stop : int
            Input rows consumed so far, excluded ones included.
        row_metadata : mapping of str to sequence of str or None
            The same columns in every batch.
        excluded : sequence of (id, reason)
            Input rows of this batch without features.

        Raises
        ------
        InvalidInputError
            The rows do not fit the entry.
        CacheWriteError
            Disk full or device error; what was staged before stays.
        """
        log = self._staging()
        batch = check_batch(
            self.metadata, features, labels, ids, row_metadata or {}, excluded, first=self._rows
        )
        opening = self._opening_frame(batch.features)
        columns = tuple(sorted(batch.row_metadata))
        self._check_step(batch, stop, opening, columns)
        if self._opening is None:
            log.append(opening)
            self._opening, self._columns = opening, columns
        log.append(header_of(batch, stop), payload_of(batch))
        self._count(batch, stop)
        self._tell()

    def publish(self) -> Entry:
        """Build the entry apart from this process, prove it, and move it into place.

        Returns
        -------
        Entry
            Read back from where it lies.

        Raises
        ------
        InvalidInputError
            Input rows are missing, or no row has features.
        CacheWriteError
            The disk refused; what was staged stays.
        """
        if self.published is not None:
            return self.published
        log = self._staging()
        if self.next_row != self.metadata.expected_rows or not self._rows:
            raise InvalidInputError(
                f"key {self.key.digest[:12]}...: {self.next_row} of {self.metadata.expected_rows} input rows "
                f"consumed, {self._rows} with features: nothing to publish"
            )
        try:
            entry = self._put_in_place(log)
        except CacheWriteError:
            # Where nothing locks, another writer may have published, and removed what both had staged.
            if self.key not in self._store:
                raise
            entry = self._store.read(self.key)
        self._use(entry)
        with contextlib.suppress(CacheWriteError):  # it is published: leftovers are for `drop_abandoned`
            self.discard()
        return entry

    def start_over(self) -> None:
        """Forget what was staged, and go on from the first input row."""
        self._staging().restart()
        self._forget_rows()

    def discard(self) -> None:
        """Remove what was staged."""
        if self._log is not None:
            self._log.restart()
        with contextlib.suppress(OSError):  # rmtree ignores every error but that of closing a folder
            shutil.rmtree(self._folder, ignore_errors=True)
        self._forget_rows()

    def _forget_rows(self) -> None:
        """Be as a writer of whom nothing was staged."""
        self._opening, self._columns, self._ids, self._rows, self._batches = None, (), set(), 0, 0
        if self.published is None:
            self.next_row = 0

    def _put_in_place(self, log: StagingLog) -> Entry:
        """Build the entry, prove it, and give it its name."""
        # A name of its own: the builder of a writer that was killed may still be at work on another one.
        built = temporary_name(self._folder / _BUILT_NAME)
        proved = run_builder(log.path, built)
        target = self._store.path_of(self.key)
        done = publish(self._store.root, built, target, self.metadata.provenance, proved)
        return self._store.read(self.key, proved=done.proved)

    def _is_published(self) -> bool:
        """Take the entry as this writer's result where it is in the store, sound."""
        entry = self._store.sound(self.key, to_write=True)
        if entry is not None:
            self._use(entry)
        return entry is not None

    def _use(self, entry: Entry) -> None:
        """Take an entry that is in the store as this writer's result."""
        self.published = entry
        self.next_row = self.metadata.expected_rows

    def _resume(self, log: StagingLog) -> None:
        """Go on from what a former writer staged, where it was making the same entry."""
        log.recover(self._accept)
        if self._batches == 0:  # nothing, or an opening alone: which columns there are its first batch says
            self.start_over()

    def _accept(self, frame: Frame) -> bool:
        """Take over a frame that a former writer staged; False where it is not what this one would stage."""
        try:
            if self._opening is None:
                self._accept_opening(frame.header)
            else:
                self._accept_batch(frame)
        except (InvalidInputError, AttributeError, KeyError, TypeError, ValueError):
            return False
        return True

    def _accept_opening(self, header: dict[str, Any]) -> None:
        """Take over the first frame."""
        shared = {name: value for name, value in header.items() if name != "arrays"}
        if canonical_json(shared) != canonical_json(self._shared()):
            self._store.notify(
                f"key {self.key.digest[:12]}...: staged rows have other metadata, starting over"
            )
            raise InvalidInputError("other metadata")
        dimension, dtype = header["arrays"]["dimension"], header["arrays"]["features_dtype"]
        same = self._opening_frame(np.empty((0, dimension), dtype))["arrays"]
        if canonical_json(header["arrays"]) != canonical_json(same):
            raise InvalidInputError("other arrays")
        self._opening = header

    def _accept_batch(self, frame: Frame) -> None:
        """Take over the rows of a frame, checked as those that are appended."""
        opening, stop = self._opening or {}, frame.header["stop"]
        batch = batch_of(frame, self.metadata, opening["arrays"])
        columns = tuple(sorted(batch.row_metadata))
        if self._batches == 0:
            self._columns = columns
        self._check_step(batch, stop, opening, columns)
        self._count(batch, stop)

    def _count(self, batch: Batch, stop: int) -> None:
        """Take note of rows that are staged."""
        self._ids.update(batch.names)
        self.next_row, self._rows, self._batches = stop, self._rows + len(batch.ids), self._batches + 1

    def _shared(self) -> dict[str, Any]:
        """Return what two writers of one entry have to agree on."""
        return {**self.metadata.shared(), "ingredients": self.key.ingredients}

    def _opening_frame(self, features: NDArray[Any]) -> dict[str, Any]:
        """Return the first frame of the log that these features belong to."""
        arrays = {"dimension": features.shape[1], "features_dtype": features.dtype.str}
        return {**self._shared(), "arrays": arrays}

    def _check_step(self, batch: Batch, stop: int, opening: dict[str, Any], columns: tuple[str, ...]) -> None:
        """Refuse a batch that skips input rows, repeats ids or differs in kind from those before."""
        rows = len(batch.names)
        if not isinstance(stop, int) or isinstance(stop, bool):
            raise InvalidInputError(f"stop is {stop!r:.80}: expected the number of input rows so far, an int")
        if stop != self.next_row + rows or stop > self.metadata.expected_rows:
            raise InvalidInputError(
                f"a batch of {rows} rows after row {self.next_row} of {self.metadata.expected_rows} "
                f"cannot end at row {stop}"
            )
        if self._opening is not None and (
            opening["arrays"] != self._opening["arrays"] or columns != self._columns
        ):
            raise InvalidInputError(
                f"a batch with {opening['arrays']} and row metadata {list(columns)} "
                f"after batches with {self._opening['arrays']} and {list(self._columns)}"
            )
        refuse_repeated(batch.names, self._ids)

    def _staging(self) -> StagingLog:
        """Return the open log, or say why there is none."""
        if self._log is None or self.published is not None:
            raise InvalidInputError(
                f"key {self.key.digest[:12]}...: nothing to write, use it in a with-block once"
            )
        return self._log

    def _tell(self) -> None:
        """Leave word for those who wait."""
        if time.monotonic() - self._noted >= NOTE_SECONDS:
            self._noted = time.monotonic()
            self._lock.note(f"{self.next_row} of {self.metadata.expected_rows} rows")
