"""Far-reaching values: files that are right on normal values and wrong beyond, on models and on runners with known answers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from optkit.artifact import Artifact, Format, Precision
from optkit.artifact.findings import Parity
from optkit.artifact.tensors import DimRange, Feed
from optkit.checks import Prover, Requirements, check_parity
from optkit.choose.stage import run_stage
from optkit.data import Samples
from optkit.errors import RunnerError
from optkit.pytorch.source import make_source
from optkit.runners import Runner
from optkit.stages import ExportOnnx
from tests.support.zoo import specs

Answer = Callable[[np.ndarray], np.ndarray]
BATCH = {"batch": DimRange(min=1, opt=4, max=16)}
X = specs("x:float32[batch,6]")


class Known(Runner):
    """Answers by a function of x."""

    provider = "known"

    def __init__(
        self, answer: Answer, precision: Precision = Precision.FP32, inputs: str = "x:float32[batch,6]"
    ) -> None:
        parts = {"path": Path("/nowhere/model.onnx"), "format": Format.ONNX, "precision": precision, "outputs": ()}
        super().__init__(Artifact(**parts, inputs=specs(inputs), dims=BATCH, sha256=""))
        self.answer, self._loaded = answer, True

    def _load(self) -> None: ...
    def _free(self) -> None: ...

    def _infer(self, feed: Feed) -> dict[str, np.ndarray]:
        with np.errstate(all="ignore"):
            return {"y": self.answer(next(iter(feed.values())))}

    def _bind(self, feed: Feed) -> Callable[[], None]:
        raise NotImplementedError


def parity(
    reference: Answer, candidate: Answer, precision: Precision = Precision.FP32, data: str | None = None
) -> Parity:
    samples = Samples.of(data, X, BATCH)
    return check_parity(Known(reference), Known(candidate, precision), samples, BATCH)


def atan(y: np.ndarray) -> np.ndarray:
    return np.arctan(y / y)


@pytest.mark.parametrize(
    ("reference", "candidate", "kind"),
    [
        pytest.param(lambda x: np.logaddexp(x, 0), lambda x: np.log(np.exp(x) + 1), "normal values times 1000", id="overflow"),
        pytest.param(lambda x: x, lambda x: np.clip(x, -15, 15), "equal values (20)", id="saturation"),
        pytest.param(lambda x: x, lambda x: np.maximum(x, -15), "equal values (-20)", id="saturation-of-negatives"),
        pytest.param(lambda x: np.arctan2(x, x), lambda x: np.where(x < 0, np.arctan2(x, x), atan(x)), "zeros", id="zero-over-zero"),
        pytest.param(
            lambda x: 1e36 * (x * 1e4), lambda x: np.where(np.abs(x) < 1e-30, 1, 1e36 * (x * 1e4)), "zeros", id="flushed",
        ),
        pytest.param(
            lambda x: x.var(-1), lambda x: (x * x).mean(-1) - x.mean(-1) ** 2, "values around 1000", id="cancellation",
        ),
        pytest.param(
            lambda x: x - x.max(-1, keepdims=True), lambda x: np.where(x.max(-1, keepdims=True) > 999.5, -1, x - x.max(-1, keepdims=True)),
            "one large value (1000) among small ones", id="large",
        ),
    ],
)  # fmt: skip
def test_what_is_right_on_normal_values_only_is_found(reference: Answer, candidate: Answer, kind: str) -> None:
    found = parity(lambda x: reference(x).astype(np.float32), lambda x: candidate(x).astype(np.float32))
    assert not found.passed
    assert found.failure is not None
    assert f"on far-reaching values, {kind}: " in found.failure
    assert found.failure.endswith("or give real samples with --data, if its values never reach so far")
    assert all(
        one.max_abs is not None for one in found.outputs if not one.failure
    )  # the normal values are as they were


def test_the_range_in_which_it_is_right_is_said() -> None:
    found = parity(lambda x: x, lambda x: np.clip(x, -15, 15))
    assert found.failure is not None
    up_to = float(found.failure.partition("right for inputs of up to ")[2].partition(" ")[0])
    assert 7 < up_to <= 15


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        pytest.param(lambda x: np.exp(x), lambda x: np.where(x > 88, np.nan, np.exp(x)), id="the-reference-overflows"),
        pytest.param(lambda x: np.sin(x * 1e6), lambda x: np.sin(x * np.float32(1e6) * (1 + 1e-7)), id="chaotic"),
        pytest.param(lambda x: (x - 1000) * 100, lambda x: (x * np.float32(1 + 6e-8) - 1000) * 100, id="ill-conditioned"),
        pytest.param(lambda x: x @ np.ones((6, 6)), lambda x: x[:, ::-1] @ np.ones((6, 6)), id="sums-in-another-order"),
        pytest.param(lambda x: x.argmax(-1), lambda x: 5 - x[:, ::-1].argmax(-1), id="ties"),
    ],
)  # fmt: skip
def test_what_the_reference_itself_cannot_say_is_not_compared(reference: Answer, candidate: Answer) -> None:
    def cast(y: np.ndarray) -> np.ndarray:
        return y.astype(np.float32) if y.dtype.kind == "f" else y

    def near(x: np.ndarray) -> np.ndarray:  # equal on normal values, where parity has its own limits
        return cast(candidate(x) if np.abs(x).max() > 6 or np.ptp(x) == 0 else reference(x))

    found = parity(lambda x: cast(reference(x)), near)
    assert found.passed, found.failure


def test_only_files_in_full_precision_are_held_to_them() -> None:
    assert parity(lambda x: x, lambda x: np.clip(x, -15, 15), Precision.FP16).passed


def test_real_samples_decide_and_what_is_wrong_beyond_them_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=np.ones((16, 6), np.float32))
    found = parity(lambda x: x, lambda x: np.clip(x, -15, 15), data=str(tmp_path))
    assert found.passed
    assert found.beyond is not None
    assert "on far-reaching values, equal values (20): " in found.beyond


def test_a_kind_that_the_reference_refuses_is_left_out_and_the_others_are_compared() -> None:
    def refusing(x: np.ndarray) -> np.ndarray:
        if np.abs(x).max() > 900:
            raise RunnerError("index out of range")
        return x

    found = parity(refusing, lambda x: np.clip(x, -15, 15))
    assert not found.passed
    assert parity(refusing, lambda x: np.clip(x, -900, 900)).passed


@pytest.mark.parametrize("inputs", ["x:int64[batch,6]", "mask:float32[batch,6]"])
def test_integers_and_masks_keep_their_values(inputs: str) -> None:
    largest = 0.0

    def answer(x: np.ndarray) -> np.ndarray:
        nonlocal largest
        largest = max(largest, float(np.abs(x).max()))
        return x.astype(np.float32)

    samples = Samples(specs(inputs), BATCH)
    assert check_parity(Known(answer, inputs=inputs), Known(answer, inputs=inputs), samples, BATCH).passed
    assert largest <= 8


MODELS = """
import torch
from torch import nn
from torch.nn import functional as F

