"""A whole small run under attack: killed, on a disk that is full or read-only, without its TMPDIR, and two at once.

Faults strike at counted file operations. By default a fixed part of the points is tried; `--slow` tries every one.
"""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_run import SmallRun
from tests.support.zygote import Answer, Zygote


@dataclass(frozen=True)
class Attack:
    """The run, the process that it is forked from, and what an undisturbed run gives."""

    small: SmallRun
    zygote: Zygote
    operations: int
    temporary_operations: int
    results: dict[str, Any]
    all_points: bool

    def points(self, count: int, operations: int | None = None) -> list[int]:
        """Return the operations to strike at."""
        every = range(operations or self.operations)
        return list(every) if self.all_points else sorted(random.Random(0).sample(every, min(count, len(every))))

    def run(self, kind: str = "count", at: int = 1 << 60, *, only_temporary: bool = False) -> Answer:
        """Run once."""
        return self.zygote.run(self.small.request(self.small.fault(kind, at, only_temporary=only_temporary)))[0]

    def faults_of_next(self) -> list[str]:
        """Run again, undisturbed; return what is not as after an undisturbed run."""
        answer = self.run()
        faults = [f"exit code {answer.code}: {answer.err[-2000:]}"] if answer.code else []
        found = self.small.results()
        faults += [name for name in found.keys() | self.results.keys() if found.get(name) != self.results.get(name)]
        return faults + [f"left: {path}" for path in self.small.left()]


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Attack]:
    small = SmallRun.write(tmp_path_factory.mktemp("faults") / "project")
    with Zygote() as zygote:
        for _ in range(2):  # the first run imports, which leaves files of libraries in its TMPDIR
            small.clean()
            answer = zygote.run(small.request())[0]
            assert answer.code == 0, answer.err
        results = small.results()
        assert small.left() == []
        small.clean()
        in_temporary = zygote.run(small.request(small.fault("count", only_temporary=True)))[0].operations
        assert small.results() == results
        every = request.config.getoption("--slow")
        yield Attack(small, zygote, answer.operations, in_temporary, results, every)


def test_the_run_has_at_least_200_operations(attack: Attack) -> None:
    assert attack.operations >= 200
    assert {
        "model_repository/small/config.pbtxt",
        "model_store/small.mar",
        "quantize-dynamic/model.onnx",
    } <= attack.results.keys()


def test_a_run_that_is_killed_is_completed_by_the_next_one(attack: Attack) -> None:
    wrong = {}
    for at in attack.points(24):
        attack.small.clean()
        answer = attack.run("kill", at)
        faults = [] if answer.code == -9 else [f"was not killed: {answer}"]
        faults += attack.faults_of_next()
        if faults:
            wrong[at] = faults
    assert wrong == {}


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_is_completed(attack: Attack) -> None:
    attack.small.clean()
    chance = random.Random(1)
    for _ in range(30):
        attack.run("kill", chance.randrange(attack.operations // 4))
    assert attack.faults_of_next() == []


@pytest.mark.parametrize(
    ("kind", "says"), [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_a_disk_that_takes_no_more_gives_an_error_and_the_next_run_completes(
    attack: Attack, kind: str, says: str
) -> None:
    wrong = {}
    for at in attack.points(6):
        attack.small.clean()
        answer = attack.run(kind, at)
        plain = answer.code == 2 and says in answer.err and "Traceback" not in answer.err
        late = answer.code == 0 and at > attack.operations * 0.9  # only deletions were left
        faults = [] if plain or late else [f"exit code {answer.code}: {answer.err[-2000:]}"]
        faults += [f"left by the run itself: {path}" for path in attack.small.left() if kind == "full"]
        faults += attack.faults_of_next()
        if faults:
            wrong[at] = faults
    assert wrong == {}


@pytest.mark.parametrize("kind", ["full", "gone"])
def test_without_a_folder_for_temporary_files(attack: Attack, kind: str) -> None:
    wrong = {}
    for at in attack.points(4, max(attack.temporary_operations, 1)):
        attack.small.clean()
        answer = attack.run(kind, at, only_temporary=True)
        plain = answer.code in (0, 1, 2) and "Traceback" not in answer.err
        faults = [] if plain else [f"exit code {answer.code}: {answer.err[-2000:]}"]
        attack.small.temporary.mkdir(exist_ok=True)
        faults += attack.faults_of_next()
        if faults:
            wrong[at] = faults
    assert wrong == {}


def test_a_tmpdir_that_never_was(attack: Attack) -> None:
    attack.small.clean()
    attack.small.temporary.rmdir()
    answer = attack.run()
    assert answer.code == 0, answer.err
    assert attack.small.results() == attack.results
    attack.small.temporary.mkdir()


def test_two_runs_of_one_folder_wait_for_each_other(attack: Attack) -> None:
    for _ in range(25 if attack.all_points else 3):
        attack.small.clean()
        answers = attack.zygote.run(attack.small.request(), attack.small.request())
        assert [answer.code for answer in answers] == [0, 0], answers
        assert sum(" writes to it; waiting until it ends" in answer.err for answer in answers) == 1
        assert attack.small.results() == attack.results
        assert attack.small.left() == []


def test_two_runs_of_one_folder_of_which_one_is_killed(attack: Attack) -> None:
    for at in attack.points(3)[:25]:
        attack.small.clean()
        killed = attack.small.request(attack.small.fault("kill", at))
        answers = attack.zygote.run(killed, attack.small.request())
        assert [answer.code for answer in answers] == [-9, 0], answers
        assert attack.faults_of_next() == []
        shutil.rmtree(attack.small.temporary)
        Path(attack.small.temporary).mkdir()
