from collections.abc import Iterator

import pytest

from tests.support import project


@pytest.fixture
def optkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[project.CommandLine]:
    """Run the command line in this process, as the console script does: arguments in, exit code and both streams out."""
    yield from project.command_line(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that nothing is written where the tests lie."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
