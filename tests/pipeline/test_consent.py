"""Work of over an hour: who is asked, and how they answer."""

from __future__ import annotations

import io
import json
import sys

import pytest

from pipeline import consent
from pipeline.config import Study
from pipeline.run import run

PAPER = {"fine_tune": {"budget": "paper"}}


def test_work_of_over_an_hour_is_not_started_where_nobody_can_be_asked(workshop, penultimate) -> None:
    workshop.images()
    file = workshop.study(PAPER)
    for words in (("run",), ("fine-tune",), ("run", "--json"), ("run", "--quiet")):
        result = penultimate(*words, file)
        assert result.status == 2
        (line,) = result.errors
        for part in (" h (estimate, within a factor of", "of disk", "--yes"):
            assert part in line
        assert workshop.is_untouched()
    # What is small about the same study is not asked about.
    assert penultimate("extract", file).status == 0


def test_yes_answers_and_a_small_study_is_not_asked_about(cached: Study, penultimate, monkeypatch) -> None:
    monkeypatch.setattr(consent, "ASK_SECONDS", 0.0)
    refused = penultimate("probe", cached.file)
    assert refused.status == 2
    assert not (cached.output / "results").exists()
    agreed = penultimate("probe", cached.file, "--yes", "--json")
    assert agreed.status == 0
    told = json.loads(agreed.out)
    assert told["done"]
    assert told["estimate"]["seconds"] > 0
    # Nothing is left now, so nothing is asked.
    assert penultimate("probe", cached.file).status == 0


class Terminal(io.StringIO):
    """Standard input of somebody who sits there."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 2), ("\n", 2), ("", 4)])
def test_a_terminal_is_asked_once(cached: Study, penultimate, monkeypatch, answer: str, status: int) -> None:
    monkeypatch.setattr(consent, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    result = penultimate("run", cached.file)
    assert result.status == status
    assert result.err.count("start [y/N]") == 1
    assert "this takes about" in result.err
    assert (cached.output / "results").exists() == (status == 0)


def test_a_program_is_never_asked(cached: Study, monkeypatch) -> None:
    monkeypatch.setattr(consent, "ASK_SECONDS", 0.0)
    assert run(cached, ("probe",)).done
