"""Records of runs with numbers of one's own, for the tests of what is done with them."""

from collections.abc import Mapping, Sequence

from measured import measurement, speed_up

from optkit.artifact import Format
from optkit.bench import BenchSettings, Machine
from optkit.choose import Winner
from optkit.findings import Accuracy, BatchIndependence, OutputParity, Parity, Tolerance
from optkit.pipeline.plan import Origin
from optkit.pipeline.records import BenchRecord, Contract, MeasuredFile, RunRecord, StepResult
from optkit.tensors import DimRange

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
CONTRACT = Contract(
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


def step(name: str, **changes: object) -> StepResult:
    """Return a step that was built and passed."""
    made = StepResult(
        name=name, stage="export-onnx", parent="source", status="built", file=f"{name}/model.onnx", format="onnx",
        precision="fp32", size_bytes=1_000_000, sha256=f"{name}-1", seconds=1.5, notes=("opset 20",), parity=parity(),
        batch_independence=BatchIndependence(dim="batch"), accuracy=Accuracy(value=0.95, function="m.py:evaluate"),
    )  # fmt: skip
    return made.model_copy(update=changes)


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
