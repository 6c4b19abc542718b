import json
from pathlib import Path
from typing import Any

import pytest

from optkit.artifact import read_passport
from optkit.pipeline.records import RunRecord
from optkit.report.html import page
from optkit.stages import ExportTorchScript
from tests.support import zoo
from tests.support.project import (
    BENCH,
    DYNAMIC,
    ONNX,
    STATIC,
    TORCHSCRIPT,
    carry_out,
    files_below,
    statuses,
    write_project,
    write_recipe,
)

FAILS = ONNX | {"opset": 99}
DATA = {"calibration": "model.py:calibration", "evaluation": "model.py:evaluate"}


def run_with(folder: Path, **keys: Any) -> RunRecord:
    return carry_out(write_project(folder, **keys))


def test_a_run_leaves_its_record_and_a_folder_for_each_step(tmp_path: Path) -> None:
    serve = [{"target": "triton"}, {"target": "torchserve", "artifact": "export-torchscript"}]
    record = run_with(tmp_path, steps=[TORCHSCRIPT, ONNX, DYNAMIC, STATIC], data=DATA, serve=serve)
    assert record.exit_code == 0
    assert record.failures == ()
    assert RunRecord.read(tmp_path / "out" / "run.json") == record
    for step in record.steps:
        assert step.parity is not None
        assert step.parity.passed
        assert step.batch_independence is not None
        assert step.batch_independence.passed
        assert step.accuracy is not None
        assert step.accuracy.value == 1
        assert step.file is not None
        assert (tmp_path / "out" / step.file).stat().st_size == step.size_bytes
    assert record.source.parity is None
    assert record.winner is not None
    assert [packaged.target for packaged in record.packaged] == ["triton", "torchserve"]
    assert {path.split("/")[0] for path in files_below(tmp_path / "out")} == {
        "source", "export-torchscript", "export-onnx", "quantize-dynamic", "quantize-static",
        "model_repository", "model_store", "model_repository_clients", "model_store_clients",
        "run.json", "bench.json", "packages.json",
    }  # fmt: skip


def test_each_step_in_the_record_has_the_passport_of_its_file(tmp_path: Path) -> None:
    recipe = write_project(tmp_path, steps=[ONNX, FAILS | {"name": "fails"}])
    for _ in range(2):  # made, and reused
        record = carry_out(recipe)
        made, fails = record.steps
        passport = read_passport(tmp_path / "out" / "export-onnx" / "model.onnx")
        assert passport is not None
        assert passport.measurements  # which the record has once, in its benchmark
        assert made.passport == passport.model_copy(update={"measurements": ()})
        assert fails.passport is None
    stored = json.loads((tmp_path / "out" / "run.json").read_text())
    assert stored["steps"][0]["passport"]["parity"]["outputs"]
    assert set(stored["steps"][1]) == {
        "name", "stage", "parent", "status", "optional", "reason", "passport", "size_bytes", "failures", "over_budget",
    }  # fmt: skip


def test_the_users_function_is_called_once_for_all_that_reads_its_feeds(tmp_path: Path) -> None:
    recipe = write_project(
        tmp_path, steps=[ONNX, STATIC, {"stage": "quantize-torch"}], data={"calibration": "feeds.py:feeds"}
    )
    (tmp_path / "feeds.py").write_text(
        "from pathlib import Path\n"
        "import model\n"
        "def feeds():\n"
        "    with open(Path(__file__).with_name('calls'), 'a') as stream:\n"
        "        stream.write('.')\n"
        "    return list(model.calibration())\n"
    )
    assert carry_out(recipe).failures == ()
    assert (tmp_path / "calls").read_text() == "."


def test_every_artifact_and_the_model_itself_are_measured(tmp_path: Path) -> None:
    record = run_with(tmp_path, bench=BENCH | {"batches": [1, 8]})
    assert record.bench is not None
    names = ["source", "export-torchscript", "export-onnx"]
    assert [(m.batch, m.artifact) for m in record.bench.measurements] == [(b, n) for b in (1, 8) for n in names]
    assert {s.reference for s in record.bench.speed_ups} == {"source"}
    passport = json.loads((tmp_path / "out" / "export-onnx" / "model.onnx.passport.json").read_text())
    assert [m["batch"] for m in passport["measurements"]] == [1, 8]


def test_a_step_that_fails_ends_only_its_branch(tmp_path: Path) -> None:
    record = run_with(tmp_path, steps=[FAILS, DYNAMIC, TORCHSCRIPT], serve=[{"target": "triton"}])
    assert record.exit_code == 2
    assert statuses(record) == {
        "source": "built", "export-onnx": "failed", "quantize-dynamic": "skipped", "export-torchscript": "built",
    }  # fmt: skip
    failed, skipped, _ = record.steps
    assert failed.reason is not None
    assert failed.reason.startswith("export-onnx: the torchscript exporter failed: ")
    assert skipped.reason == "its input 'export-onnx' was not made"
    assert record.failures == (f"export-onnx: {failed.reason}",)
    assert record.winner is not None
    assert record.winner.artifact == "export-torchscript"
    assert len(record.packaged) == 1
    assert not [path for path in files_below(tmp_path / "out") if "export-onnx" in path]


def test_an_optional_step_may_fail(tmp_path: Path) -> None:
    record = run_with(tmp_path, steps=[FAILS | {"optional": True}, TORCHSCRIPT])
    assert statuses(record)["export-onnx"] == "failed"
    assert record.exit_code == 0


