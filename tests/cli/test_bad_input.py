"""Every bad input: the message says what was found, what was expected and what to do; the exit code is 2 and no file is left."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from optkit.artifact import Artifact
from tests.support.project import (
    DYNAMIC,
    ONNX,
    STATIC,
    TORCHSCRIPT,
    CommandLine,
    files_below,
    write_project,
    write_recipe,
)

CONTRACT = ("--input", "x:float32[batch,4]", "--dim", "batch=1:4:8")
OLD = ("--exporter", "torchscript", "--opset", "17")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project's folder, which is the working directory."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Refused:
    """Runs a command that must be refused, and looks at what it says and leaves."""

    def __init__(self, optkit: CommandLine, folder: Path) -> None:
        self.optkit = optkit
        self.folder = folder

    def __call__(self, *arguments: object, says: str) -> None:
        before = files_below(self.folder)
        found = self.optkit(*arguments)
        assert found.code == 2, found
        assert found.out == ""
        assert re.search(says, found.err), found.err
        assert "Traceback" not in found.err
        assert files_below(self.folder) == before


@pytest.fixture
def refused(optkit: CommandLine, folder: Path) -> Refused:
    return Refused(optkit, folder)


# Files that are not there, or not what they should be.

ON_A_FILE = [
    pytest.param(lambda path: ("inspect", path), id="inspect"),
    pytest.param(lambda path: ("quantize", path, "-o", "out.onnx"), id="quantize"),
    pytest.param(lambda path: ("convert", "fp16", path, "-o", "out.onnx"), id="convert"),
    pytest.param(lambda path: ("check", path, path), id="check"),
    pytest.param(lambda path: ("bench", path), id="bench"),
    pytest.param(lambda path: ("package", "triton", path, "-o", "repository"), id="triton"),
    pytest.param(lambda path: ("package", "torchserve", path, "-o", "store"), id="torchserve"),
]
Command = Callable[[str], tuple[str, ...]]


@pytest.mark.parametrize("command", ON_A_FILE)
def test_a_missing_file(refused: Refused, command: Command) -> None:
    refused(*command("none.onnx"), says=r"^error: none\.onnx: no such file; expected a model file$")


@pytest.mark.parametrize("command", ON_A_FILE)
def test_a_directory(refused: Refused, folder: Path, command: Command) -> None:
    (folder / "model.onnx").mkdir()
    refused(*command("model.onnx"), says=r"^error: model\.onnx: is a directory; expected a model file$")


@pytest.mark.parametrize("command", ON_A_FILE)
@pytest.mark.parametrize("part", [0, 0.5, 0.98])
def test_a_truncated_onnx_file(
    refused: Refused, folder: Path, onnx_linear: Artifact, command: Command, part: float
) -> None:
    whole = onnx_linear.path.read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: int(len(whole) * part)])
    refused(
        *command("cut.onnx"),
        says=r"^error: cut\.onnx: (cannot be read as an ONNX model, or is cut short|contains no ONNX graph; expected a model)",
    )


@pytest.mark.parametrize("command", ON_A_FILE)
def test_a_file_that_was_changed_behind_its_passport(
    refused: Refused, optkit: CommandLine, folder: Path, command: Command
) -> None:
    assert optkit("export", "torchscript", "model.py:build", "-o", "model.pt", *CONTRACT).code == 0
    with (folder / "model.pt").open("ab") as stream:
        stream.write(b"\0")
    refused(
        *command("model.pt"),
        says=r"model\.pt: its SHA-256 differs from model\.pt\.passport\.json: the file was changed\. Make the artifact again",
    )


@pytest.mark.parametrize("command", ON_A_FILE)
def test_a_format_that_says_nothing_of_itself(refused: Refused, folder: Path, command: Command) -> None:
    (folder / "model.pt").write_bytes(b"PK")
    refused(*command("model.pt"), says=r"model\.pt: has no passport beside it; .*Make it with optkit, or export")


# The recipe's file.


def test_a_missing_recipe(refused: Refused) -> None:
    refused("run", "none.yaml", says=r"^error: none\.yaml: cannot be read as YAML \(no such file\)$")


def test_a_directory_for_a_recipe(refused: Refused, folder: Path) -> None:
    refused("run", folder, says=r": cannot be read as YAML \(is a directory\)$")


def test_an_unknown_key(refused: Refused, folder: Path) -> None:
    write_recipe(folder / "recipe.yaml", steps=[{"stage": "export-onnx", "ospet": 17}])
    refused(
        "run", "recipe.yaml", says=r"^error: recipe\.yaml:\d+: steps\.0\.ospet: unknown key\. Did you mean 'opset'\?$"
    )


def test_a_duplicate_step_name(refused: Refused, folder: Path) -> None:
    write_recipe(folder / "recipe.yaml", steps=[TORCHSCRIPT, TORCHSCRIPT])
    refused(
        "run", "recipe.yaml",
        says=r"^error: steps\.1 \(export-torchscript\): an earlier step has the same name\. Set another one",
    )  # fmt: skip


def test_a_step_after_a_format_that_it_does_not_accept(refused: Refused, folder: Path) -> None:
    write_recipe(folder / "recipe.yaml", steps=[TORCHSCRIPT, {"stage": "convert-fp16"}])
    refused(
        "run", "recipe.yaml",
        says=r"^error: steps\.1 \(convert-fp16\): accepts onnx, but 'export-torchscript' is torchscript\. Add an export-onnx step",
    )  # fmt: skip


def test_a_range_that_is_not_ordered(refused: Refused, folder: Path) -> None:
    write_recipe(folder / "recipe.yaml", dims={"batch": {"min": 8, "opt": 4, "max": 1}})
    refused(
        "run", "recipe.yaml",
        says=r"recipe\.yaml:\d+: dims\.batch: min 8, opt 4, max 1; expected 1 <= min <= opt <= max$",
    )  # fmt: skip
    refused(
        "export", "onnx", "model.py:build", "-o", "m.onnx", "--input", "x:float32[batch,4]", "--dim", "batch=8:4:1",
        says=r"^error: --dim batch=8:4:1: min 8, opt 4, max 1; expected 1 <= min <= opt <= max$",
    )  # fmt: skip


# The model.


def export(*more: object) -> tuple[object, ...]:
    return ("export", "onnx", "model.py:build", "-o", "m.onnx", *CONTRACT, *OLD, *more)


def test_a_source_that_is_not_there(refused: Refused, folder: Path) -> None:
    for target, says in (
        ("none.py:build", r"none\.py: no such file; expected a Python file\. Check the path before the colon\."),
        ("none.py", r"none\.py: no such file; expected a Python file, as in model\.py or model\.py:build"),
        ("model.py:none", r"model\.py: has no 'none'; it defines .*build"),
        (f"{folder}:build", r"expected file\.py:function or package\.module:function"),
    ):
        refused("export", "onnx", target, "-o", "m.onnx", *CONTRACT, says=says)


def test_a_factory_that_raises(refused: Refused, folder: Path) -> None:
    (folder / "model.py").write_text("def build():\n    raise ValueError('no such checkpoint')\n")
    says = r"^error: .*model\.py:build: raised .*model\.py:2: ValueError: no such checkpoint$"
    refused(*export(), says=says)
    refused("export", "torchscript", "model.py:build", "-o", "m.pt", *CONTRACT, says=says)
    refused("run", "recipe.yaml", "-o", "out", says=says)


def test_a_factory_that_builds_something_else(refused: Refused, folder: Path) -> None:
    (folder / "model.py").write_text("def build():\n    return 3\n")
    refused(*export(), says=r"returned a int; expected a torch\.nn\.Module\. Return the model\.$")


def test_a_forward_that_raises(refused: Refused) -> None:
    arguments = (
        "export",
        "onnx",
        "model.py:build",
        "-o",
        "m.onnx",
        "--input",
        "x:float32[batch,5]",
        "--dim",
        "batch=1:4:8",
    )
    refused(
        *arguments,
        says=r"^error: forward raised .*model\.py:15: RuntimeError: .* \(with x float32\[1, 5\], weights float32\)\.$",
    )


def weights(folder: Path, content: object) -> str:
    torch.save(content, folder / "w.pt")
    return "w.pt"


def test_weights_that_are_not_there(refused: Refused, folder: Path) -> None:
    refused(*export("--weights", "none.pt"), says=r"none\.pt: no such file; expected the weights of the model$")
    refused(*export("--weights", folder), says=r": is a directory; expected the weights of the model$")
    refused("run", "recipe.yaml", "--set", "model.weights=none.pt", says=r"model\.weights: .*none\.pt: no such file")


def test_a_pickle_that_is_no_state_dict(refused: Refused, folder: Path) -> None:
    says = r"w\.pt: contains a list, which is not a state dict; expected name -> tensor, as torch\.save\(model\.state_dict\(\)\) writes$"
    refused(*export("--weights", weights(folder, [1, 2])), says=says)
    refused("run", "recipe.yaml", "-o", "out", "--set", "model.weights=w.pt", says=says)


def test_a_pickle_that_holds_code(refused: Refused, folder: Path) -> None:
    path = weights(folder, torch.nn.Linear(4, 3))
    refused(*export("--weights", path), says=r"w\.pt: cannot be read as a state dict .* never pickled code\.$")


def test_weights_of_another_architecture(refused: Refused, folder: Path) -> None:
    path = weights(folder, {"linear.weight": torch.zeros(5, 4), "head.bias": torch.zeros(3)})
    says = (
        r"w\.pt: the weights belong to another model: 1 missing in the file: linear\.bias; 1 not in the model: head\.bias; "
        r"1 with another shape: linear\.weight \[5, 4\] for \[3, 4\]$"
    )
    refused(*export("--weights", path), says=says)
    refused("run", "recipe.yaml", "-o", "out", "--set", "model.weights=w.pt", says=says)


# Calibration data.

BAD_DATA = [
    pytest.param("return [{'y': ok()}]", r"feed 0: got inputs y; the model takes x", id="wrong-name"),
    pytest.param(
        "return [{'x': ok()}, {'x': ok()[:, :3]}]",
        r"feed 1: input 'x': got float32\[2,3\]; the model takes float32\[batch,4\]",
        id="wrong-shape",
    ),
    pytest.param(
        "return [{'x': ok().astype('float64')}]",
        r"feed 0: input 'x': got float64\[2,4\]; the model takes float32\[batch,4\]\. Cast the feed to float32\.",
        id="wrong-dtype",
    ),
    pytest.param("return [{'x': ok() * np.nan}]", r"feed 0: input 'x': contains NaN or infinity; expected finite", id="nan"),
    pytest.param("return ['text']", r"feed 0: is a str; expected a mapping of input name to array, or a tuple", id="no-feed"),
    pytest.param("return [(ok(), ok())]", r"feed 0: has 2 arrays; expected 1: x\. Leave out .*, such as labels", id="labels"),
    pytest.param("return []", r"yielded no feeds; expected at least one mapping", id="empty"),
    pytest.param(
        "yield {'x': ok()}; raise OSError('disk is gone')", r"feed 1: raised .*data\.py:5: OSError: disk is gone",
        id="generator-that-dies",
    ),
    pytest.param("return [].__iter__()", r"yielded no feeds; expected at least one mapping", id="iterator-of-nothing"),
    pytest.param("return 3", r"the data is a int; expected an iterable of feeds, such as a list", id="no-iterable"),
    pytest.param("raise OSError('disk is gone')", r"raised .*data\.py:5: OSError: disk is gone", id="raises"),
]  # fmt: skip


def write_data(folder: Path, body: str) -> str:
    (folder / "data.py").write_text(
        f"import numpy as np\ndef ok():\n    return np.ones((2, 4), np.float32)\ndef feeds():\n    {body}\n"
    )
    return "data.py:feeds"


@pytest.fixture
def exported(optkit: CommandLine, folder: Path) -> str:
    """Export the project's model, which is what the commands on files take."""
    assert optkit(*export()).code == 0
    return "m.onnx"


