"""The history file: one line a run, and damage that is named."""

import json
from pathlib import Path

import pytest

from optkit.errors import ArtifactError, OutputError
from optkit.pipeline.history import HistoryEntry, append_history, read_history
from tests.support.runs import run_record


def test_runs_are_added_and_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "made" / "history.jsonl"
    assert read_history(path) == []
    entries = [HistoryEntry.of(run_record(created=f"2026-01-0{day}T00:00:00")) for day in (1, 2)]
    for entry in entries:
        append_history(path, entry)
    assert read_history(path) == entries
    assert len(path.read_text().splitlines()) == 2
    assert entries[0].machine == "CPU 9000, 4 cores"
    assert entries[0].variants[2].p50_ms == {1: 0.25, 8: pytest.approx(0.707, abs=0.001)}


def test_the_commit_is_the_one_that_ci_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITHUB_SHA", "abc")
    assert HistoryEntry.of(run_record()).commit == "abc"
    monkeypatch.delenv("GITHUB_SHA")
    monkeypatch.chdir(tmp_path)  # no repository
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert HistoryEntry.of(run_record()).commit is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "history.jsonl:2: cannot be read as JSON"),
        ('{"schema": "optkit/history/0"}', "history.jsonl:2: schema 'optkit/history/0'"),
        ("[]", "history.jsonl:2: schema None"),
        ('{"schema": "optkit/history/1"}', "history.jsonl:2: created: Field required"),
    ],
)
def test_a_damaged_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_history(path, HistoryEntry.of(run_record()))
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ArtifactError) as error:
        read_history(path)
    assert message in str(error.value)
    assert json.loads(path.read_text().splitlines()[0])  # nothing was changed


def test_a_history_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        append_history(tmp_path, HistoryEntry.of(run_record()))
