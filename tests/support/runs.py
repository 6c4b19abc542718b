"""Records of runs with numbers of one's own, for the tests of what is done with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from optkit.artifact import Artifact, Format, Passport, Precision
from optkit.artifact.calibration import (
    CalibrationKey,
    CalibrationResult,
    Diagnosis,
    Growth,
    LongTail,
    Moments,
    Outlier,
    Shift,
)
from optkit.artifact.findings import (
    Accuracy,
    BatchIndependence,
    FrontierPoint,
    LayerEffect,
    OutputParity,
    Parity,
    Quantization,
    Tolerance,
)
from optkit.artifact.tensors import DimRange
from optkit.benchmark import BenchSettings, Machine
from optkit.benchmark.bench_record import BenchRecord, MeasuredFile, ModelContract
from optkit.choose.winner import Winner
from optkit.pipeline.plan import Origin
from optkit.pipeline.records import RunRecord, StepResult
from optkit.record import Record
from tests.support.measured import measurement, speed_up

Made = TypeVar("Made", bound=Record)

MACHINE = Machine(
    cpu="CPU 9000",
    cores=4,
    memory_gib=16.0,
    vnni=True,
    governor=None,
    gpu=None,
    system="Linux 6.1 x86_64",
    python="3.11.7",
)
CONTRACT = ModelContract(
    inputs=("x:float32[batch,4]",), outputs=("y:float32[batch,3]",), dims={"batch": DimRange(min=1, opt=4, max=8)}
)
VERSIONS = {"torch": "2.13.0", "onnxruntime": "1.31.1"}
NOISE = (0.99, 1.0, 1.01, 1.0, 0.995, 1.005, 1.0, 0.99, 1.01, 1.0)  # of the times of the blocks


def parity(*, passed: bool = True, corners: Sequence[int] = (4, 1, 8)) -> Parity:
    """Return a parity at these batch sizes."""
    outputs = tuple(
        OutputParity(output="y", sizes={"batch": batch}, max_abs=1e-6, max_rel=1e-6, cosine=0.999999999)
        for batch in corners
    )
    if not passed:
        outputs = (outputs[0].model_copy(update={"failure": "cosine 0.5 is below 0.99", "cosine": 0.5}), *outputs[1:])
    return Parity(
        reference="model.py",
        candidate="m.onnx",
        tolerance=Tolerance(min_cosine=0.99),
        values="seeded random",
        outputs=outputs,
    )


def quantization(worst: str = "/conv1/Conv", **changes: object) -> Quantization:
    """Return a search in which the worst of three layers had to stay in float."""
    found = Quantization(
        chosen="u8s8 qdq", metric="m.py:evaluate", limit=0.94, value=0.95, size_before_bytes=4_000_000,
        size_after_bytes=1_500_000,
        layers=(
            LayerEffect(layer=worst, op="Conv", sqnr_db=9.5, size_bytes=300_000, kept=True),
            LayerEffect(layer="/fc/Gemm", op="Gemm", sqnr_db=31.25, size_bytes=2_000_000, kept=False),
            LayerEffect(layer="/unused/MatMul", op="MatMul", sqnr_db=None, size_bytes=0, kept=False),
        ),
        frontier=(
            FrontierPoint(kept=0, value=0.5, float_share=0.0, predicted_ms=0.25),
            FrontierPoint(kept=1, value=0.95, float_share=0.2, predicted_ms=0.3),
            FrontierPoint(kept=3, value=0.96, float_share=1.0),
        ),
    )  # fmt: skip
    return found.model_copy(update=changes)


def diagnosis(tensor: str = "/relu/out", **changes: object) -> Diagnosis:
    """Return what the doctor says of data with one fault of each kind."""
    found = Diagnosis(
        samples=64, growth=(Growth(samples=32, share=0.8),), settled_after=64, suggested_samples=128,
        outliers=(Outlier(sample=7, tensors=3, worst=tensor, stretch=4.5),), duplicates=((1, 5, 9),),
        constants={"x": (3, 4)}, moments=(), long_tails=(LongTail(tensor=tensor, inner_share=0.02, clipped_share=0.0),),
    )  # fmt: skip
    return found.model_copy(update=changes)


def shift(name: str = "x") -> Shift:
    """Return an input whose calibration data is off."""
    mine, right = (Moments(input=name, samples=64, mean=m, deviation=1.0, mean_error=0.1) for m in (3.0, 0.0))
    return Shift(calibration=mine, evaluation=right)


def step(name: str, **changes: object) -> StepResult:
    """Return a step that was built and passed; a change may be of the step, of its passport or of its artifact."""
    artifact = Artifact(
        path=Path(f"/gone/{name}/model.onnx"), format=Format.ONNX, precision=Precision.FP32, inputs=(), outputs=(),
        dims={}, sha256=f"{name}-1", notes=("opset 20",), built_with=VERSIONS,
    )  # fmt: skip
    passport = Passport(
        artifact=_changed(artifact, changes), seconds=1.5, parity=parity(), batch_independence=BatchIndependence(dim="batch"),
        accuracy=Accuracy(value=0.95, function="m.py:evaluate"),
    )  # fmt: skip
    there = changes.get("status") not in ("skipped", "failed")
    made = StepResult(
        name=name, stage="export-onnx", parent="source", status="built", size_bytes=1_000_000 if there else None,
        passport=_changed(passport, changes) if there else None,
    )  # fmt: skip
    return _changed(made, changes)


def _changed(record: Made, changes: Mapping[str, object]) -> Made:
    return record.model_copy(update={key: value for key, value in changes.items() if key in type(record).model_fields})


def calibrated(found: Diagnosis) -> CalibrationResult:
    """Return ranges that were taken from data of which the doctor says this."""
    key = CalibrationKey(
        method="minmax", percentile=99.99, sample=0, symmetric=False, model_sha256="m", data_sha256="d"
    )
    return CalibrationResult(key=key, ranges={"x": (0.0, 1.0)}, diagnosis=found)


def bench(p50_ms: Mapping[str, float], batches: Sequence[int] = (1, 8), **changes: object) -> BenchRecord:
    """Return a benchmark in which each artifact has this latency at batch 1, and grows with the batch."""
    times = {
        (name, batch): [[ms * batch**0.5 * noise] * 60 for noise in NOISE]
        for name, ms in p50_ms.items()
        for batch in batches
    }
    reference = next(iter(p50_ms))
    record = BenchRecord(
        machine=MACHINE,
        settings=BenchSettings(),
        versions=VERSIONS,
        contract=CONTRACT,
        files=tuple(
            MeasuredFile(artifact=name, path=f"/gone/{name}/model.onnx", sha256=f"{name}-1", size_bytes=1_000_000)
            for name in p50_ms
        ),
        load_before=0.1,
        measurements=tuple(measurement(name, *blocks, batch=batch) for (name, batch), blocks in times.items()),
        speed_ups=tuple(
            speed_up(
                name, *[p50_ms[reference] / p50_ms[name] * noise for noise in NOISE], batch=batch, reference=reference
            )
            for name in p50_ms
            if name != reference
            for batch in batches
        ),
    )
    return record.model_copy(update=changes)


def run_record(p50_ms: Mapping[str, float] | None = None, **changes: object) -> RunRecord:
    """Return a run whose artifacts have these latencies; the first is the source, the last one wins."""
    p50_ms = p50_ms or {"source": 1.0, "export-onnx": 0.5, "quantize-static": 0.25}
    source, *names = p50_ms
    record = RunRecord(
        recipe="tiny",
        origin=Origin(recipe="recipes/tiny.yaml"),
        created="2026-01-02T03:04:05",
        optkit="0.1.0",
        versions=VERSIONS,
        contract=CONTRACT,
        machine=MACHINE,
        source=step(source, stage="source", parent=None, format=Format.PYTORCH, parity=None, notes=()),
        steps=tuple(step(name) for name in names),
        bench=bench(p50_ms),
        winner=Winner(artifact=names[-1], reason="the fastest of 2 that passed every gate"),
        packaged=(),
        failures=(),
        seconds=12.0,
    )
    return record.model_copy(update=changes)