@pytest.mark.parametrize(("body", "says"), BAD_DATA)
def test_calibration_data_that_does_not_fit(
    refused: Refused, folder: Path, exported: str, body: str, says: str
) -> None:
    data = write_data(folder, body)
    refused("quantize", exported, "-o", "q.onnx", "--calibration", data, says=rf"^error: .*data\.py:feeds: {says}")


@pytest.mark.parametrize(("body", "says"), BAD_DATA)
def test_calibration_data_of_a_recipe_that_does_not_fit(
    optkit: CommandLine, folder: Path, body: str, says: str
) -> None:
    write_recipe(folder / "recipe.yaml", data={"calibration": write_data(folder, body)}, steps=[ONNX, STATIC])
    found = optkit("run", "recipe.yaml", "-o", "out")
    assert found.code == 2
    assert re.search(rf"^error: .*data\.py:feeds: {says}", found.err), found.err
    assert not (folder / "out" / "quantize-static").exists()
    assert not (folder / "out" / "run.json").exists()


def test_calibration_data_that_is_not_there(refused: Refused, folder: Path, exported: str) -> None:
    (folder / "empty").mkdir()
    for data, says in (
        ("none", r"none: no such file or folder; expected \.npz files, images\.yaml or file\.py:function"),
        ("empty", r"empty: no \.npz file found; expected a folder of \.npz files, one feed per file"),
        ("none.py:feeds", r"none\.py: no such file; expected a Python file"),
        ("model.py:feeds", r"model\.py: has no 'feeds'; it defines"),
    ):
        refused("quantize", exported, "-o", "q.onnx", "--calibration", data, says=says)