class Head(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.scale = kind, nn.Parameter(torch.ones(6))
    def forward(self, x):
        x = x * self.scale
        if self.kind == "logcumsumexp":
            return torch.logcumsumexp(x, -1)
        if self.kind == "log of a product":
            return torch.log(torch.sigmoid(x) * torch.sigmoid(-x))
        if self.kind == "boxes":
            scores, order = torch.sigmoid(x).topk(3, -1)
            return torch.gather(torch.cumsum(x, -1), 1, order)
        if self.kind == "banned":
            return x.masked_fill(torch.tensor([True, False] * 3), float("-inf"))
        if self.kind == "floor":
            return torch.floor_divide(x, 0.3)
        return torch.sqrt(-x.abs() - 1)

def build(kind):
    return Head(kind)
"""


def exported(kind: str, tmp_path: Path, exporter: str = "auto") -> tuple[Artifact, Parity]:
    (tmp_path / "model.py").write_text(MODELS)
    source = make_source(f"{tmp_path / 'model.py'}:build", tmp_path / "source", X, BATCH, args={"kind": kind})
    prover = Prover(source, Samples(X, BATCH), Requirements())
    artifact = run_stage(ExportOnnx.model_validate({"exporter": exporter}), source, tmp_path / "out", prover)
    return artifact, prover.parity(artifact)


@pytest.mark.parametrize(
    ("kind", "operator", "line"), [("logcumsumexp", "aten.logcumsumexp", 13), ("log of a product", "aten.log", 15)]
)
def test_the_operator_and_its_line_are_named(kind: str, operator: str, line: int, tmp_path: Path) -> None:
    _, found = exported(kind, tmp_path)
    assert found.failure is not None
    assert f"The operator is {operator} ({tmp_path / 'model.py'}:{line}); in the file it is the node " in found.failure
    assert "right for inputs of up to " in found.failure


def test_an_operator_that_is_wrong_on_normal_values_is_named_too(tmp_path: Path) -> None:
    _, found = exported("floor", tmp_path, "torchscript")
    assert found.failure is not None
    assert f"The operator is aten.floor_divide ({tmp_path / 'model.py'}:22)" in found.failure


@pytest.mark.parametrize("kind", ["boxes", "banned"])
def test_choices_among_equal_scores_and_infinities_that_belong_there_are_right(kind: str, tmp_path: Path) -> None:
    artifact, found = exported(kind, tmp_path)
    assert found.passed, found.failure
    assert not any("not chosen" in note for note in artifact.notes)


def test_unusable_samples_are_the_fault_of_no_exporter(tmp_path: Path) -> None:
    artifact, found = exported("root", tmp_path)
    assert found.unusable
    assert "the model itself gives NaN in " in str(found.failure)
    assert not any("not chosen" in note for note in artifact.notes)
