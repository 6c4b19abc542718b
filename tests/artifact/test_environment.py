"""What a result depends on besides files: versions, optkit's own code, the processor."""

from pathlib import Path

import pytest

from optkit import deps
from optkit.artifact import environment


@pytest.fixture(autouse=True)
def fresh_hash():
    yield
    environment.own_code_sha256.cache_clear()


def test_the_versions_are_those_of_what_makes_and_runs_artifacts():
    found = environment.versions("pytest", "no-such-distribution")
    assert {"optkit", "python", "numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "optkit code"} <= set(found)
    assert found["pytest"] == pytest.__version__
    assert "no-such-distribution" not in found


def test_another_version_of_a_runtime_is_another_environment(monkeypatch):
    before = environment.versions()
    monkeypatch.setattr(deps, "version", lambda *names: "99.0")
    assert {name for name, version in environment.versions().items() if before.get(name) != version} >= {"onnxruntime"}


@pytest.mark.parametrize(
    ("file", "artifacts", "packages"),
    [("stages/x.py", True, True), ("serving/x.py", False, True), ("report/x.py", False, False)],
)
def test_the_code_of_optkit_that_matters_is_in_the_hash(tmp_path: Path, monkeypatch, file, artifacts, packages):
    monkeypatch.setattr(environment, "_PACKAGE", tmp_path)
    (tmp_path / file).parent.mkdir()
    found = []
    for code in ("a = 1", "a = 2"):
        (tmp_path / file).write_text(code)
        environment.own_code_sha256.cache_clear()
        found.append((environment.own_code_sha256(), environment.own_code_sha256(packages=True)))
    (before, before_packages), (after, after_packages) = found
    assert (before != after, before_packages != after_packages) == (artifacts, packages)


def test_processors_with_and_without_vnni_are_two():
    processor = environment.processor.__wrapped__
    found = {}
    for flags in ("fpu avx2 avx512_vnni", "avx2 fpu"):
        path = type("CpuInfo", (), {"read_text": lambda self, encoding, text=flags: f"processor : 0\nflags : {text}\n"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(environment, "Path", lambda _, path=path: path())
            found[flags] = processor().split()[1:]
    assert list(found.values()) == [["avx2", "avx512_vnni"], ["avx2"]]


def test_the_hardware_names_the_gpu_only_where_it_was_used():
    assert set(environment.hardware()) == {"processor"}
    assert set(environment.hardware(gpu=True)) == {"processor", "gpu"}
