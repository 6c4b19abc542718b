"""The walk of CI: a baseline is kept, a slower model fails its gate by name, noise passes; and baselines that are none."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.project import BENCH, ONNX, CommandLine, edit, write_project
from tests.support.runs import bench, run_record, step

QUICK = ("--batch", "2", "--time-limit-s", "2")
SLOWER = '''
class Slower(Model):
    """Gives the same answers, after much more work: some twenty times the time of the linear layer alone."""

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
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project's folder, which is the working directory."""
    write_project(tmp_path, steps=[ONNX], bench=BENCH | {"min_blocks": 6, "max_blocks": 6})
    edit(tmp_path / "model.py", "def build():\n", "def build():\n    torch.manual_seed(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path


def slow_down(folder: Path) -> None:
    """Change the model's code, as a commit would."""
    with (folder / "model.py").open("a") as stream:
        stream.write(SLOWER)


@pytest.mark.measures
def test_a_slower_model_fails_the_gate_of_its_recipe_by_name(optkit: CommandLine, folder: Path) -> None:
    gates = ("--set", "gates.baseline=baseline/run.json", "--set", "gates.max_regression=20%")
    assert optkit("run", "recipe.yaml", "-o", "baseline").code == 0
    same = optkit("run", "recipe.yaml", "-o", "out", *gates)
    assert (same.code, same.err.count("failed")) == (0, 0)

    slow_down(folder)
    found = optkit("run", "recipe.yaml", "-o", "out", *gates, "--junit", "junit.xml", "--github")
    assert found.code == 1
    assert "measure 1 files of the baseline again, together with the new ones" in found.err
    assert "failed: export-onnx: latency at batch 2: worse by +" in found.err
    assert "::error file=recipe.yaml,title=export-onnx%3A latency against the baseline%2C batch 2::" in found.err
    assert '<failure message="latency at batch 2: worse by' in (folder / "junit.xml").read_text()
    assert "❌ tiny" in (folder / "summary.md").read_text()
    record = json.loads((folder / "out" / "run.json").read_text())
    assert record["winner"] is None
    assert record["comparison"]["method"].startswith("the baseline's files were measured again, in the same blocks")
    assert len((folder / "out" / "history.jsonl").read_text().splitlines()) == 2
    assert "export-onnx: latency at batch 2: worse by" in (folder / "out" / "report.html").read_text()


@pytest.mark.measures
def test_a_slower_file_fails_against_a_stored_benchmark(optkit: CommandLine, folder: Path) -> None:
    export = ("export", "onnx", "model.py:build", "--input", "x:float32[batch,4]", "--dim", "batch=1:4:8",
              "--exporter", "torchscript", "--opset", "17")  # fmt: skip
    assert optkit(*export, "-o", "before/m.onnx").code == 0
    stored = optkit("bench", "before/m.onnx", *QUICK, "--json")
    (folder / "baseline.json").write_text(stored.out)
    slow_down(folder)
    assert optkit(*export, "-o", "now/m.onnx").code == 0
    gate = ("--baseline", "baseline.json", "--max-regression", "20%")

    same = optkit("bench", "before/m.onnx", *QUICK, *gate)
    assert same.code == 0
    again = optkit("bench", "now/m.onnx", *QUICK, *gate, "--junit", "j.xml", "--github")
    assert again.code == 1
    assert "failed: m.onnx: latency at batch 2: worse by +" in again.err
    assert "compared: the baseline's files were measured again" in again.out
    assert "::error file=now/m.onnx,title=m.onnx%3A latency" in again.err
    assert "worse, failed" in again.out
    both = json.loads(optkit("bench", "now/m.onnx", *QUICK, *gate, "--json").out)
    assert both["comparison"]["changes"][0]["artifact"] == "m.onnx"

    shutil.rmtree(folder / "before")  # only the numbers are left
    stored_only = optkit("bench", "now/m.onnx", *QUICK, *gate)
    assert "compared: two stored runs that share no file" in stored_only.out
    assert "worse by +" in stored_only.err  # failed, or a warning where the machine is busy


def test_options_of_a_comparison_need_a_baseline(optkit: CommandLine, folder: Path) -> None:
    for option in (("--max-regression", "5%"), ("--junit", "j.xml"), ("--github",)):
        found = optkit("bench", "m.onnx", *option)
        assert found.code == 2
        assert "need an earlier run to compare with. Give --baseline run.json." in found.err


def write(path: Path, p50_ms: dict[str, float], **changes: object) -> None:
    run_record(p50_ms, **changes).write(path)


def test_compare_tells_every_metric_and_fails_by_its_gates(optkit: CommandLine, folder: Path) -> None:
    before = {"source": 1.0, "export-onnx": 0.5, "quantize-static": 0.25}
    write(folder / "old.json", before)
    steps = (step("export-onnx"), step("quantize-static", sha256="other"))
    write(folder / "same.json", before | {"quantize-static": 0.251}, steps=steps)
    write(folder / "slow.json", before | {"quantize-static": 0.3}, steps=steps)

    assert optkit("compare", "old.json", "same.json", "--max-regression", "5%").code == 0
    assert optkit("compare", "old.json", "slow.json").code == 0  # no gate was asked for
    slow = optkit("compare", "old.json", "slow.json", "--max-regression", "5%", "--junit", "j.xml", "--github")
    assert slow.code == 1
    assert "failed: quantize-static: latency at batch 1: worse by +20.0%" in slow.err
    assert "::error file=slow.json,title=quantize-static%3A latency" in slow.err
    assert (folder / "j.xml").is_file()
    assert max(map(len, slow.out.splitlines()[:-1])) <= 80
    assert "\x1b[" not in slow.out + slow.err
    assert [line.split()[:2] for line in slow.out.splitlines() if line.startswith("latency")][:2] == [
        ["latency", "@1"], ["latency", "@8"],
    ]  # fmt: skip
    document = json.loads(optkit("compare", "old.json", "slow.json", "--json").out)
    assert document["schema"] == "optkit/comparison/2"
    assert optkit("compare", "old.json", "slow.json", "--markdown").out.startswith("### ✅ tiny against the baseline")


@pytest.mark.parametrize("share", ["five", "5%%", "", "5% or so"])
def test_a_share_that_is_none_is_refused(share: str, optkit: CommandLine, folder: Path) -> None:
    found = optkit("compare", "a.json", "b.json", "--max-regression", share)
    assert found.code == 2
    assert f"--max-regression {share}: expected a fraction, as in 5% or 0.05" in found.err


@pytest.mark.parametrize("share", ["-5%", "nan", "inf"])
def test_a_share_out_of_range_is_refused(share: str, optkit: CommandLine, folder: Path) -> None:
    found = optkit("compare", "a.json", "b.json", f"--max-regression={share}")
    assert found.code == 2
    assert "--max-regression" in found.err


def test_another_machine_is_refused_unless_told_otherwise(optkit: CommandLine, folder: Path) -> None:
    record = run_record()
    assert record.bench is not None
    record.write(folder / "here.json")
    machine = record.machine.model_copy(update={"cpu": "CPU 1", "cores": 64})
    p50_ms = {"source": 1.0, "export-onnx": 0.5}
    write(folder / "there.json", p50_ms, bench=bench(p50_ms, machine=machine))
    refused = optkit("compare", "there.json", "here.json")
    assert refused.code == 2
    assert "was measured on another machine (cpu 'CPU 1' before, 'CPU 9000' now; cores 64 before, 4 now)" in refused.err
    compared = optkit("compare", "there.json", "here.json", "--across-machines")
    assert compared.code == 0
    assert "differs: cores 64 before, 4 now" in compared.out


def test_a_baseline_of_another_model_is_refused_before_the_work(optkit: CommandLine, folder: Path) -> None:
    run_record().write(folder / "other.json")
    found = optkit(
        "run", "recipe.yaml", "-o", "out", "--set", "gates.baseline=other.json", "--set", "gates.max_regression=5%"
    )
    assert found.code == 2
    assert (
        "was made from another model: its outputs are y:float32[batch,3]; those of the new run are output:float32[batch,3]"
        in found.err
    )
    assert not (folder / "out" / "export-onnx").exists()


def test_the_schema_of_each_document_is_printed(optkit: CommandLine, folder: Path) -> None:
    for name in ("run", "bench", "comparison", "ab", "history", "passport"):
        schema = json.loads(optkit("schema", name).out)
        assert schema["properties"]["schema"]["const"].startswith(f"optkit/{name}/")
    found = optkit("schema", "rum")
    assert found.code == 2
    assert "rum: unknown document; expected one of run, bench, comparison, ab, history, loadtest, passport" in found.err


def test_the_report_is_written_again_from_the_records(optkit: CommandLine, folder: Path) -> None:
    write(folder / "run.json", {"source": 1.0, "export-onnx": 0.5})
    found = optkit("report", ".")
    assert (found.code, found.out.strip()) == (0, "report.html")
    assert "</html>" in (folder / "report.html").read_text()
    assert optkit("report", ".", "--markdown").out.startswith("### ✅ tiny")
    assert json.loads(optkit("report", ".", "--json").out)["recipe"] == "tiny"
    nothing = optkit("report", "nowhere")
    assert nothing.code == 2
    assert "nowhere: contains no run.json; expected the folder of a run" in nothing.err


STACK = """
import torch

WIDTH = 96


def build(layers=20, seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        *(module for _ in range(layers) for module in (torch.nn.Linear(WIDTH, WIDTH, bias=False), torch.nn.ReLU()))
    )
    for parameter in model.parameters():
        torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    return model
"""


@pytest.mark.slow
@pytest.mark.measures
def test_a_fifth_more_work_is_found_and_other_weights_are_not(
    optkit: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made up: equal layers, of which there are a fifth more, or as many with other weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(STACK)
    write_project(
        tmp_path,
        inputs={"x": "float32[batch, 96]"},
        dims={"batch": "1:32:64"},
        steps=[ONNX],
        bench={"batches": [32], "threads": 1, "time_limit_s": 20},
    )
    gates = ("--set", "gates.baseline=baseline/run.json", "--set", "gates.max_regression=5%", "--junit", "junit.xml")
    assert optkit("run", "recipe.yaml", "-o", "baseline").code == 0

    other = optkit("run", "recipe.yaml", "-o", "other", *gates, "--set", "model.args.seed=1")
    assert other.code == 0, other.err
    assert "measure 1 files of the baseline again, together with the new ones" in other.err
    assert "<failure" not in (tmp_path / "junit.xml").read_text()

    longer = optkit("run", "recipe.yaml", "-o", "longer", *gates, "--set", "model.args.layers=24")
    assert longer.code == 1, longer.err
    assert "failed: export-onnx: latency at batch 32: worse by +" in longer.err
    assert '<failure message="latency at batch 32: worse by +' in (tmp_path / "junit.xml").read_text()
    changes = json.loads((tmp_path / "longer" / "run.json").read_text())["comparison"]["changes"]
    latency = next(c for c in changes if c["artifact"] == "export-onnx" and c["metric"] == "latency")
    assert latency["worse_by"] == pytest.approx(0.2, abs=0.1)
