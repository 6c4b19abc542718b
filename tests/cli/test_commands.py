"""The main use of each command, and where its words go: the answer to stdout, all else to stderr, one document with --json."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.project import (
    DYNAMIC,
    ONNX,
    TORCHSCRIPT,
    CommandLine,
    Result,
    files_below,
    write_project,
    write_recipe,
)

CONTRACT = ("--input", "x:float32[batch,4]", "--dim", "batch=1:4:8")
QUICK = ("--batch", "1,8", "--time-limit-s", "0.001")  # one block
EXPORT = ("export", "onnx", "model.py:build", *CONTRACT, "--exporter", "torchscript", "--opset", "17")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project's folder, which is the working directory."""
    write_project(tmp_path, steps=[TORCHSCRIPT, ONNX, DYNAMIC], serve=[{"target": "triton"}])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def exported(optkit: CommandLine, folder: Path) -> str:
    assert optkit(*EXPORT, "-o", "m.onnx").code == 0
    return "m.onnx"


def test_run_shows_its_table_winner_packages_and_next_commands(optkit: CommandLine, folder: Path) -> None:
    found = optkit("run", "recipe.yaml")
    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[0].strip() == "tiny, at batch 2"
    for name in ("source", "export-torchscript", "export-onnx", "quantize-dynamic"):
        assert any(line.split()[0] == name for line in lines if line.split())
    assert "winner: " in found.out
    assert "packaged: build/tiny/model_repository/tiny (triton)" in found.out
    assert "record: build/tiny/run.json" in found.out
    assert "report: build/tiny/report.html" in found.out
    assert "</html>" in (folder / "build" / "tiny" / "report.html").read_text()
    assert "export-onnx: built in " in found.err
    assert "next: docker run " in found.err
    assert (folder / "build" / "tiny" / "run.json").is_file()


def test_a_second_run_says_that_nothing_was_rebuilt(optkit: CommandLine, folder: Path) -> None:
    optkit("run", "recipe.yaml")
    found = optkit("run", "recipe.yaml")
    assert found.code == 0
    assert "reused: 4 of 4 artifacts; nothing was rebuilt" in found.out
    assert "reused: the measurements of the same artifacts on this machine" in found.out
    assert "export-onnx: reused, its inputs and settings have not changed" in found.err


def test_a_dry_run_shows_the_plan_and_does_nothing(optkit: CommandLine, folder: Path) -> None:
    before = files_below(folder)
    found = optkit("run", "recipe.yaml", "--dry-run")
    assert found.code == 0
    assert [line.split()[:4] for line in found.out.splitlines()[3:6]] == [
        ["export-torchscript", "export-torchscript", "source", "torchscript"],
        ["export-onnx", "export-onnx", "source", "onnx"],
        ["quantize-dynamic", "quantize-dynamic", "export-onnx", "onnx"],
    ]
    assert files_below(folder) == before


def test_one_step_and_other_values_are_asked_for(optkit: CommandLine, folder: Path) -> None:
    found = optkit("run", "recipe.yaml", "-o", "out", "--step", "export-onnx", "--set", "name=other")
    assert found.code == 0
    assert found.out.splitlines()[0].strip() == "other"
    assert {path.name for path in (folder / "out").iterdir()} == {"source", "export-onnx", "run.json", "report.html"}


def test_export_tells_what_it_proved_and_what_comes_next(optkit: CommandLine, folder: Path) -> None:
    found = optkit(*EXPORT, "-o", "m.onnx")
    assert found.code == 0
    assert found.out.splitlines()[0].startswith("m.onnx (onnx, fp32, ")
    assert "exported by the torchscript exporter, opset 17" in found.out
    assert "parity: equal at 4 points (seeded random; within atol 0.0001" in found.out
    assert "batch independence: passed" in found.out
    assert "next: optkit quantize m.onnx -o int8.onnx" in found.err
    found = optkit("export", "torchscript", "model.py:build", "-o", "m.pt", *CONTRACT, "--output-name", "scores")
    assert found.code == 0
    assert "traced, because scripting failed: python value of type 'float'" in found.out
    assert "output  scores:float32[batch,3]" in optkit("inspect", "m.pt").out


def test_weights_and_arguments_reach_the_factory(optkit: CommandLine, folder: Path) -> None:
    (folder / "model.py").write_text(
        "import torch\ndef build(width=3, bias=True):\n    return torch.nn.Linear(4, width, bias=bias)\n"
    )
    import torch

    torch.save({"weight": torch.ones(5, 4)}, folder / "w.pt")
    found = optkit(*EXPORT, "-o", "m.onnx", "--set", "width=5", "--set", "bias=false", "--weights", "w.pt")
    assert found.code == 0
    assert "output  output:float32[batch,5]" in optkit("inspect", "m.onnx").out