def test_static_quantization_without_data(refused: Refused, exported: str) -> None:
    says = r"no calibration data: ranges of activations are never guessed\. Give --calibration DATA\.$"
    refused("quantize", exported, "-o", "q.onnx", "--mode", "static", says=says)


# Where the result should go.

TO_A_FILE = [
    pytest.param(lambda out: export_to(out), id="onnx"),
    pytest.param(lambda out: ("export", "torchscript", "model.py:build", "-o", out, *CONTRACT), id="torchscript"),
    pytest.param(lambda out: ("convert", "fp16", "m.onnx", "-o", out), id="fp16"),
    pytest.param(lambda out: ("quantize", "m.onnx", "-o", out), id="quantize"),
]


def export_to(out: str) -> tuple[object, ...]:
    return ("export", "onnx", "model.py:build", "-o", out, *CONTRACT, *OLD)


@pytest.mark.parametrize("command", TO_A_FILE)
def test_an_existing_file_is_not_replaced_without_force(
    refused: Refused, optkit: CommandLine, folder: Path, exported: str, command: Command
) -> None:
    (folder / "there.bin").write_text("mine")
    refused(
        *command("there.bin"),
        says=r"there\.bin: exists already\. Give --force to replace it, or another name with -o\.$",
    )
    assert (folder / "there.bin").read_text() == "mine"
    assert optkit(*command("there.bin"), "--force").code == 0
    assert (folder / "there.bin").read_bytes() != b"mine"


