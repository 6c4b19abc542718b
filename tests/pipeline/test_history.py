"""The history file: one line a run, and damage that is named."""

import json
from pathlib import Path

import pytest

from optkit.errors import ArtifactError, OutputError
from optkit.pipeline.history import HistoryEntry, add_to_history, read_history
from tests.support.runs import run_record


def entry(day: int = 1) -> HistoryEntry:
    times = {"source": 1.0 * day, "export-onnx": 0.5, "quantize-static": 0.25}
    return HistoryEntry.of(run_record(times, created=f"2026-01-0{day}T00:00:00"))


def test_runs_are_added_and_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "made" / "history.jsonl"
    assert read_history(path) == []
    entries = [entry(day) for day in (1, 2)]
    assert [add_to_history(path, one) for one in entries] == [entries[:1], entries]
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
    add_to_history(path, HistoryEntry.of(run_record()))
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ArtifactError) as error:
        read_history(path)
    assert message in str(error.value)
    assert json.loads(path.read_text().splitlines()[0])  # nothing was changed


def test_a_history_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written \("):
        add_to_history(tmp_path / "file" / "history.jsonl", entry())
    with pytest.raises(OutputError, match=r"cannot be written \(is a directory\)"):
        add_to_history(tmp_path, entry())


def test_measurements_that_are_in_the_history_are_not_added_again(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    add_to_history(path, entry())
    later = entry().model_copy(update={"created": "2027-01-01T00:00:00", "commit": "other"})
    assert add_to_history(path, later) == [entry()]
    assert len(path.read_text().splitlines()) == 1


def test_the_start_of_a_line_that_a_killed_run_left_is_left_out_and_then_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "history.jsonl"
    add_to_history(path, entry(1))
    whole = path.read_bytes()
    add_to_history(path, entry(2))
    both = path.read_bytes()
    for end in (len(whole) + 1, len(both) - 10, len(both) - 1):
        path.write_bytes(both[:end])
        caplog.clear()
        assert read_history(path) == [entry(1)]
        assert caplog.messages == [
            f"{path}: its last line has no end, because the process that wrote it was killed; it is left out"
        ]
        assert add_to_history(path, entry(2)) == [entry(1), entry(2)]
        assert path.read_bytes() == both


def test_a_history_without_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"schema": "opt')
    assert read_history(path) == []
    assert add_to_history(path, entry()) == [entry()]
    assert read_history(path) == [entry()]