def test_dynamic_int8_is_proven_on_the_samples_that_are_given(optkit: CommandLine, exported: str) -> None:
    plain = document(optkit("quantize", exported, "-o", "d.onnx", "--json"))
    assert plain["parity"]["values"] == "seeded random"
    given = document(
        optkit("quantize", exported, "-o", "d.onnx", "--force", "--data", "model.py:calibration", "--json")
    )
    assert given["parity"]["values"] == "real samples"


def test_convert_and_quantize(optkit: CommandLine, exported: str) -> None:
    assert optkit("convert", "fp16", exported, "-o", "h.onnx").out.startswith("h.onnx (onnx, fp16, ")
    dynamic = optkit("quantize", exported, "-o", "d.onnx")
    assert dynamic.out.startswith("d.onnx (onnx, int8, ")
    assert "1 matrix products in INT8" in dynamic.out
    static = optkit(
        "quantize", exported, "-o", "s.onnx", "--calibration", "model.py:calibration", "--method", "entropy"
    )
    assert static.code == 0
    assert "ranges by entropy" in static.out or "chosen: dynamic" in static.out
    assert "chosen: " in static.out
    assert "not chosen: " in static.out
    assert "size 0.000" in static.out
    assert "(real samples; " in static.out
    engine = optkit(
        "quantize", exported, "-o", "t.onnx", "--calibration", "model.py:calibration", "--target", "tensorrt"
    )
    assert engine.code == 0
    assert "TensorRT converts them to INT8 when it builds the engine" in engine.out
    assert "next: optkit inspect t.onnx" in engine.err
    held = ("--evaluate", "model.py:evaluate", "--max-drop", "0")
    assert "accuracy: 1.0000" in optkit("quantize", exported, "-o", "e.onnx", *held).out


def test_layers_stay_in_float_where_accuracy_asks_for_it(optkit: CommandLine, folder: Path) -> None:
    (folder / "model.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    linear = torch.nn.Linear\n"
        "    m = torch.nn.Sequential(linear(4, 16), torch.nn.ReLU(), linear(16, 16), torch.nn.ReLU(), linear(16, 3))\n"
        "    m[0].bias.data[0] = 1000.0\n"
        "    m[2].weight.data[:, 0] = 0\n"
        "    return m\n"
        "def calibration():\n"
        "    return [{'input': torch.randn(8, 4, generator=torch.Generator().manual_seed(i)).numpy()} for i in range(6)]\n"
    )
    contract = (
        "--input",
        "input:float32[batch,4]",
        "--dim",
        "batch=1:4:8",
        "--exporter",
        "torchscript",
        "--opset",
        "17",
    )
    assert optkit("export", "onnx", "model.py:build", *contract, "-o", "m.onnx").code == 0
    asked = ("quantize", "m.onnx", "--mode", "dynamic", "--calibration", "model.py:calibration")
    assert optkit(*asked, "-o", "q.onnx", "--min-cosine", "0.5").code in (0, 1)
    found = optkit(*asked, "-o", "q.onnx", "--force", "--min-cosine", "0.999")
    assert found.code == 0, found.err
    assert "layers, most harmful first" in found.out
    assert "1 of 3 layers stay in float to reach it: " in found.out
    recipe = found.out[found.out.index("for a recipe:") :].splitlines()
    pasted = yaml.safe_load("\n".join(recipe[1:]))
    again = optkit("quantize", "m.onnx", "-o", "r.onnx", "--exclude", pasted["exclude"][0])
    assert again.code == 0
    assert (folder / "r.onnx").read_bytes() == (folder / "q.onnx").read_bytes()
    shown = document(optkit(*asked, "-o", "q.onnx", "--force", "--min-cosine", "0.999", "--json"))["artifact"][
        "quantization"
    ]
    assert [layer["layer"] for layer in shown["layers"] if layer["kept"]] == pasted["exclude"]
    assert [point["kept"] for point in shown["frontier"]] == sorted(point["kept"] for point in shown["frontier"])
    beyond = optkit(*asked, "-o", "n.onnx", "--min-cosine", "1")
    assert beyond.code == 1
    assert "with every layer in float" in beyond.err
    assert not (folder / "n.onnx").exists()