@pytest.mark.parametrize("command", TO_A_FILE)
def test_an_output_that_is_a_folder(refused: Refused, folder: Path, exported: str, command: Command) -> None:
    (folder / "out").mkdir()
    refused(*command("out"), says=r"out: is a directory; expected the name of a file to write$")


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


def read_only(folder: Path) -> Path:
    closed = folder / "closed"
    closed.mkdir(mode=0o555)
    if not os.access(closed, os.W_OK):
        return closed
    if not Path("/proc/self").exists():
        pytest.skip("this user may write anywhere")
    return Path("/proc/self")  # where even root cannot make a file


@pytest.mark.parametrize("where", [below_a_file, read_only])
@pytest.mark.parametrize("command", TO_A_FILE)
def test_a_folder_that_cannot_be_written(
    refused: Refused, folder: Path, exported: str, command: Command, where: Callable[[Path], Path]
) -> None:
    out = where(folder) / "out.bin"
    refused(
        *command(str(out)),
        says=r"out\.bin: cannot be written \((Not a directory|File exists|Permission denied|No such file or directory)\)$",
    )


@pytest.mark.parametrize("where", [below_a_file, read_only])
@pytest.mark.parametrize("target", ["triton", "torchserve"])
def test_a_folder_of_packages_that_cannot_be_written(
    refused: Refused, folder: Path, exported: str, target: str, where: Callable[[Path], Path]
) -> None:
    says = r": (cannot be written \(.*\)|is a file; expected a folder to write to)$"
    refused("package", target, exported, "-o", where(folder), says=says)


@pytest.mark.parametrize("where", [below_a_file, read_only])
def test_a_folder_of_a_run_that_cannot_be_written(
    refused: Refused, folder: Path, where: Callable[[Path], Path]
) -> None:
    out = where(folder)
    says = r"is a file; expected a folder\. Choose another one with -o\.$|is not writable\. Choose another folder with -o\.$|cannot be written"
    refused("run", "recipe.yaml", "-o", out, says=says)
    refused("run", "recipe.yaml", "-o", out / "deeper" / "still", says=says)


