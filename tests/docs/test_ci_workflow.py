"""The ready workflow: it holds GitHub's schema, and its shell steps do what they say, on the main branch and on a pull request."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT
from tests.support.project import BENCH, ONNX, edit, write_project

WORKFLOW = ROOT / "docs" / "github-actions.yml"
SLOWER = """
class Slower(Model):
    def __init__(self):
        super().__init__()
        self.work = torch.nn.Linear(1024, 1024)

    def forward(self, x):
        wide = x.repeat(1, 256)
        for _ in range(4):
            wide = torch.tanh(self.work(wide))
        return SCALE * self.linear(x) + 0 * wide.mean()


def build():
    torch.manual_seed(0)
    return Slower()
"""


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_workflow_holds_githubs_schema(tmp_path: Path) -> None:
    found = check(WORKFLOW)
    assert found.returncode == 0, found.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOW.read_text().replace("runs-on: ubuntu-latest", "runs-at: ubuntu-latest"))
    assert check(broken).returncode == 1


class Job:
    """Runs the shell steps of the workflow as a runner would; what is fetched and saved by actions stays where it is."""

    def __init__(self, folder: Path) -> None:
        self.job: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]["models"]
        self.folder = folder
        here = {
            "RECIPE": "recipe.yaml",
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | self.job["env"] | here | {"PATH": path, "MAX_REGRESSION": "20%"}

    def run(self, ref: str) -> subprocess.CompletedProcess[str]:
        """Run the steps in their order up to the first that fails; return the last one."""
        done = None
        for step in self.job["steps"]:
            asked = step.get("if", "always()")
            if "run" not in step or step["name"] == "Install" or asked not in ("always()", f"github.ref == '{ref}'"):
                continue
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                break
        assert done is not None
        return done


@pytest.mark.slow
def test_main_keeps_a_baseline_and_a_slower_pull_request_fails_by_name(tmp_path: Path) -> None:
    write_project(tmp_path, steps=[ONNX], bench=BENCH | {"min_blocks": 6, "max_blocks": 6})
    edit(tmp_path / "model.py", "def build():\n", "def build():\n    torch.manual_seed(0)\n")
    job = Job(tmp_path)
    main = job.run("refs/heads/main")
    assert main.returncode == 0, main.stderr
    assert (tmp_path / "build" / "baseline" / "run.json").is_file()
    assert (tmp_path / "output").read_text().startswith("key=")

    with (tmp_path / "model.py").open("a") as stream:
        stream.write(SLOWER)
    request = job.run("refs/pull/1/merge")
    assert request.returncode == 1, request.stderr
    assert "::error file=recipe.yaml,title=export-onnx%3A latency against the baseline" in request.stderr
    assert len((tmp_path / "build" / "baseline" / "history.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "junit.xml").is_file()
    assert (tmp_path / "summary.md").read_text().count("### ") == 2