def test_check_passes_equal_models_and_fails_others(optkit: CommandLine, exported: str) -> None:
    optkit("quantize", exported, "-o", "q.onnx")
    same = optkit("check", exported, exported)
    assert same.code == 0
    assert same.out.count("equal") == 5
    other = optkit("check", exported, "q.onnx", "--atol", "0", "--rtol", "0")
    assert other.code == 1
    assert "failed: parity: output 'output' at batch=4: " in other.err


def test_bench_measures_every_model_at_every_batch(optkit: CommandLine, exported: str) -> None:
    optkit("convert", "fp16", exported, "-o", "h.onnx")
    found = optkit("bench", exported, "h.onnx", *QUICK)
    assert found.code == 0
    titles = [line.strip() for line in found.out.splitlines() if line.startswith("batch")]
    assert titles == ["batch 1", "batch 8"]
    tables = found.out.partition("measured")[0]
    assert tables.count("h.onnx ") == 6  # latency, comparison and what it includes, at each


def test_package_writes_what_a_server_takes(optkit: CommandLine, folder: Path, exported: str) -> None:
    triton = optkit(
        "package", "triton", exported, "-o", "repository", "--name", "tiny", "--preferred-batch-sizes", "4,8"
    )
    assert triton.code == 0
    assert (folder / "repository" / "tiny" / "1" / "model.onnx").is_file()
    assert "max_batch_size: 8" in (folder / "repository" / "tiny" / "config.pbtxt").read_text()
    assert "next: docker run " in triton.err
    torchserve = optkit("package", "torchserve", exported, "-o", "store")
    assert torchserve.code == 0
    assert {path.name for path in (folder / "store").iterdir()} == {
        "config.properties",
        "m.mar",
        "m.golden.json",
        "m.golden.npz",
    }


def test_inspect_tells_the_contract_and_what_was_proven(optkit: CommandLine, exported: str) -> None:
    found = optkit("inspect", exported)
    assert found.code == 0
    for part in (
        "m.onnx: onnx, fp32, ", "input   x:float32[batch,4]", "dim     batch: min 1, opt 4, max 8", "onnx    opset 17, IR 8",
        "made by export-onnx with optkit ", "parity: equal at 4 points",
    ):  # fmt: skip
        assert part in found.out


def test_doctor_names_every_library(optkit: CommandLine) -> None:
    found = optkit("doctor")
    assert found.code == 0
    assert all(name in found.out for name in ("processor", "GPU", "torch", "onnxruntime", "CPU"))


def test_every_command_explains_itself_with_an_example(optkit: CommandLine) -> None:
    commands = (
        "run", "export torchscript", "export onnx", "convert fp16", "quantize", "check", "bench",
        "package triton", "package torchserve", "migrate", "inspect", "doctor", "build-engine", "loadtest",
    )  # fmt: skip
    for command in commands:
        found = optkit(*command.split(), "--help")
        assert found.code == 0
        assert f"Example: optkit {command}" in found.out


# Where the words go.


def document(found: Result) -> dict[str, Any]:
    """Return the one JSON document that stdout must hold, and nothing else."""
    content = json.loads(found.out)
    assert next(iter(content)) == "schema"
    return dict(content)