@pytest.mark.parametrize("target", ["triton", "torchserve"])
def test_an_existing_package_is_not_replaced_without_force(
    refused: Refused, optkit: CommandLine, exported: str, target: str
) -> None:
    assert optkit("package", target, exported, "-o", "store").code == 0
    assert optkit("quantize", exported, "-o", exported, "--force").code == 0
    refused("package", target, exported, "-o", "store", says=r"exists already.*use --force to replace it\.$")
    assert optkit("package", target, exported, "-o", "store", "--force").code == 0


# Options.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("export", "onnx", "model.py:build", "-o", "m.onnx"), r'its inputs are not declared, .* as in --input "x:float32'),
        (export("--set", "n"), r"^error: --set n: expected name=value$"),
        (export("--set", "n=1", "--set", "n=2"), r"^error: --set n=2: 'n' is given twice$"),
        (export("--set", "n=[1]"), r"^error: --set n=\[1\]: is a list; expected a number, text, true or false$"),
        (export("--set", "n=1"), r"^error: .*model\.py:build: raised TypeError: .*'n'$"),
        (export("--dim", "length=1:2:3"), r"dimension 'length': has a range but no input uses it; the inputs use batch$"),
        (export("--dim", "batch"), r"^error: --dim batch: expected name=value$"),
        (export("--output-name", "a", "--output-name", "b"), r"outputs: 2 names given \(a, b\), but forward returns output$"),
        (("export", "onnx", "model.py:build", "-o", "m.onnx", "--input", "x:f32[4]"), r"unknown dtype 'f32'; expected one of"),
        (("export", "onnx", "model.py:build", "-o", "m.onnx", "--input", "x"), r"'x' is not a tensor specification; expected name:dtype"),
        (("export", "onnx", "model.py:build", "-o", "m.onnx", "--input", "x:float32[batch,4]"), r"dimension 'batch': used by an input but has no range; declare it"),
        (("export", "torchscript", "model.py:build", "-o", "m.pt", *CONTRACT, "--method", "other"), r"Invalid value for '--method': .*'other' is not one of 'auto', 'script', 'trace'"),
        (("run", "recipe.yaml", "--set", "bench.seed"), r"^error: --set bench\.seed: expected name=value$"),
        (("run", "recipe.yaml", "--step", "export-onx"), r"^error: --step export-onx: is not a step of the recipe\. Did you mean 'export-onnx'\?$"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--mode", "static8"), r"Invalid value for '--mode': .*'static8' is not one of 'auto', 'static', 'dynamic'"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--max-drop", "0.1"), r"^error: --max-drop 0\.1: nothing measures accuracy\. Give --evaluate file\.py:evaluate\.$"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--min-cosine", "2"), r"^error: --min-cosine: Input should be less than or equal to 1$"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--min-cosine", "0.9"), r"^error: quantize-dynamic: ranking the layers needs real samples\. Give --calibration DATA\.$"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--format", "qdq"), r"^error: --format: applies only to static quantization, which needs --calibration DATA\. "),
        (("quantize", "m.onnx", "-o", "q.onnx", "--mode", "dynamic", "--calibration", "model.py:calibration"), r"^error: --calibration: applies only to static quantization"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--target", "gpu"), r"Invalid value for '--target': .*'gpu' is not one of 'cpu', 'tensorrt'"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--mode", "dynamic", "--target", "tensorrt"), r"^error: --target: TensorRT has no dynamic INT8: it does not support DynamicQuantizeLinear"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--target", "tensorrt"), r"no calibration data: ranges of activations are never guessed"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--exclude", "/encoder/*"), r"^error: quantize-dynamic: exclude: no node matches '/encoder/\*'; similar names are \S+"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--op", "Conv"), r"^error: quantize-dynamic: op_types: the model has no Conv node; it has \S+"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--exclude-op", "Gemm"), r"^error: quantize-dynamic: nothing would become INT8: .*, and the model has them, but all are excluded$"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--max-drop", "0", "--min-cosine", "1", "--evaluate", "model.py:evaluate"), r"--max-drop and --min-cosine are mutually exclusive"),
        (("quantize", "m.onnx", "-o", "q.onnx", "--evaluate", "none.py:f"), r"none\.py: no such file; expected a Python file"),
        (("convert", "fp16", "m.onnx", "-o", "q.onnx", "--dim", "length=1:2:3"), r"^error: --dim length: no input of m\.onnx uses it; they use batch$"),
        (("bench", "m.onnx", "--batch", "1,x"), r"^error: --batch 1,x: expected numbers separated by commas, for example 1,8,64$"),
        (("bench", "m.onnx", "--batch", "99"), r"^error: bench: batch 99; 'batch' is declared from 1 to 8$"),
        (("bench", "m.onnx", "--device", "gpu"), r"Invalid value for '--device': .*'gpu' is not one of 'cpu', 'cuda'"),
        (("bench", "m.onnx", "--threads", "0"), r"^error: --threads: Input should be greater than or equal to 1$"),
        (("bench",), r"Missing argument"),
        (("check", "m.onnx"), r"Missing argument"),
        (("inspect", "m.onnx", "--nonsense"), r"No such option"),
        (("nonsense",), r"No such command"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(refused: Refused, exported: str, arguments: tuple[Any, ...], says: str) -> None:
    refused(*(value if value != "m.onnx" or arguments[0] != "export" else "new.onnx" for value in arguments), says=says)


def test_an_onnx_file_of_others_needs_its_ranges(refused: Refused, folder: Path, onnx_linear: Artifact) -> None:
    (folder / "bare.onnx").write_bytes(onnx_linear.path.read_bytes())
    says = r"^error: bare\.onnx: no range is given for batch\. Add --dim batch=1:8:64 with your own numbers\.$"
    refused("quantize", "bare.onnx", "-o", "q.onnx", says=says)
    refused("bench", "bare.onnx", says=says)


def test_models_that_do_not_take_the_same_inputs(
    refused: Refused, folder: Path, exported: str, onnx_linear: Artifact
) -> None:
    (folder / "bare.onnx").write_bytes(onnx_linear.path.read_bytes())
    says = (
        r"the models do not take the same inputs: m\.onnx takes x:float32\[batch,4\] and bare\.onnx takes input:float32"
    )
    refused("check", exported, "bare.onnx", "--dim", "batch=1:2:4", says=says)
    refused("bench", exported, "bare.onnx", "--dim", "batch=1:2:4", says=says)


def test_quantizing_what_is_quantized(refused: Refused, optkit: CommandLine, exported: str) -> None:
    assert optkit("quantize", exported, "-o", "q.onnx").code == 0
    refused("quantize", "q.onnx", "-o", "qq.onnx", says=r"q\.onnx is int8; expected an FP32 model\.")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise KeyError('label')", r"raised .*KeyError: 'label'"),
        ("return float('nan')", r"returned nan; expected a finite"),
    ],
)
def test_an_evaluation_that_fails_while_layers_are_chosen(
    refused: Refused, folder: Path, exported: str, body: str, says: str
) -> None:
    (folder / "e.py").write_text(f"def evaluate(predict):\n    {body}\n")
    held = ("--calibration", "model.py:calibration", "--evaluate", "e.py:evaluate", "--max-drop", "0.1")
    refused("quantize", exported, "-o", "q.onnx", *held, says=rf"e\.py:evaluate: {says}")