def test_a_step_whose_package_is_missing_is_skipped_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExportTorchScript, "requires", lambda self: ("no_such_package",))
    record = run_with(tmp_path, steps=[TORCHSCRIPT | {"optional": True}, ONNX])
    assert statuses(record)["export-torchscript"] == "skipped"
    assert record.steps[0].reason == "no_such_package is not installed. Run: pip install 'no_such_package'"
    assert record.exit_code == 0


def test_one_step_is_made_without_the_end_of_a_run(tmp_path: Path) -> None:
    recipe = write_project(tmp_path, steps=[TORCHSCRIPT, ONNX, DYNAMIC], serve=[{"target": "triton"}])
    record = carry_out(recipe, only="quantize-dynamic")
    assert statuses(record) == {"source": "built", "export-onnx": "built", "quantize-dynamic": "built"}
    assert record.bench is None
    assert record.winner is None
    assert record.packaged == ()
    assert record.exit_code == 0


def test_parity_is_a_gate(tmp_path: Path) -> None:
    tight = {"int8": {"atol": 0.0, "rtol": 0.0}}
    serve = [{"target": "triton", "artifact": "quantize-dynamic"}]
    record = run_with(tmp_path, steps=[ONNX, DYNAMIC], tolerances=tight, serve=serve)
    assert record.exit_code == 1
    assert record.steps[0].passed
    assert not record.steps[1].passed
    assert record.failures[0].startswith("quantize-dynamic: parity: output 'output' at batch=4: ")
    assert record.failures[-1] == "serve.0 (triton): not packaged: 'quantize-dynamic' did not pass its gates"
    assert record.winner is not None
    assert record.winner.artifact == "export-onnx"


@pytest.mark.parametrize(("allowed", "code"), [(0.25, 0), (0.2, 1)])
def test_accuracy_is_a_gate(tmp_path: Path, allowed: float, code: int) -> None:
    write_project(tmp_path)
    evaluation = (
        "count = []\ndef evaluate(predict):\n    count.append(1)\n    return 1.0 if len(count) == 1 else 0.75\n"
    )
    (tmp_path / "accuracy.py").write_text(evaluation)
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        steps=[TORCHSCRIPT],
        data={"evaluation": "accuracy.py:evaluate"},
        gates={"max_accuracy_drop": allowed},
    )
    record = carry_out(recipe)
    assert record.exit_code == code
    says = "export-torchscript: accuracy: 0.7500 is 0.2500 below the source's 1.0000; at most 0.2 is allowed"
    assert record.failures == ((says,) if code else ())


def test_an_optional_step_that_does_not_pass_cannot_win(tmp_path: Path) -> None:
    tight = {"int8": {"atol": 0.0, "rtol": 0.0}}
    record = run_with(tmp_path, steps=[ONNX, DYNAMIC | {"optional": True}], tolerances=tight)
    assert record.exit_code == 0
    assert record.winner is not None
    assert record.winner.artifact == "export-onnx"


def test_batch_independence_is_a_gate_that_can_be_taken_away(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"model": {"source": f"{zoo.HERE}:mixes_batch"}, "steps": [TORCHSCRIPT]}
    record = run_with(tmp_path, **keys)
    assert record.exit_code == 1
    assert record.failures[0].startswith("source: batch independence: ")
    assert record.failures[1].startswith("export-torchscript: batch independence: ")
    serve = [{"target": "triton"}]
    record = run_with(tmp_path, **keys, gates={"batch_independence": False}, serve=serve)
    assert record.winner is not None
    assert record.exit_code == 1  # no server may put its requests together
    assert record.failures[0].startswith("serve.0 (triton): ")
    assert record.packaged == ()


def test_a_model_without_a_batch_needs_no_independence(tmp_path: Path) -> None:
    record = run_with(tmp_path, inputs={"x": "float32[2, 4]"}, dims={}, bench=BENCH | {"batches": []})
    assert record.exit_code == 0
    assert record.steps[0].batch_independence is not None
    assert record.steps[0].batch_independence.dim is None


def test_an_artifact_that_cannot_be_compared_is_not_measured(tmp_path: Path) -> None:
    record = run_with(tmp_path, model={"source": f"{zoo.HERE}:loses_batch"}, steps=[ONNX, TORCHSCRIPT])
    assert record.bench is not None
    assert {m.artifact for m in record.bench.measurements} == {"source", "export-torchscript"}
    assert record.exit_code == 1


SENSITIVE = """
import torch


def build():
    torch.manual_seed(0)
    linear = torch.nn.Linear
    model = torch.nn.Sequential(linear(4, 16), torch.nn.ReLU(), linear(16, 16), torch.nn.ReLU(), linear(16, 3))
    model[0].bias.data[0] = 1000.0  # leaves few of the 256 steps to what the second layer uses
    model[2].weight.data[:, 0] = 0
    return model


def calibration():
    return [{"input": torch.randn(8, 4, generator=torch.Generator().manual_seed(i)).numpy()} for i in range(6)]
"""


def test_the_record_and_the_report_tell_of_the_layers_and_of_the_calibration_data(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(SENSITIVE)
    recipe = write_project(
        tmp_path,
        inputs={"input": "float32[batch, 4]"},
        data={"calibration": "model.py:calibration"},
        steps=[ONNX, DYNAMIC | {"min_cosine": 0.999}, STATIC],
    )
    record = carry_out(recipe)
    _, dynamic, static = record.steps
    assert dynamic.quantization is not None
    (kept,) = dynamic.quantization.exclude
    assert static.calibration is not None
    assert static.calibration.samples == 48
    assert RunRecord.model_validate_json(record.model_dump_json()) == record
    text = page(record, tmp_path)
    assert "1 of 3 layers stay in float" in text
    assert f"- {kept}</code>" in text
    assert "48: " in text[text.index('<section id="calibration"') :]
