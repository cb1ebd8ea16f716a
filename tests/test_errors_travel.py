"""Errors cross from worker processes: what cannot be unpickled would break the pool of workers."""

import pickle
from pathlib import Path

import pytest

from cache import DamagedEntryError
from pipeline.errors import StudyError
from stages.errors import DivergedError, MissingExtraError


@pytest.mark.parametrize(
    "error",
    [
        DamagedEntryError(Path("a.h5"), "truncated", Path("quarantine/a.h5")),
        DivergedError(7),
        MissingExtraError("torch", "vision"),
        StudyError(["one", "two"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_through_with_its_words(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
