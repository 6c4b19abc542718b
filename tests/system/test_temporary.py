"""Temporary files and folders: those of a living process stay, those of a killed one go."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from optkit.system import temporary
from optkit.system.temporary import sweep, temporary_file, temporary_folder

_MAKE = """
import sys, time
from pathlib import Path
from optkit.system.temporary import temporary_file, temporary_folder
folder = Path(sys.argv[1])
with temporary_file(folder / "model.onnx"), temporary_folder(folder, "step") as made, temporary_folder() as own:
    (made / "deep").mkdir()
    (made / "deep" / "file").write_text("x")
    print(own, flush=True)
    time.sleep(60)
"""


def owner_of(name: str) -> int:
    owner = temporary._NAME.search(name)
    assert owner
    return int(owner["pid"])


def start_maker(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", _MAKE, folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tmp"
    root.mkdir()
    monkeypatch.setenv("TMPDIR", str(root))
    (tmp_path / "out" / "step").mkdir(parents=True)
    mine = tmp_path / "out" / ".optkit-notes"
    mine.write_text("the user's")
    process = start_maker(tmp_path / "out" / "step")
    try:
        for exclusive in (False, True):
            sweep(tmp_path / "out", deep=True, exclusive=exclusive)
            sweep(root)
        made = [*(tmp_path / "out" / "step").iterdir(), *root.iterdir()]
        assert [owner_of(path.name) for path in made] == [process.pid] * 3
    finally:
        kill(process)
    sweep(tmp_path / "out")
    assert len(list((tmp_path / "out" / "step").iterdir())) == 2  # only `deep` looks there
    sweep(tmp_path / "out", deep=True)
    sweep(root)
    assert [*(tmp_path / "out" / "step").iterdir(), *root.iterdir()] == []
    assert mine.read_text() == "the user's"


def test_a_killed_process_that_nobody_waited_for_is_gone(tmp_path: Path) -> None:
    process = start_maker(tmp_path)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    process.communicate()


def test_a_new_process_with_the_number_of_a_dead_one_protects_nothing(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, "step") as folder:
        head, start, tail = folder.name.rpartition(f"-{os.getpid()}-")[0], *folder.name.split("-")[-3:-1]
        older = tmp_path / f"{head}-{os.getpid()}-{int(start) - 1}-{tail}-00000000"
        older.mkdir()
        sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [folder]


def test_what_another_machine_made_goes_under_the_lock_or_after_ten_days(tmp_path: Path) -> None:
    fresh = tmp_path / f".model.onnx.optkit-{os.getpid()}-1-00000000-00000000"
    old = tmp_path / ".model.onnx.optkit-1-1-00000000-00000001"
    fresh.write_text("")
    old.write_text("")
    os.utime(old, (0, 0))
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [fresh]
    sweep(tmp_path, exclusive=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "x"])
def test_the_name_of_a_temporary_file_is_no_longer_than_a_file_system_takes(tmp_path: Path, name: str) -> None:
    with temporary_file(tmp_path / name) as file:
        assert len(file.name.encode()) <= 255
        assert owner_of(file.name) == os.getpid()
        file.replace(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    gone = tmp_path / "kept" / ".f.optkit-1-1-00000000-00000001"
    gone.write_text("")
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "swept" / ".g.optkit-1-1-00000000-00000001").symlink_to(tmp_path / "kept")
    sweep(tmp_path / "swept", deep=True, exclusive=True)
    assert gone.exists()
    assert [path.name for path in (tmp_path / "swept").iterdir()] == ["link"]


def test_without_proc_a_process_is_there_when_a_signal_reaches_it() -> None:
    assert temporary._runs(os.getpid()) == 0
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert temporary._runs(process.pid) is None


def test_the_folder_for_temporary_files_is_the_one_that_python_chooses(tmp_path: Path) -> None:
    code = "from optkit.system.temporary import temporary_root as r; import tempfile; print(r()); tempfile.tempdir = None; print(tempfile.gettempdir())"
    for folder in (tmp_path, tmp_path / "none", Path("relative")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"TMPDIR": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        )
        ours, python = done.stdout.splitlines()
        assert ours == python
    assert list(tmp_path.iterdir()) == []
