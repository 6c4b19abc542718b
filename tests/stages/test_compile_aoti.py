"""`compile-aoti`: what is refused, with its cause, and leaves nothing behind. No test here runs the compiler."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.errors import StageError
from optkit.pytorch.program import capture, changed_buffers
from optkit.stages import CompileAoti, ExportProgram, compile_aoti
from tests.support.zoo import Make

X = (TensorSpec.parse("x:float32[batch,4]"),)
Y = (TensorSpec.parse("y:float32[batch,4]"),)
FEED = {"x": np.ones((3, 4), np.float32)}
RANGE = {"batch": DimRange(min=1, opt=4, max=16)}


class Branches(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class UsesSize(nn.Module):
    def forward(self, x):
        return x * int(x.shape[0]) + torch.ones(int(x.shape[0]), 1)


class Constant(nn.Module):
    def forward(self, x):
        return x.reshape(3, 4) * 1


class Narrow(nn.Module):
    def forward(self, x):
        return x[:8] + x[:8] if x.shape[0] > 8 else x * 2


class Raises(nn.Module):
    def forward(self, x):
        raise ValueError("not today")


REFUSED = {
    "graph break": (
        Branches,
        r"cannot capture a branch on the values of a tensor: use torch\.where .*test_compile_aoti\.py:\d+",
    ),
    "constant": (Constant, r"dimension 'batch' is not free in its whole range: .*--dim batch=min:opt:max"),
    "narrower range": (Narrow, r"dimension 'batch' is not free in its whole range: .*<= 8"),
    "user's error": (Raises, r"cannot capture the model: .*test_compile_aoti\.py:\d+: ValueError: not today"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_model_that_cannot_be_captured_is_refused_with_the_cause(fault: str) -> None:
    model, message = REFUSED[fault]
    with pytest.raises(StageError, match=message):
        capture(model().eval(), FEED, X, Y, RANGE)


def test_ranges_are_those_declared() -> None:
    program = capture(
        nn.Identity().eval(),
        {"x": np.ones((8, 4), np.float32)},
        X,
        Y,
        {"batch": DimRange(min=4, opt=8, max=16, multiple_of=4)},
    )
    assert [(int(r.lower), int(r.upper)) for size, r in program.range_constraints.items() if "*" in str(size)] == [
        (4, 16)
    ]
    fixed = capture(
        nn.Identity().eval(), {"x": np.ones((4, 4), np.float32)}, X, Y, {"batch": DimRange(min=4, opt=4, max=4)}
    )
    assert not fixed.range_constraints


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_cast_and_inputs_and_outputs_are_not(dtype: torch.dtype) -> None:
    module = nn.Linear(4, 4)
    program = capture(module, FEED, X, Y, RANGE, dtype=dtype)
    assert {weight.dtype for weight in program.state_dict.values()} == {dtype}
    assert program.module()(torch.zeros(3, 4)).__getitem__(0).dtype is torch.float32
    assert module.weight.dtype is torch.float32  # the caller's own


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls.view(-1)[0] += 1
        return x * 2


def test_buffers_that_change_are_found() -> None:
    assert changed_buffers(capture(Counts().eval(), FEED, X, Y, RANGE)) == ["module.calls"]
    assert changed_buffers(capture(nn.Dropout(inplace=True).eval(), FEED, X, Y, RANGE)) == []


def left(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


@pytest.fixture
def linear(make: Make) -> Artifact:
    return make("linear")


def test_no_compiler_is_said_before_the_work(linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(compile_aoti, "capture", lambda *_, **__: pytest.fail("it worked before"))
    with pytest.raises(StageError, match=r"^compile-aoti: g\+\+, the C\+\+ compiler, is not on the PATH"):
        CompileAoti().run(linear, tmp_path)
    assert not left(tmp_path)


def test_a_missing_gpu_is_said_before_the_work(linear: Artifact, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(StageError, match=r"^compile-aoti: device 'cuda': torch finds no usable GPU here"):
        CompileAoti(device="cuda").run(linear, tmp_path)
    assert not left(tmp_path)


def test_another_suffix_is_refused(linear: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"model\.so: does not end in \.pt2"):
        CompileAoti().run(linear, tmp_path, "model.so")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([StageError("compiling: was not done in 1 s, the time limit")], "was not done in 1 s"),
        (
            [{"constants": [[0, 0, 3]], "seconds": 1}],
            r"input 'input': the compiler turned its dimension 'batch' \(axis 0\) into the constant 3; expected 1 to 16",
        ),
        ([{"constants": []}, {"outputs": [[]] * 5}], r"the package returns 0 outputs; expected 1"),
        ([{"constants": []}, StageError("the package: its process was killed by SIGILL")], "killed by SIGILL"),
    ],
    ids=["time limit", "specialised dimension", "missing output", "does not load"],
)
def test_what_fails_leaves_nothing_behind(
    answers: list, message: str, linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(*_: object, **__: object) -> object:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(compile_aoti, "run_job", stand_in)
    with pytest.raises(StageError, match=message):
        CompileAoti().run(linear, tmp_path)
    assert not left(tmp_path)


@pytest.mark.parametrize("shape", [[4, 4], [4], [5, 3]])
def test_an_output_of_another_shape_is_refused(shape: list[int], linear: Artifact) -> None:
    right = [[["float32", [size, 3]]] for size in (4, 1, 16, 3)]
    compile_aoti._check_outputs(linear, right)
    with pytest.raises(
        StageError, match=r"output 'output': at batch=4 the package returns float32\[.*; expected float32\[batch,3\]"
    ):
        compile_aoti._check_outputs(linear, [[["float32", shape]], *right[1:]])
    with pytest.raises(StageError, match=r"returns float16\[4, 3\]"):
        compile_aoti._check_outputs(linear, [[["float16", [4, 3]]], *right[1:]])


def test_a_program_that_is_none_is_refused(make: Make, tmp_path: Path) -> None:
    source = make("linear", ExportProgram())
    (tmp_path / "model.pt2").write_bytes(b"no archive")
    broken = source.model_copy(update={"path": tmp_path / "model.pt2"})
    with pytest.raises(StageError, match=r"model\.pt2: cannot be loaded as an ExportedProgram"):
        CompileAoti().run(broken, tmp_path / "out")
    assert not left(tmp_path / "out")


def test_the_step_is_made_again_by_another_compiler_or_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    here = CompileAoti().versions()
    assert here.keys() == {"processor", "compiler"}
    monkeypatch.setattr(compile_aoti, "find_compiler", lambda: ("/usr/bin/g++", "g++ 99"))
    assert CompileAoti().versions()["compiler"] == "g++ 99"
    assert here["compiler"] != "g++ 99"
