"""Loads on the real Triton and the real TorchServe, by optkit's client and by the real perf_analyzer."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import TensorSpec
from optkit.data import Samples
from optkit.loadtest import LoadRecord, LoadSettings, Source, load_test, parse_target, with_advice
from optkit.serving import TorchServeServing, TritonServing, make_golden, package_torchserve, package_triton
from optkit.serving.torchserve.server import serving
from tests.support.needs import need

PROVEN = BatchIndependence(dim="batch")
DELAY_US = (
    20_000  # with two callers a batch of 8 never fills, so that each request takes about this long on any machine
)


@pytest.fixture(scope="module")
def repository(onnx, tmp_path_factory):
    folder = tmp_path_factory.mktemp("load") / "models"
    golden = make_golden(onnx, Samples(onnx.inputs, onnx.dims))
    delayed = TritonServing(preferred_batch_sizes=(8,), max_queue_delay_us=DELAY_US)
    prompt = TritonServing(preferred_batch_sizes=(8,), max_queue_delay_us=0)
    for name, settings in (("delayed", delayed), ("prompt", prompt), ("plain", TritonServing(batching=False))):
        package_triton(onnx, folder, settings, name=name, independence=PROVEN, sample=None, golden=golden)
    return folder


@pytest.fixture(scope="module")
def server(serve, repository):
    with serve(repository) as running:
        yield running


@pytest.fixture
def perf_analyzer(monkeypatch):
    """The real program, which tests/support/servers/install_triton.sh puts beside the server."""
    beside = Path(os.environ.get("OPTKIT_TRITON", "/nowhere"), "bin", "perf_analyzer")
    found = os.environ.get("OPTKIT_PERF_ANALYZER") or (str(beside) if beside.is_file() else None)
    need(found, "no perf_analyzer: run tests/support/servers/install_triton.sh FOLDER, set OPTKIT_TRITON")
    monkeypatch.setenv("OPTKIT_PERF_ANALYZER", found)


def load(url, model, repository, **fields):
    given = {"concurrency": (2,), "warmup_s": 0.3, "duration_s": 1.0, "limit_s": 60, "tool": "asyncio"} | fields
    record = load_test(parse_target(url, model), LoadSettings(**given), Source(repository=repository))
    assert record.failures == ()
    jsonschema.validate(json.loads(record.to_json()), LoadRecord.json_schema())
    return record


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_triton_forms_batches_and_its_statistics_are_in_the_record(server, repository, scheme):
    url = f"{scheme}://{getattr(server, scheme)}"
    record = load(url, "delayed", repository, concurrency=(2, 8))
    assert (record.data, record.protocol, record.version) == ("golden samples", scheme, None)
    assert (record.batching.preferred_batch_sizes, record.batching.max_queue_delay_us) == ((8,), DELAY_US)
    two, eight = record.points
    for point in (two, eight):
        formed = point.server
        assert sum(one.size * one.executions for one in formed.batches) == formed.inferences
        assert sum(one.executions for one in formed.batches) == formed.executions
        assert formed.executions < formed.inferences
        assert (
            abs(formed.inferences - point.answered) <= 3 * point.concurrency
        )  # the looks and the count differ a little
    assert max(one.size for one in eight.server.batches) <= 8
    assert eight.server.mean_batch > two.server.mean_batch
    assert two.mean_ms >= DELAY_US / 1000  # a request waits for the delay, and the queue's own time says so
    assert two.server.queue_ms >= 0.5 * DELAY_US / 1000


def test_without_dynamic_batching_every_execution_is_of_one_request(server, repository):
    record = load(f"http://{server.http}", "plain", repository, concurrency=(8,))
    [point] = record.points
    assert not record.batching.dynamic
    assert point.server.mean_batch == 1
    assert [one.size for one in point.server.batches] == [1]


def test_requests_of_several_samples_and_real_data(server, repository, sample, tmp_path):
    np.savez(tmp_path / "rows.npz", **sample)
    settings = LoadSettings(concurrency=(1,), warmup_s=0.1, duration_s=0.5, limit_s=60, batch=3, tool="asyncio")
    target = parse_target(f"grpc://{server.grpc}", "prompt", "1")
    record = load_test(target, settings, Source(data=str(tmp_path)))
    [point] = record.points
    assert (record.data, record.version, record.failures) == ("real samples", "1", ())
    assert point.samples_per_s == pytest.approx(3 * point.requests_per_s)
    assert {one.size for one in point.server.batches} == {3}


def test_a_rate(server, repository):
    record = load(f"http://{server.http}", "prompt", repository, concurrency=(), rate=(40.0,), duration_s=1.5)
    [point] = record.points
    assert point.latency_from == "scheduled"
    assert point.sent == point.answered
    assert 30 <= point.sent <= 90  # 60, and as Poisson has it


@pytest.mark.measures
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_both_tools_say_the_same_in_the_same_record(server, repository, perf_analyzer, scheme):
    """Throughput and latency within a factor of 3: the delay of the queue decides both, and a busy machine does the rest."""
    url = f"{scheme}://{getattr(server, scheme)}"
    records = [load(url, "delayed", repository, tool=tool) for tool in ("asyncio", "perf-analyzer")]
    assert [record.tool for record in records] == ["asyncio", "perf-analyzer"]
    ours, theirs = (record.points[0] for record in records)
    assert ours.model_fields_set == theirs.model_fields_set
    assert 1 / 3 < ours.samples_per_s / theirs.samples_per_s < 3
    assert 1 / 3 < ours.p50_ms / theirs.p50_ms < 3
    assert 1 / 3 < ours.server.mean_batch / theirs.server.mean_batch < 3
    for point in (ours, theirs):
        assert point.sent == point.answered > 5
        assert point.mean_ms >= DELAY_US / 1000


def test_advice_from_the_real_server(server, repository):
    """Whatever it says on this machine, it rests on the figures that are in the records, and what it prints can be pasted."""
    url = f"http://{server.http}"
    plain = load(url, "plain", repository, concurrency=(1, 8))
    batched = load(url, "prompt", repository, concurrency=(1, 8), duration_s=2.0)
    found = with_advice(batched, plain).advice
    assert found is not None
    executions = [one.executions for record in (plain, batched) for p in record.points for one in p.server.batches]
    assert sum(one.executions for one in found.curve) <= sum(executions)
    assert found.curve[0].size == 1
    assert found.reasons[0].startswith("an execution takes ")
    assert found.pays == (found.max_queue_delay_us is not None) == ("max_queue_delay_us" in found.recipe)


def test_torchserve(onnx, tmp_path):
    need(importlib.util.find_spec("ts"), "torchserve is not installed")
    need(shutil.which("java"), "TorchServe needs Java")
    store = tmp_path / "store"
    settings = TorchServeServing(batch_size=4, max_batch_delay_ms=5)
    package_torchserve(onnx, store, settings, name="digits", independence=PROVEN)
    specs = (TensorSpec.parse("image:float32[batch,2,3]"),)
    with serving(store, limit_s=120) as running:
        target = parse_target(f"{running.inference_url}/predictions/digits")
        levels = LoadSettings(concurrency=(1, 4), warmup_s=0.5, duration_s=1.0, limit_s=60)
        keyed = Source(inputs=specs, headers=running._authorization("inference"))
        record = load_test(target, levels, keyed)
        with pytest.raises(Exception, match="the first request: status 400: Token Authorization failed"):
            load_test(target, levels, Source(inputs=specs))
    assert record.failures == ()
    jsonschema.validate(json.loads(record.to_json()), LoadRecord.json_schema())
    assert (record.server, record.tool, record.batching) == ("torchserve", "asyncio", None)
    assert record.tool_reason in ("perf_analyzer supports Triton only", "perf_analyzer is not installed")
    assert all(point.answered > 0 and point.server is None for point in record.points)
    assert with_advice(record).advice is None
