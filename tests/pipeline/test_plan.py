import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optkit.errors import OutputError, RecipeError
from optkit.pipeline.plan import Plan, make_plan
from optkit.recipe import load_recipe
from optkit.stages import ExportTorchScript
from tests.support.project import DYNAMIC, ONNX, STATIC, TORCHSCRIPT, write_project

DATA = {"calibration": "model.py:calibration", "evaluation": "model.py:evaluate"}


def plan_of(folder: Path, only: str | None = None, **keys: Any) -> Plan:
    return make_plan(load_recipe(write_project(folder, **keys)), folder / "out", only)


def test_a_stage_of_models_starts_at_the_source_and_any_other_takes_the_step_before_it(tmp_path: Path) -> None:
    steps = [TORCHSCRIPT, ONNX, {"stage": "quantize-dynamic"}, {"stage": "convert-fp16", "after": "export-onnx"}]
    plan = plan_of(tmp_path, steps=steps)
    assert {step.name: step.parent for step in plan.steps} == {
        "export-torchscript": "source",
        "export-onnx": "source",
        "quantize-dynamic": "export-onnx",
        "convert-fp16": "export-onnx",
    }
    assert not (tmp_path / "out").exists()


def test_one_step_brings_only_those_that_it_needs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "quantize-dynamic", steps=[TORCHSCRIPT, ONNX, DYNAMIC])
    assert [step.name for step in plan.steps] == ["export-onnx", "quantize-dynamic"]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        pytest.param(
            {"steps": [ONNX, ONNX]},
            "steps.1 (export-onnx): an earlier step has the same name. Set another one with name: ...",
            id="duplicate-name",
        ),
        pytest.param(
            {"steps": [ONNX | {"name": "source"}]},
            "steps.0 (export-onnx 'source'): this name is reserved for the source model. Set another one with name: ...",
            id="name-of-the-source",
        ),
        pytest.param(
            {"steps": [ONNX, {"stage": "convert-fp16", "after": "export-onx"}]},
            "steps.1 (convert-fp16): after 'export-onx' is not an earlier step. Did you mean 'export-onnx'?",
            id="unknown-after",
        ),
        pytest.param(
            {"steps": [{"stage": "convert-fp16", "after": "export-onnx"}, ONNX]},
            "steps.0 (convert-fp16): after 'export-onnx' is not an earlier step: that step comes later. Move it before this step.",
            id="later-after",
        ),
        pytest.param(
            {"steps": [TORCHSCRIPT, {"stage": "convert-fp16"}]},
            "steps.1 (convert-fp16): accepts onnx, but 'export-torchscript' is torchscript. Add an export-onnx step before it.",
            id="wrong-format",
        ),
        pytest.param(
            {"steps": [ONNX, TORCHSCRIPT | {"after": "export-onnx"}]},
            "steps.1 (export-torchscript): accepts pytorch, but 'export-onnx' is onnx.",
            id="wrong-format-of-an-export",
        ),
        pytest.param(
            {"model": {"source": "none.py:build"}},
            "model.source: {folder}/none.py: no such file; expected a Python file. Check the path before the colon.",
            id="missing-source",
        ),
        pytest.param(
            {"model": {"source": "no_such_package.models:build"}},
            "model.source: no_such_package.models: no such module, neither installed nor below {cwd}; expected file.py:function or package.module:function",
            id="missing-module",
        ),
        pytest.param(
            {"model": {"source": "broken.py:build"}},
            "model.source: {folder}/broken.py:2: invalid syntax",
            id="syntax-error",
        ),
        pytest.param(
            {"model": {"source": "model.py:build", "weights": "w.pt"}},
            "model.weights: {folder}/w.pt: no such file; expected the weights of the model",
            id="missing-weights",
        ),
        pytest.param(
            {"model": {"source": "model.py:build", "weights": "."}},
            "model.weights: {folder}: is a directory; expected the weights of the model",
            id="weights-are-a-folder",
        ),
        pytest.param(
            {"data": {"calibration": "none"}},
            "data.calibration: {folder}/none: no such file or folder; expected .npz files, images.yaml or file.py:function",
            id="missing-calibration",
        ),
        pytest.param(
            {"data": {"evaluation": "none.py:evaluate"}},
            "data.evaluation: {folder}/none.py: no such file; expected a Python file. Check the path before the colon.",
            id="missing-evaluation",
        ),
        pytest.param(
            {"steps": [ONNX, STATIC | {"calibration": "none.py:feeds"}]},
            "steps.1 (quantize-static): {folder}/none.py: no such file; expected a Python file. Check the path before the colon.",
            id="missing-calibration-of-a-step",
        ),
        pytest.param(
            {"steps": [ONNX, STATIC]},
            "steps.1 (quantize-static): no calibration data; name some as data.calibration: file.py:function",
            id="static-without-calibration",
        ),
        pytest.param(
            {"steps": [ONNX, DYNAMIC | {"max_drop": 0.01}]},
            "steps.1 (quantize-dynamic): max_drop: nothing measures accuracy; name a function as data.evaluation: file.py:evaluate",
            id="limit-without-evaluation",
        ),
        pytest.param(
            {"steps": [ONNX, DYNAMIC | {"min_cosine": 0.99}]},
            "steps.1 (quantize-dynamic): min_cosine: there are no samples to judge on; name some as data.calibration: file.py:function",
            id="limit-without-samples",
        ),
        pytest.param(
            {"steps": [{"stage": "quantize-torch", "mode": "static"}]},
            "steps.0 (quantize-torch): no calibration data; name some as data.calibration: file.py:function",
            id="static-torch-without-calibration",
        ),
        pytest.param(
            {"gates": {"max_accuracy_drop": 0.01}},
            "gates.max_accuracy_drop: nothing measures accuracy; name a function as data.evaluation: file.py:evaluate",
            id="gate-without-evaluation",
        ),
        pytest.param(
            {"dims": {}, "bench": None},
            "inputs: dimension 'batch': used by an input but has no range; declare it, with --dim batch=1:8:64, or as batch: {{min: 1, opt: 8, max: 64}} in a recipe",
            id="undeclared-dimension",
        ),
        pytest.param(
            {"dims": {"batch": "1:4:8", "length": "1:2:3"}},
            "inputs: dimension 'length': has a range but no input uses it; the inputs use batch",
            id="unused-range",
        ),
        pytest.param(
            {"bench": {"batches": [4, 9]}},
            "bench.batches: 9; 'batch' is declared from 1 to 8",
            id="batch-outside",
        ),
        pytest.param(
            {"inputs": {"x": "float32[1, 4]"}, "dims": {}, "bench": {"batches": [8]}},
            "bench.batches: 8; the inputs share no batch dimension, so only 1 can be measured",
            id="no-batch",
        ),
        pytest.param(
            {"choose": {"batch": 3}, "bench": {"batches": [1, 8]}},
            "choose.batch: 3 is not measured; bench.batches are 1, 8",
            id="choice-of-an-unmeasured-batch",
        ),
        pytest.param(
            {"choose": {"batch": 2}, "bench": None},
            "choose.batch: 2 is not measured; bench.batches are 1, 4, 8",
            id="choice-of-an-unmeasured-batch-by-default",
        ),
        pytest.param(
            {"serve": [{"target": "triton", "artifact": "export-onx"}]},
            "serve.0 (triton): artifact 'export-onx' is no step. Did you mean 'export-onnx'?",
            id="unknown-artifact",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_out_is_told_before_any_work(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    (tmp_path / "broken.py").write_text("import torch\ndef build(:\n")
    with pytest.raises(RecipeError) as caught:
        plan_of(tmp_path, **keys)
    assert str(caught.value) == says.format(folder=tmp_path, cwd=Path.cwd())
    assert not (tmp_path / "out").exists()


def test_an_unknown_step_that_is_wanted_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"^--step export-onx: is not a step of the recipe. Did you mean 'export-onnx'\?$"
    ):
        plan_of(tmp_path, "export-onx")


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_of(
            tmp_path,
            model={"source": "none.py:build"},
            dims={"length": "1:2:3"},
            bench=None,
            gates={"max_accuracy_drop": 0.1},
            steps=[TORCHSCRIPT, STATIC, TORCHSCRIPT],
            serve=[{"target": "triton", "artifact": "none"}],
        )
    starts = [line.partition(": ")[0] for line in str(caught.value).splitlines()]
    assert starts == [
        "model.source",
        "inputs",
        "inputs",
        "steps.1 (quantize-static)",
        "steps.2 (export-torchscript)",
        "steps.1 (quantize-static)",
        "gates.max_accuracy_drop",
        "serve.0 (triton)",
    ]


def test_a_missing_package_is_a_fault_and_skips_an_optional_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExportTorchScript, "requires", lambda self: ("no_such_package",))
    says = "no_such_package is not installed. Run: pip install 'no_such_package'"
    with pytest.raises(RecipeError, match=rf"^steps\.0 \(export-torchscript\): {re.escape(says)}$"):
        plan_of(tmp_path)
    plan = plan_of(tmp_path, steps=[TORCHSCRIPT | {"optional": True}, ONNX])
    assert [step.skip for step in plan.steps] == [says, None]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match=r"out: .*out is a file; expected a folder\. Choose another one with -o\.$"):
        plan_of(tmp_path)


def test_a_folder_that_is_not_writable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(write_project(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=rf"{tmp_path} is not writable\. Choose another folder with -o\.$"):
        make_plan(recipe, tmp_path / "deeper" / "out")


def test_planning_imports_nothing_heavy(tmp_path: Path) -> None:
    recipe = write_project(tmp_path, data=DATA, steps=[TORCHSCRIPT, ONNX, STATIC], serve=[{"target": "triton"}])
    code = f"""
import sys
from pathlib import Path
from optkit.pipeline.plan import make_plan
from optkit.recipe import load_recipe
plan = make_plan(load_recipe(Path({str(recipe)!r})), Path({str(tmp_path / "out")!r}))
print(len(plan.steps), *sorted({{"torch", "onnx", "onnxruntime", "tritonclient"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]
