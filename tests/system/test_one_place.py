"""What survives a kill is made in one place: no other module makes named temporary files, or starts a process that may run for long."""

import ast
from pathlib import Path

from tests.support import ROOT

PACKAGE = ROOT / "optkit"
NAMED = {
    "mkstemp",
    "mkdtemp",
    "TemporaryDirectory",
    "NamedTemporaryFile",
}  # TemporaryFile has no name, so a kill leaves nothing


def uses(names: set[str]) -> set[str]:
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
            if name in names:
                found.add(str(Path(file).relative_to(PACKAGE)))
    return found


def test_temporary_files_are_made_in_one_place() -> None:
    assert uses(NAMED) == set()


def test_processes_are_started_in_one_place() -> None:
    assert uses({"Popen", "fork", "execv", "posix_spawn"}) == {"system/child.py", "system/supervisor.py"}
