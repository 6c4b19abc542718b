"""Types are chosen by measurement among those that are right, and the record has what was measured."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from optkit.artifact import Artifact, Passport, Precision
from optkit.artifact.findings import Quantization, SpeedUp, Stopped, Tolerance, Verdict
from optkit.benchmark import Machine, this_machine
from optkit.checks import Prover, Requirements
from optkit.choose.int8 import gain
from optkit.choose.int8 import types as int8_types
from optkit.choose.stage import run_stage
from optkit.data import Feeds, Samples
from optkit.errors import StageError
from optkit.pytorch.source import make_source
from optkit.stages import ExportOnnx, QuantizeDynamic, QuantizeStatic, Stage
from optkit.tensorrt.qdq_rules import broken_rules
from tests.support import zoo
from tests.support.zoo import Make

ONNX = ExportOnnx(exporter="torchscript", opset=17)
LINEAR = f"{zoo.HERE}:linear_feeds"
CONV = f"{zoo.HERE}:conv_feeds"


def prover(source: Artifact, data: str | None, **wanted: object) -> Prover:
    real = Feeds(data, source.inputs) if data else None
    return Prover(source, Samples(source.inputs, source.dims, real), Requirements.model_validate(wanted))


def chosen(stage: Stage, source: Artifact, folder: Path, data: str | None = CONV) -> tuple[Artifact, Quantization]:
    made = run_stage(stage, source, folder / "out", prover(source, data))
    assert made.quantization is not None
    return made, made.quantization


def times(monkeypatch: pytest.MonkeyPatch, ms: dict[str, float]) -> None:
    """Let candidates take the given times."""

    def latencies(made: dict[str, Artifact], *_: object, **__: object) -> dict[str, float]:
        return {name: ms[name] for name in made}

    monkeypatch.setattr(int8_types, "_latencies", latencies)


FAST_U8 = {"u8s8 qdq": 1.0, "s8s8 qdq": 2.0, "u8s8 qoperator": 1.2, "s8s8 qoperator": 8.0, "dynamic": 3.0}


def test_the_fastest_is_kept_and_the_others_are_told_why(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, FAST_U8)
    made, found = chosen(QuantizeStatic(calibration=CONV), make("conv", ONNX), tmp_path)
    assert found.chosen == "u8s8 qdq"
    assert {one.name: one.verdict for one in found.tried} == {
        "u8s8 qdq": "the fastest within tolerance",
        "s8s8 qdq": "slower: 2.00 times the latency of u8s8 qdq",
        "u8s8 qoperator": "slower: 1.20 times the latency of u8s8 qdq",
        "s8s8 qoperator": "slower: 8.00 times the latency of u8s8 qdq",
    }
    assert all(one.sqnr_db is not None and one.sqnr_db > 20 for one in found.tried)
    assert "chosen: u8s8 qdq" in made.notes
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx"}
    assert made.path == tmp_path / "out" / "model.onnx"


def test_the_choice_is_read_back_from_the_file(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, FAST_U8 | {"s8s8 qoperator": 0.1})
    made, found = chosen(QuantizeStatic(calibration=CONV), make("conv", ONNX), tmp_path)
    assert found.chosen == "s8s8 qoperator"
    nodes = {node.op_type for node in onnx.load(made.path).graph.node}
    assert "QLinearConv" in nodes
    assert made.precision is Precision.INT8


def test_equal_latencies_take_the_first_in_the_list(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, dict.fromkeys(FAST_U8, 1.0) | {"s8s8 qdq": 0.99})
    _, found = chosen(QuantizeStatic(calibration=CONV), make("conv", ONNX), tmp_path)
    assert found.chosen == "u8s8 qdq"
    verdicts = {one.name: one.verdict for one in found.tried}
    assert verdicts["s8s8 qdq"] == "no faster: 0.99 times the latency of u8s8 qdq"


def test_a_fast_candidate_that_is_wrong_is_not_kept(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, FAST_U8)
    really = int8_types._noise

    def noise(artifact: Artifact, *rest: object) -> tuple[float | None, str | None]:
        wrong = "u8s8-qdq" in str(artifact.path)
        return (3.0, "output 'output': SQNR 3.0 dB is below 10") if wrong else really(artifact, *rest)

    monkeypatch.setattr(int8_types, "_noise", noise)
    _, found = chosen(QuantizeStatic(calibration=CONV), make("conv", ONNX), tmp_path)
    assert found.chosen == "u8s8 qoperator"
    verdicts = {one.name: one.verdict for one in found.tried}
    assert verdicts["u8s8 qdq"] == "outside tolerance: output 'output': SQNR 3.0 dB is below 10"


def test_what_is_wrong_is_found_by_running_it(make: Make) -> None:
    source = make("conv", ONNX)
    wanted = prover(source, CONV, tolerances={Precision.INT8: Tolerance(min_sqnr_db=200)})
    sqnr, wrong = int8_types._noise(make("conv", ONNX, QuantizeStatic(calibration=CONV)), source, wanted)
    assert sqnr is not None
    assert wrong == f"output 'output': SQNR {sqnr:.1f} dB is below 200"


def test_dynamic_quantization_may_win(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, FAST_U8 | {"dynamic": 0.5})
    stage = QuantizeStatic(calibration=LINEAR, or_dynamic=True)
    made, found = chosen(stage, make("linear", ONNX), tmp_path, LINEAR)
    assert found.chosen == "dynamic"
    assert "MatMulInteger" in {node.op_type for node in onnx.load(made.path).graph.node}


def test_a_candidate_that_cannot_be_made_is_told(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, FAST_U8)
    _, found = chosen(QuantizeStatic(calibration=CONV, or_dynamic=True), make("conv", ONNX), tmp_path)
    verdict = next(one.verdict for one in found.tried if one.name == "dynamic")
    assert verdict.startswith("could not be made: nothing would become INT8")


def test_types_that_were_asked_for_are_not_measured_against_others(make: Make, tmp_path: Path) -> None:
    stage = QuantizeStatic(calibration=CONV, activation_type="int8", format="qdq")
    _, found = chosen(stage, make("conv", ONNX), tmp_path)
    assert (found.chosen, found.tried) == ("s8s8 qdq", ())


@pytest.mark.parametrize(("vnni", "largest"), [(False, 64), (True, 127), (None, 127)])
def test_weights_are_narrow_where_the_processor_has_no_vnni(
    vnni: bool | None, largest: int, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine: Machine = this_machine().model_copy(update={"vnni": vnni})
    monkeypatch.setattr(int8_types, "this_machine", lambda: machine)
    made, _ = chosen(QuantizeDynamic(), make("linear", ONNX), tmp_path, LINEAR)
    (weight,) = [t for t in onnx.load(made.path).graph.initializer if t.name.endswith("_quantized")]
    assert np.abs(onnx.numpy_helper.to_array(weight)).max() == largest


def test_unsigned_weights_keep_their_8_bits(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine: Machine = this_machine().model_copy(update={"vnni": False})
    monkeypatch.setattr(int8_types, "this_machine", lambda: machine)
    made, _ = chosen(QuantizeDynamic(weight_type="uint8"), make("linear", ONNX), tmp_path, LINEAR)
    (weight,) = [t for t in onnx.load(made.path).graph.initializer if t.name.endswith("_quantized")]
    assert np.ptp(onnx.numpy_helper.to_array(weight).astype(int)) > 128


def test_unsigned_weights_go_with_unsigned_activations_alone(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, {"u8u8 qdq": 1.0, "u8u8 qoperator": 2.0})
    _, found = chosen(QuantizeStatic(calibration=CONV, weight_type="uint8"), make("conv", ONNX), tmp_path)
    assert [one.name for one in found.tried] == ["u8u8 qdq", "u8u8 qoperator"]
    assert found.chosen == "u8u8 qdq"


@pytest.mark.measures
def test_sizes_and_latencies_before_and_after_are_told_and_kept(make: Make, tmp_path: Path) -> None:
    source = make("conv", ONNX)
    made, found = chosen(QuantizeStatic(calibration=CONV, activation_type="uint8", format="qdq"), source, tmp_path)
    assert (found.size_before_bytes, found.size_after_bytes) == (source.size_bytes, made.size_bytes)
    assert found.speed_up is not None
    assert found.p50_before_ms is not None
    assert found.p50_after_ms is not None
    assert found.speed_up.low is not None
    assert found.speed_up.high is not None
    assert found.speed_up.low <= found.speed_up.ratio <= found.speed_up.high
    Passport(artifact=made).save()
    assert "size 0.000" in made.notes[-1]
    assert " ms: " in made.notes[-1]


@pytest.mark.measures
def test_int8_that_is_not_faster_is_said_plainly(make: Make, tmp_path: Path) -> None:
    # ONNX Runtime has no integer kernel of a convolution with signed activations that is fast on x86, and the model is tiny.
    stage = QuantizeStatic(calibration=CONV, activation_type="int8", format="qoperator")
    made, found = chosen(stage, make("conv", ONNX), tmp_path)
    assert found.speed_up is not None
    assert found.speed_up.verdict is not Verdict.FASTER
    busy = found.speed_up.verdict is Verdict.TOO_NOISY
    plain = "The measurement is too noisy to say whether INT8 is faster here; " if busy else "INT8 is not faster here; "
    assert plain in made.notes[-1]


def gain_note(stage: QuantizeStatic | QuantizeDynamic, made: Artifact, ratio: float, verdict: Verdict) -> str:
    """Return the note on a model that was measured so."""
    speed = SpeedUp(
        reference="fp32", candidate="int8", batch=4, ratio=ratio, low=ratio - 0.1, high=ratio + 0.1,
        free_low=None, free_high=None, verdict=verdict, blocks=6, stopped=Stopped.BLOCKS,
    )  # fmt: skip
    found = Quantization(
        chosen="dynamic", size_before_bytes=10, size_after_bytes=5, p50_before_ms=1, p50_after_ms=2, speed_up=speed
    )
    (note,) = gain._gain_notes(found, made, stage, True)
    return note


def test_whether_it_pays_is_told_with_the_operators_that_stayed_in_float_and_why(make: Make) -> None:
    dynamic, conv = QuantizeDynamic(), make("conv", ONNX)
    linear = make("linear", ONNX, dynamic)
    fast = gain_note(dynamic, linear, 3.0, Verdict.FASTER)
    assert fast.endswith("p50 at batch 4 1 -> 2 ms: 3.00x (2.90 to 3.10) as fast as FP32")
    assert gain_note(dynamic, conv, 1.0, Verdict.NO_DIFFERENCE).endswith(
        "INT8 is not faster here; stayed in float: 1 Conv (dynamic INT8 of a convolution is slower than FP32; static INT8 is not)"
    )
    excluded = QuantizeStatic(exclude_ops=("Conv",))
    assert gain_note(excluded, conv, 1.1, Verdict.TOO_NOISY).endswith(
        "The measurement is too noisy to say whether INT8 is faster here; stayed in float: 1 Conv (excluded)"
    )


SIGNED = QuantizeStatic(activation_type="int8", format="qoperator")


@pytest.mark.parametrize(
    ("stage", "vnni", "why"),
    [
        (QuantizeDynamic(), False, ", but this processor has no VNNI"),
        (QuantizeDynamic(), True, "; the layers may be too small"),
        (QuantizeDynamic(), None, "; the layers may be too small"),
        (SIGNED, False, ", but ONNX Runtime has no fast kernel for QOperator convolutions with signed activations"),
    ],
)
def test_where_nothing_stayed_in_float_the_types_the_processor_or_the_size_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch, stage: QuantizeStatic | QuantizeDynamic, vnni: bool | None, why: str
) -> None:
    machine = this_machine().model_copy(update={"vnni": vnni})
    monkeypatch.setattr(gain, "this_machine", lambda: machine)
    note = gain_note(stage, make("linear", ONNX, QuantizeDynamic()), 0.5, Verdict.SLOWER)
    assert f"0.50x (0.40 to 0.60). INT8 is not faster here; every heavy operator is in INT8{why}" in note


def test_the_preset_for_tensorrt_passes_its_lint_and_says_what_its_size_means(make: Make, tmp_path: Path) -> None:
    made, found = chosen(QuantizeStatic(calibration=CONV, target="tensorrt"), make("conv", ONNX), tmp_path)
    assert broken_rules(made.path) == []
    assert found.speed_up is None  # the latency of the file on this processor says nothing
    assert made.notes[-1].endswith(
        "the file keeps FP32 weights; TensorRT converts them to INT8 when it builds the engine"
    )


def test_a_file_that_tensorrt_would_refuse_is_an_error(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuantizeStatic, "_extra_options", lambda *_: {})
    source = make("conv", ONNX)
    stage = QuantizeStatic(calibration=CONV, target="tensorrt")
    with pytest.raises(
        StageError, match=r"(?s)^quantize-static: TensorRT would reject the file:.*  - trt-weight-pair: "
    ):
        run_stage(stage, source, tmp_path / "out", prover(source, CONV))
    assert list((tmp_path / "out").iterdir()) == []


def test_faults_carry_the_name_of_the_step(make: Make, tmp_path: Path) -> None:
    source = make("linear", ONNX)
    with pytest.raises(StageError, match=r"^mine: no calibration data: ranges of activations are never guessed"):
        run_stage(QuantizeStatic(name="mine"), source, tmp_path / "out", prover(source, None))
    with pytest.raises(StageError, match=r"^quantize-dynamic: model\.onnx is int8; expected an FP32 model"):
        run_stage(QuantizeDynamic(), make("linear", ONNX, QuantizeDynamic()), tmp_path / "out", prover(source, None))


@pytest.fixture
def transformer(tmp_path: Path) -> Artifact:
    """Return a block of a transformer in which few channels are large."""
    module = make_source(f"{zoo.HERE}:block", tmp_path, zoo.specs("x:float32[batch,6,16]"), zoo.BATCH)
    return ONNX.model_copy(update={"opset": 18}).run(module, tmp_path / "fp32")


BLOCK = f"{zoo.HERE}:block_feeds"
TRANSFORMER = {"u8s8 qdq": 1.0, "s8s8 qdq": 2.0, "dynamic": 0.9}


@pytest.mark.parametrize(("slower", "kept"), [(1.05, True), (1.2, False)])
def test_a_transformer_is_smoothed_where_it_gains_and_hardly_costs(
    slower: float, kept: bool, transformer: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, TRANSFORMER | {"u8s8 qdq smooth": slower})
    made, found = chosen(QuantizeStatic(calibration=BLOCK), transformer, tmp_path, BLOCK)
    assert found.chosen == ("u8s8 qdq smooth" if kept else "u8s8 qdq")
    verdicts = {one.name: one for one in found.tried}
    smooth, plain = verdicts["u8s8 qdq smooth"], verdicts["u8s8 qdq"]
    assert smooth.sqnr_db is not None
    assert plain.sqnr_db is not None
    assert smooth.sqnr_db > plain.sqnr_db + 1
    assert smooth.verdict.startswith("more accurate: +" if kept else "gain too small: +")
    assert smooth.verdict.endswith(f"{slower:.2f} times the latency of u8s8 qdq")
    assert plain.verdict == ("less accurate" if kept else "the fastest within tolerance")
    assert any(note.startswith("smoothed by SmoothQuant") for note in made.notes) is kept
    assert any(":smooth" in name for name in made.calibration.ranges if made.calibration) is kept


def test_dynamic_int8_is_smoothed_with_the_calibration_data(
    transformer: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, TRANSFORMER | {"dynamic smooth": 0.95})
    made, found = chosen(QuantizeStatic(calibration=BLOCK, or_dynamic=True), transformer, tmp_path, BLOCK)
    assert found.chosen == "dynamic smooth"
    graph = onnx.load(made.path).graph
    assert "MatMulInteger" in {node.op_type for node in graph.node}
    assert any("smooth" in tensor.name for tensor in graph.initializer)


def test_smoothing_can_be_left_out_or_asked_for(
    transformer: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, TRANSFORMER)
    _, plain = chosen(QuantizeStatic(calibration=BLOCK, smooth=0), transformer, tmp_path, BLOCK)
    assert all("smooth" not in one.name for one in plain.tried)
    made, wanted = chosen(QuantizeStatic(calibration=BLOCK, smooth=0.6), transformer, tmp_path, BLOCK)
    assert wanted.chosen == "u8s8 qdq"
    assert "smoothed by SmoothQuant, alpha 0.6" in made.notes


def test_what_is_for_tensorrt_is_smoothed_for_its_accuracy_alone(transformer: Artifact, tmp_path: Path) -> None:
    made, found = chosen(QuantizeStatic(calibration=BLOCK, target="tensorrt"), transformer, tmp_path, BLOCK)
    assert found.chosen == "s8s8 symmetric qdq smooth"
    assert all("latency" not in one.verdict for one in found.tried)
    assert not broken_rules(made.path)


def test_smoothing_comes_before_layers_in_float(
    transformer: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, TRANSFORMER | {"u8s8 qdq smooth": 1.0})
    plain = chosen(QuantizeStatic(calibration=BLOCK, smooth=0, min_cosine=0.9998), transformer, tmp_path / "a", BLOCK)[
        1
    ]
    smooth = chosen(QuantizeStatic(calibration=BLOCK, min_cosine=0.9998), transformer, tmp_path / "b", BLOCK)[1]
    assert len(smooth.exclude) < len(plain.exclude)
