"""docs/security.md: each claim names the test that proves it. Here are the tests of the claims that have no other home."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from optkit.api.inspect import inspect
from optkit.artifact import Artifact
from optkit.errors import OptkitError
from tests.support import ROOT
from tests.support.project import CommandLine, command_line

ROWS = re.findall(
    r"^\| (.+?) \| (tests/\S+?\.py)::(\w+) \|$", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE
)


def test_there_are_claims() -> None:
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("claim", "file", "name"), ROWS, ids=lambda part: part[:40])
def test_each_claim_has_its_test(claim: str, file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    tests = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name in tests, f"{claim}: {file} has no {name}"
    assert not any("skip" in ast.dump(decorator) for decorator in tests[name].decorator_list)


@pytest.fixture
def optkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    yield from command_line(monkeypatch, capsys)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "optkit").rglob("*.py")):
        yield path.relative_to(ROOT / "optkit").as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_no_process_is_started_by_a_shell() -> None:
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                assert isinstance(node.value, ast.Constant), name
                assert node.value.value is False, name
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {
                    ("os", "system"),
                    ("os", "popen"),
                    ("subprocess", "getoutput"),
                }, name


CLIENTS = (
    "serving/server/",
    "serving/clients/",
    "serving/triton/",
    "loadtest/",
)  # of the server that the user names, or that optkit started
NETWORK = {"socket", "http.client", "urllib.request", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "websockets"}


def test_only_clients_of_servers_use_the_network() -> None:
    for name, tree in modules():
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & NETWORK or name.startswith(CLIENTS), f"{name} imports {imported & NETWORK}"


def test_inspect_loads_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_linear: Artifact) -> None:
    import torch

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("was loaded")

    monkeypatch.setattr(torch.jit, "load", refuse)
    monkeypatch.setattr(torch.export, "load", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    for name in ("m.pt", "m.pt2", "m.py", "m.mar"):
        (tmp_path / name).write_bytes(onnx_linear.path.read_bytes())
        with pytest.raises(OptkitError):
            inspect(tmp_path / name)
    assert inspect(onnx_linear.path).artifact.sha256 == onnx_linear.sha256


def test_a_token_is_in_no_output(
    optkit: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: str
) -> None:
    """Nor in the arguments of a process: none is started with one."""
    started: list[object] = []
    popen = subprocess.Popen.__init__
    monkeypatch.setattr(
        subprocess.Popen, "__init__", lambda self, *a, **k: started.append((a, k)) or popen(self, *a, **k)
    )
    monkeypatch.chdir(tmp_path)
    secret = "s3cret-t0ken-value"
    monkeypatch.setenv("OPTKIT_TOKEN", secret)
    (tmp_path / "b.json").write_text("{}")
    for command in (
        ("loadtest", f"http://{nobody}/predictions/m", "--body", "b.json", "-vv"),
        ("ab", f"http://{nobody}/predictions/a", f"http://{nobody}/predictions/b", "--data", "b.json"),
    ):
        found = optkit(*command)
        assert found.code == 2
        assert secret not in found.out + found.err
    assert secret not in repr(started)
    assert not any(secret in path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
