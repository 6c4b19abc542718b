"""The examples, each run as its reader runs it: in an empty folder, by a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

EXAMPLES = ROOT / "examples"
# Script -> what it prints.
SAYS = {
    "export_to_onnx.py": ["digits.onnx (onnx, fp32, ", "opset 20", "accuracy of the file 0.9"],
    "int8_from_a_dataloader.py": ["digits.int8.onnx (onnx, int8, ", "calibration data: 1347 samples"],
    "bench_table.py": ["speed-up over digits.onnx", "Sequential at batch 1: "],
    "triton_repository.py": [
        "1 model: no findings",
        "error T305: output 'logits': dims [12]",
        "1 model: 1 error, 0 warnings",
    ],
    "same_recipe.py": ["export-onnx", "quantize-static", " the same"],
}


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with optkit as it is here."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=600)


def run(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(folder, str(EXAMPLES / script), *arguments)


@pytest.mark.parametrize("script", SAYS)
def test_it_runs_and_says_what_it_found(script: str, tmp_path: Path) -> None:
    found = run(tmp_path, script)
    assert found.returncode == 0, found.stdout + found.stderr
    for words in SAYS[script]:
        assert words in found.stdout
    assert "Traceback" not in found.stderr


def test_the_job_of_ci_passes_and_fails_by_its_gates(tmp_path: Path) -> None:
    good = run(tmp_path, "ci_gates.py")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "failed:" not in good.stdout
    assert (tmp_path / "build" / "report.html").is_file()
    bad = run(tmp_path, "ci_gates.py", "--max-size-mb", "0.001")
    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert "reused: 3 of 3 artifacts; nothing was rebuilt" in bad.stdout  # a gate is no part of what is made
    assert re.search(r"^failed: .*size", bad.stdout, re.MULTILINE)


def test_every_example_can_be_run_twice_in_one_process_and_makes_the_same(tmp_path: Path) -> None:
    code = f"""
import os, runpy, sys
sys.path.insert(0, {str(EXAMPLES)!r})
for folder in ("one", "two"):
    os.makedirs(folder)
    os.chdir(folder)
    for script in ("export_to_onnx.py", "triton_repository.py"):
        runpy.run_path(os.path.join({str(EXAMPLES)!r}, script), run_name="__main__")
    os.chdir("..")
"""
    found = python(tmp_path, "-c", code)
    assert found.returncode == 0, found.stdout + found.stderr
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.onnx"))
    assert len(files) == 2
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_every_script_is_tested_and_short() -> None:
    scripts = {path.name: path.read_text() for path in EXAMPLES.glob("*.py") if path.name != "digits.py"}
    assert scripts.keys() == {*SAYS, "ci_gates.py"}
    for name, text in scripts.items():
        assert text.count("\n# %%") >= 3, name
        assert text.count("\n") <= 45, name


def test_the_readme_names_them_and_its_own_example_runs(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## From Python")[2].partition("\n## ")[0]
    for script in (*SAYS, "ci_gates.py"):
        assert f"(examples/{script})" in section
    code = section.partition("```python\n")[2].partition("```")[0]
    found = python(tmp_path, "-c", code)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "speed-up over model.onnx" in found.stdout
