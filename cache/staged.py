"""Batches as frames of a staging log: what is written of one, and one read back, checked like one that is new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cache.errors import InvalidInputError
from cache.keys import canonical_json
from cache.rows import Batch, EntryMetadata, check_batch
from cache.staging import Frame


def header_of(batch: Batch, stop: int) -> dict[str, Any]:
    """Return what is staged of a batch besides its values."""
    return {
        "excluded": batch.excluded,
        "features_bytes": batch.features.nbytes,
        "ids": batch.ids,
        "row_metadata": dict(batch.row_metadata),
        "stop": stop,
    }


def payload_of(batch: Batch) -> bytes:
    """Return the values of a batch as they are staged."""
    return batch.features.tobytes() + batch.labels.tobytes()


def batch_of(frame: Frame, metadata: EntryMetadata, arrays: Mapping[str, Any]) -> Batch:
    """Return the batch that a frame holds.

    Parameters
    ----------
    frame : Frame
        Its checksum holds; that says nothing of who wrote it.
    metadata : EntryMetadata
        Of the entry.
    arrays : mapping
        ``dimension`` and ``features_dtype``, as the first frame has them.

    Raises
    ------
    InvalidInputError, AttributeError, KeyError, TypeError, ValueError
        It holds no batch of this entry.
    """
    header = frame.header
    rows, cut = len(header["ids"]), header["features_bytes"]
    features = np.frombuffer(frame.payload[:cut], arrays["features_dtype"])
    labels = np.frombuffer(frame.payload[cut:], np.int8 if metadata.multi_label else "<i8")
    batch = check_batch(
        metadata,
        features.reshape(rows, arrays["dimension"]),
        labels.reshape(rows, len(metadata.class_names)) if metadata.multi_label else labels,
        header["ids"],
        header["row_metadata"],
        header["excluded"],
    )
    if canonical_json(header) != canonical_json(header_of(batch, header["stop"])):
        raise InvalidInputError("another header than such rows have")
    return batch
