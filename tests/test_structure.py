"""The house: packages that name their modules, nothing loose at the top, few layers."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / "optkit"
AT_THE_TOP = {"__init__", "__main__", "_version", "deps", "errors", "hashing", "messages", "progress", "record"}


def test_no_module_stands_loose() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} == AT_THE_TOP


@pytest.mark.parametrize(
    "init", sorted(PACKAGE.rglob("*/__init__.py")), ids=lambda init: str(init.parent.relative_to(PACKAGE))
)
def test_each_package_says_what_each_of_its_modules_does(init: Path) -> None:
    text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
    words = set(text.replace(",", " ").replace("/", " ").replace("`", " ").split())
    inside = {path.stem for path in init.parent.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert not {name for name in inside if not name.startswith("__")} - words


def test_there_are_at_most_14_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {contract["containers"][0]: contract["layers"] for contract in contracts if contract["type"] == "layers"}
    assert len(layers["optkit"]) <= 14
    assert {"optkit.serving", "optkit.choose"} <= layers.keys()


def test_the_layers_hold() -> None:
    found = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
