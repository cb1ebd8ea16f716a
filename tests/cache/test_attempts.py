"""Trying again: said once in full, then in few words."""

from __future__ import annotations

import pytest

from cache import attempts
from cache.attempts import ATTEMPTS, Attempts
from cache.errors import RemoteError


def test_the_same_failure_is_not_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts.time, "sleep", lambda _seconds: None)
    told: list[str] = []

    def failing() -> None:
        raise ConnectionError("nobody answers")

    with pytest.raises(RemoteError, match="nobody answers"):
        Attempts("s3://b", told.append).run("listing", failing)
    assert len(told) == ATTEMPTS - 1
    assert "nobody answers" in told[0]
    assert [line.partition(";")[0] for line in told[1:]] == ["s3://b: the same again"] * (ATTEMPTS - 2)