def test_a_recipe_tells_all_its_faults_at_once(refused: Refused, folder: Path) -> None:
    write_recipe(
        folder / "recipe.yaml", model={"source": "none.py:build"}, steps=[ONNX, ONNX, DYNAMIC | {"after": "other"}]
    )
    refused("run", "recipe.yaml", says=r"(?s)model\.source: .*none\.py.*steps\.1 .*steps\.2 .*after 'other'")


def test_a_gpu_that_is_not_there_is_never_replaced_by_the_cpu(refused: Refused, exported: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    refused("bench", exported, "--device", "cuda", says=r"device 'cuda': .*Use --device cpu")
    refused("check", exported, exported, "--device", "cuda", says=r"device 'cuda': .*Use --device cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("resize=0",), "--image resize: "),
        (("size=3",), "--image size: "),
        (("mean=[1,2]",), "mean: 2 numbers for mode RGB; expected 3"),
        (("mean=[1",), "--image mean: cannot be read as YAML"),
        (("resize",), "--image resize: expected name=value"),
    ],
)
def test_image_options_that_make_no_sense(
    refused: Refused, exported: str, options: tuple[str, ...], message: str
) -> None:
    given = [part for option in options for part in ("--image", option)]
    refused("package", "torchserve", exported, "-o", "store", *given, says=re.escape(message))