@pytest.mark.parametrize(
    ("command", "schema"),
    [
        (("run", "recipe.yaml"), "optkit/run/4"),
        (("run", "recipe.yaml", "--dry-run"), "optkit/plan/1"),
        (("check", "m.onnx", "m.onnx"), "optkit/check/1"),
        (("bench", "m.onnx", *QUICK), "optkit/bench/4"),
        ((*EXPORT, "-o", "n.onnx"), "optkit/passport/4"),
        (("export", "torchscript", "model.py:build", "-o", "n.pt", *CONTRACT), "optkit/passport/4"),
        (("convert", "fp16", "m.onnx", "-o", "h.onnx"), "optkit/passport/4"),
        (("quantize", "m.onnx", "-o", "q.onnx"), "optkit/passport/4"),
        (("package", "triton", "m.onnx", "-o", "repository"), "optkit/package/1"),
        (("package", "torchserve", "m.onnx", "-o", "store"), "optkit/package/1"),
        (("inspect", "m.onnx"), "optkit/inspection/1"),
        (("doctor",), "optkit/doctor/1"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else None,
)
def test_json_is_one_document_and_nothing_else(
    optkit: CommandLine, exported: str, command: tuple[str, ...], schema: str
) -> None:
    found = optkit(*command, "--json")
    assert found.code == 0
    assert document(found)["schema"] == schema
    assert "next: " not in found.err


def test_json_of_a_negative_verdict_is_a_document_too(optkit: CommandLine, exported: str) -> None:
    optkit("quantize", exported, "-o", "q.onnx")
    found = optkit("check", exported, "q.onnx", "--atol", "0", "--rtol", "0", "--json")
    assert found.code == 1
    assert document(found)["failures"][0].startswith("parity: ")


def test_json_of_models_that_give_nan_is_json(optkit: CommandLine, folder: Path) -> None:
    (folder / "model.py").write_text(
        "import torch\nclass M(torch.nn.Module):\n    def forward(self, x):\n        return x / 0\ndef build():\n    return M()\n"
    )
    found = optkit(*EXPORT, "-o", "m.onnx", "--json")
    assert found.code == 1
    assert (
        document(found)["parity"]["outputs"][0]["max_abs"] == 0
    )  # infinities at the same places; nothing else to compare
    assert document(found)["failures"]
    found = optkit("run", "recipe.yaml", "--json")
    assert found.code in (1, 2)
    assert document(found)["winner"] is None


def test_an_error_leaves_stdout_empty(optkit: CommandLine) -> None:
    found = optkit("inspect", "none.onnx", "--json")
    assert found == Result(2, "", "error: none.onnx: no such file; expected a model file\n")


@pytest.mark.parametrize(
    "command",
    [
        ("run", "recipe.yaml"),
        ("check", "m.onnx", "m.onnx"),
        ("bench", "m.onnx", *QUICK),
        (*EXPORT, "-o", "n.onnx"),
        ("quantize", "m.onnx", "-o", "q.onnx"),
        ("package", "triton", "m.onnx", "-o", "repository"),
    ],
    ids=lambda command: command[0],
)
def test_quiet_prints_nothing_besides_the_answer(optkit: CommandLine, exported: str, command: tuple[str, ...]) -> None:
    found = optkit(*command, "-q")
    assert found.code == 0
    assert found.err == ""
    assert found.out != ""


def test_quiet_still_tells_why_the_verdict_is_negative(optkit: CommandLine, folder: Path) -> None:
    write_recipe(folder / "recipe.yaml", steps=[ONNX | {"opset": 99}])
    found = optkit("run", "recipe.yaml", "-q")
    assert found.code == 2
    assert found.err.startswith("failed: export-onnx: ")


def test_brackets_of_a_path_or_a_message_are_printed_as_they_are(optkit: CommandLine, tmp_path: Path) -> None:
    found = optkit("inspect", tmp_path / "[red]model[/red].onnx")
    assert "[red]model[/red].onnx: no such file" in found.err


# Exit codes.


def test_a_bug_is_3_and_keeps_its_traceback(optkit: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("optkit.api.inspect.open_artifact", bug)
    found = optkit("inspect", "m.onnx")
    assert found.code == 3
    assert found.out == ""
    assert "Traceback" in found.err
    assert "KeyError: 'a bug'" in found.err
    assert found.err.endswith("error: this is a bug in optkit. Please report it with the lines above.\n")


def test_debug_prints_the_traceback_of_an_error(optkit: CommandLine) -> None:
    found = optkit("--debug", "inspect", "none.onnx")
    assert found.code == 2
    assert "Traceback" in found.err
    assert found.err.endswith("error: none.onnx: no such file; expected a model file\n")


def test_ctrl_c_is_130(optkit: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optkit.api.inspect.open_artifact", interrupted)
    found = optkit("inspect", "m.onnx")
    assert found.code == 130
    assert "Traceback" not in found.err


def test_the_module_runs_as_the_command_does(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "optkit", "inspect", "none.onnx"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.onnx: no such file; expected a model file\n"


def test_the_version_is_printed(optkit: CommandLine) -> None:
    from optkit import __version__

    assert optkit("--version") == Result(0, f"optkit {__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["run", "--help"], ["export", "onnx", "--help"]])
def test_nothing_heavy_is_imported_to_show_help(arguments: list[str]) -> None:
    code = f"""
import sys
import optkit.cli
if {arguments!r}:
    sys.argv = ["optkit", *{arguments!r}]
    try:
        optkit.cli.main()
    except SystemExit as e:
        assert e.code == 0
heavy = {{"torch", "onnx", "onnxruntime", "tensorrt", "tritonclient", "rich", "numpy", "yaml"}}
if {arguments!r} in ([], ["--help"]):
    heavy.add("pydantic")  # typer itself imports it to read the options of a command
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
