"""Models that must not be shipped: each is refused or failed with the reason named, and nothing is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from optkit.stages import export_onnx
from tests.support import zoo
from tests.support.project import ONNX, TORCHSCRIPT, CommandLine, files_below, write_recipe

CONTRACT = ("--input", "x:float32[batch,4]", "--dim", "batch=1:4:16")
OLD = ("--exporter", "torchscript", "--opset", "17")


@pytest.mark.parametrize(
    ("model", "command", "code", "reason"),
    [
        pytest.param(
            "folds_batch", ("onnx", *OLD), 1,
            "failed: batch independence: output 'output' has shape [1, 12] for 3 samples: it folds the batch",
            id="folds-its-batch",
        ),
        pytest.param(
            "mixes_batch", ("onnx", *OLD), 1,
            "failed: batch independence: output 'output' of a sample depends on the other samples in its batch: ",
            id="mixes-its-batch",
        ),
        pytest.param(
            "branches", ("torchscript", "--method", "trace"), 1,
            "failed: parity: output 'output' at batch=4: 16 of 16 elements are outside atol",
            id="trace-bakes-in-a-branch",
        ),
        pytest.param(
            "branches", ("onnx", *OLD), 1, "failed: parity: output 'output' at batch=4: 16 of 16", id="onnx-bakes-in-a-branch"
        ),
        pytest.param(
            "branches", ("onnx", "--exporter", "dynamo"), 2,
            "error: export-onnx: the dynamo exporter failed: ",
            id="dynamo-refuses-a-branch",
        ),
        pytest.param(
            "returns_nan", ("torchscript",), 1,
            "failed: parity: output 'output' at batch=4: the samples are unusable: on them the model itself gives NaN",
            id="returns-nan",
        ),
        pytest.param(
            "loses_batch", ("onnx", "--exporter", "dynamo"), 2,
            "input 'x' lost its dynamic dimension 'batch': axis 0 is fixed to 2.",
            id="dynamo-loses-a-dimension",
        ),
        pytest.param(
            "loses_batch", ("onnx", *OLD), 1, "failed: parity: output 'output' at batch=4: has shape [2, 4]; the reference has [4, 4]",
            id="torchscript-loses-a-dimension",
        ),
        pytest.param(
            "drops_out", ("torchscript",), 2, "error: forward gives different outputs for the same input, so parity cannot be checked",
            id="drops-out-in-evaluation"
        ),
    ],
)  # fmt: skip
def test_an_export_that_would_be_wrong(
    optkit: CommandLine, tmp_path: Path, model: str, command: tuple[str, ...], code: int, reason: str
) -> None:
    kind, *options = command
    found = optkit("export", kind, f"{zoo.HERE}:{model}", "-o", tmp_path / "model.bin", *CONTRACT, *options)
    assert found.code == code
    assert reason in found.err
    assert files_below(tmp_path) == set()


def test_the_line_that_a_trace_baked_in_is_named(optkit: CommandLine, tmp_path: Path) -> None:
    found = optkit(
        "export", "torchscript", f"{zoo.HERE}:branches", "-o", tmp_path / "m.pt", *CONTRACT, "--method", "trace"
    )
    line = next(n for n, text in enumerate(zoo.HERE.read_text().splitlines(), 1) if "if x.sum() > 0" in text)
    assert f"{zoo.HERE}:{line}: the trace baked in a value" in found.out
    assert "not written" in found.out


def test_an_opset_other_than_asked_for(optkit: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writes_18(module: Any, feed: Any, path: Path, inputs: Any, outputs: Any, opset: int) -> None:
        export_onnx._torchscript(module, feed, path, inputs, outputs, 18)

    monkeypatch.setattr(export_onnx, "_dynamo", writes_18)
    arguments = ("export", "onnx", f"{zoo.HERE}:linear", "-o", tmp_path / "m.onnx", *CONTRACT, "--opset", "17")
    found = optkit(*arguments, "--exporter", "dynamo")
    assert found.code == 2
    assert found.err == (
        "error: export-onnx: the dynamo exporter wrote opset 18; expected 17. "
        "Use --opset 18, or --exporter torchscript.\n"
    )
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize(
    ("model", "step", "code", "reason"),
    [
        ("folds_batch", ONNX, 1, "batch independence: output 'output' has shape [1, 12]"),
        ("branches", TORCHSCRIPT | {"method": "trace"}, 1, "parity: output 'output' at batch=4: 16 of 16"),
        (
            "returns_nan",
            TORCHSCRIPT,
            1,
            "parity: output 'output' at batch=4: the samples are unusable: on them the model itself gives NaN",
        ),
        ("loses_batch", ONNX, 1, "parity: output 'output' at batch=4: has shape [2, 4]; the reference has [4, 4]"),
        ("loses_batch", ONNX | {"exporter": "dynamo"}, 2, "input 'x' lost its dynamic dimension 'batch'"),
    ],
)
def test_a_recipe_with_such_a_model_fails_and_packages_nothing(
    optkit: CommandLine, tmp_path: Path, model: str, step: dict[str, Any], code: int, reason: str
) -> None:
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        model={"source": f"{zoo.HERE}:{model}"},
        dims={"batch": "1:4:16"},
        steps=[step],
        serve=[{"target": "triton"}],
    )
    out = tmp_path / "out"
    found = optkit("run", recipe, "-o", out)
    assert found.code == code
    assert f"failed: {step['stage']}: " in found.err
    assert reason in found.err
    record = json.loads((out / "run.json").read_text())
    assert record["winner"] is None
    assert record["packaged"] == []
    assert "failed: serve.0 (triton): not packaged: no artifact passed its gates" in found.err
    assert not (out / "model_repository").exists()
