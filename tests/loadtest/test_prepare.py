"""The target, its model, the requests made for it and the first one tried."""

import json

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as messages

from optkit.artifact.tensors import TensorSpec
from optkit.errors import ArtifactError, FeedError, RecipeError, RunnerError
from optkit.loadtest import LoadSettings, Source, load_test, parse_target
from optkit.loadtest.job import run
from optkit.loadtest.payloads import no_outputs, torchserve, triton_grpc, triton_http
from optkit.loadtest.prepare import prepare, probe
from optkit.loadtest.triton_statistics import StatisticsSnapshot
from optkit.loadtest.values import golden_of, specs_of, values_of
from optkit.serving.golden import Golden
from tests.support.load_servers import http_answer, in_thread, triton

SHORT = {"warmup_s": 0.0, "duration_s": 0.2, "limit_s": 5.0}


def settings(**fields):
    return LoadSettings(**({"concurrency": (1,)} | SHORT | fields))


@pytest.mark.parametrize(
    ("url", "model", "expected"),
    [
        ("http://127.0.0.1:8000", "m", ("triton", "http", "127.0.0.1", 8000, "m", "")),
        ("grpc://localhost:8001/", None, ("triton", "grpc", "localhost", 8001, "", "")),
        ("http://[::1]:80", "m", ("triton", "http", "[::1]", 80, "m", "")),
        ("http://h:8080/predictions/digits", None, ("torchserve", "http", "h", 8080, "digits", "")),
        ("http://h:8080/predictions/digits/2.0", None, ("torchserve", "http", "h", 8080, "digits", "2.0")),
    ],
)
def test_targets(url, model, expected):
    target = parse_target(url, model)
    assert (target.server, target.scheme, target.host, target.port, target.model, target.version) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:8000", "is not the URL of a server"),
        ("https://h:1", "is not the URL of a server; expected http://host:port or grpc://host:port for Triton"),
        ("http://h", "is not the URL of a server"),
        ("http://h:99999", "is not the URL of a server"),
        ("http://user@h:80", "is not the URL of a server"),
        ("http://h:80/v2/models", "the path '/v2/models' belongs to neither server"),
        ("grpc://h:80/predictions/m", "belongs to neither server"),
    ],
)
def test_what_is_no_target(url, said):
    with pytest.raises(RecipeError, match=said):
        parse_target(url)
    with pytest.raises(RecipeError, match="already names the model"):
        parse_target("http://h:1/predictions/a", "a")


def test_a_request_by_http_and_one_by_grpc_hold_the_same_tensors():
    feed = {"x": np.arange(4, dtype=np.float32).reshape(2, 2), "flag": np.array([True, False])}
    target = parse_target("http://h:1", "m", "3")
    head, _, body = triton_http(target, feed).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[:2] == ["POST /v2/models/m/versions/3/infer HTTP/1.1", "Host: h:1"]
    fields = dict(line.split(": ") for line in lines[1:])
    assert int(fields["Content-Length"]) == len(body)
    length = int(fields["Inference-Header-Content-Length"])
    described = json.loads(body[:length])
    assert [(one["name"], one["shape"], one["datatype"]) for one in described["inputs"]] == [
        ("x", [2, 2], "FP32"),
        ("flag", [2], "BOOL"),
    ]
    assert body[length:] == feed["x"].tobytes() + b"\x01\x00"
    message = messages.ModelInferRequest.FromString(triton_grpc(target, feed))
    assert (message.model_name, message.model_version) == ("m", "3")
    assert b"".join(message.raw_input_contents) == body[length:]
    assert [list(one.shape) for one in message.inputs] == [[2, 2], [2]]


def test_a_request_for_torchserve_has_the_key():
    target = parse_target("http://h:1/predictions/m")
    made = torchserve(target, b"{}", "image/png", {"Authorization": "Bearer k"})
    assert made == (
        b"POST /predictions/m HTTP/1.1\r\nHost: h:1\r\nContent-Type: image/png\r\nAuthorization: Bearer k\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )


def test_inputs_as_tritons_metadata_has_them():
    described = [
        {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "scale", "datatype": "FP16", "shape": ["-1", "3"]},
    ]
    assert [str(spec) for spec in specs_of(described)] == ["ids:int64[batch,ids_1]", "scale:float16[batch,3]"]
    assert [str(spec) for spec in specs_of([{"name": "x", "datatype": "FP32", "shape": [2, -1]}])] == [
        "x:float32[2,x_1]"
    ]
    with pytest.raises(RecipeError, match="input 'text': has type BYTES"):
        specs_of([{"name": "text", "datatype": "BYTES", "shape": [1]}])


SPECS = (TensorSpec.parse("x:float32[batch,2]"),)


def test_values_are_cut_from_samples_and_say_where_they_come_from(tmp_path):
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    found = values_of(SPECS, 2, golden=Golden({"x": rows}, {}, None))
    assert (found.origin, found.random) == ("golden samples", False)
    assert [feed["x"][:, 0].tolist() for feed in found.feeds] == [[0, 2], [4, 6], [8, 0]]
    np.savez(tmp_path / "a.npz", x=rows[:3])
    np.savez(tmp_path / "b.npz", x=rows[3:])
    real = values_of(SPECS, 1, data=str(tmp_path), golden=Golden({"x": rows}, {}, None))
    assert real.origin == "real samples"
    assert [feed["x"][0, 0] for feed in real.feeds] == [0, 2, 4, 6, 8]
    drawn = values_of(SPECS, 3, seed=1)
    assert (drawn.origin, drawn.random, drawn.feeds[0]["x"].shape) == ("seeded random", True, (3, 2))
    np.testing.assert_array_equal(drawn.feeds[1]["x"], values_of(SPECS, 3, seed=1).feeds[1]["x"])


def test_values_that_cannot_be_made(tmp_path):
    varying = specs_of([{"name": "ids", "datatype": "INT64", "shape": [-1, -1]}])
    with pytest.raises(
        FeedError, match=r"input 'ids': has a dynamic dimension other than the batch.* Give --data or --repository"
    ):
        values_of(varying, 1)
    fixed = (TensorSpec.parse("x:float32[2]"),)
    with pytest.raises(RecipeError, match="--batch 2: the model's inputs have no common batch dimension"):
        values_of(fixed, 2)
    assert len(values_of(fixed, 1, golden=Golden({"x": np.zeros(2, np.float32)}, {}, None)).feeds) == 1
    with pytest.raises(FeedError, match="samples: have inputs y; expected x"):
        values_of(SPECS, 1, golden=Golden({"y": np.zeros((1, 2))}, {}, None))
    with pytest.raises(ArtifactError, match="holds no golden samples of model 'm'"):
        golden_of(tmp_path, "m", "")


def target_of(server, scheme="http", model=None):
    return parse_target(f"{scheme}://127.0.0.1:{server.port}", model)


def test_the_only_model_is_found_and_its_configuration_read():
    with in_thread(triton()) as server:
        target, batching, job = prepare(target_of(server), settings(batch=2), Source())
        run(probe(job))
    assert (target.model, batching.dynamic, batching.max_batch_size, batching.preferred_batch_sizes) == (
        "m",
        True,
        8,
        (8,),
    )
    assert (len(job.payloads), job.server_batches) == (16, True)
    with in_thread(triton(dynamic=False)) as server:
        assert prepare(target_of(server, model="m"), settings(), Source())[1].dynamic is False


@pytest.mark.parametrize(
    ("infer", "said"),
    [
        (
            lambda _n, _good: http_answer(400, b'{"error": "bad input"}'),
            "model 'm': the first request: status 400: bad input",
        ),
        (lambda _n, _good: None, "model 'm': the first request: no response within 5 s"),
        (lambda _n, _good: http_answer(body=b"{}"), "the response holds no outputs; expected the model's outputs"),
        (lambda _n, _good: http_answer(body=b'{"outputs": [{"name": "y"}]}'), "the response holds no outputs"),
        (lambda _n, _good: http_answer(body=b"<html>"), "the first request: the response cannot be read"),
        (lambda _n, _good: b"garbage\r\n\r\n", "the first request: the response is not HTTP"),
    ],
    ids=["refused", "hangs", "no outputs", "empty outputs", "no JSON", "no HTTP"],
)
def test_the_first_request_must_be_answered(infer, said):
    with in_thread(triton(infer)) as server, pytest.raises(RunnerError, match=said):
        load_test(target_of(server), settings(limit_s=limit_of(said)), Source())


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (lambda _p, _n: http_answer(404, b"not here"), r"127.0.0.1:\d+: model 'm': status 404: not here"),
        (
            lambda _p, _n: http_answer(body=b"hello"),
            "no working Triton server: the response to models/m is not JSON",
        ),
        (
            lambda _p, _n: http_answer(body=b"[1]"),
            "no working Triton server: the response to models/m cannot be read",
        ),
        (lambda _p, _n: http_answer(body=b'{"inputs": 3}'), "cannot be read"),
        (lambda _p, _n: b"220 ftp\r\n\r\n", "no working Triton server: the response is not HTTP"),
        (lambda _p, _n: None, "no working Triton server: no response within 0.5 s"),
    ],
    ids=["not found", "no JSON", "a list", "wrong types", "no HTTP", "hangs"],
)
def test_a_server_that_is_no_triton(reply, said):
    with in_thread(reply) as server, pytest.raises(RunnerError, match=said):
        load_test(target_of(server, model="m"), settings(limit_s=limit_of(said)), Source())


def limit_of(said):
    """Short for a server that hangs, which is what is waited for; long for one that answers, on however busy a machine."""
    return 0.5 if "within 0.5 s" in said else 5 if "within 5 s" in said else 30


def test_several_models_need_a_name():
    index = json.dumps([{"name": name, "state": "READY"} for name in "ab"]).encode()
    with (
        in_thread(lambda _p, _n: http_answer(body=index)) as server,
        pytest.raises(RecipeError, match=r"serves a, b; expected exactly one model. Name one with --model"),
    ):
        load_test(target_of(server), settings(), Source())


def test_torchserve_needs_to_be_told_the_inputs():
    target = parse_target("http://127.0.0.1:1/predictions/m")
    with pytest.raises(RecipeError, match=r"TorchServe does not report the inputs of a model. Give --input"):
        prepare(target, settings(), Source())
    with pytest.raises(RecipeError, match="--batch 2: a request to optkit's TorchServe handler holds one sample"):
        prepare(target, settings(batch=2), Source(inputs=SPECS))
    _, batching, job = prepare(target, settings(), Source(inputs=SPECS))
    assert batching is None
    assert json.loads(job.payloads[0].partition(b"\r\n\r\n")[2])["x"] == job.values.feeds[0]["x"][0].tolist()
    with pytest.raises(RecipeError, match="--body: works with TorchServe only"):
        prepare(parse_target("http://127.0.0.1:1"), settings(), Source(body=b"x"))


def test_an_answer_by_grpc_without_a_byte_is_none():
    target = parse_target("grpc://h:1")
    empty = messages.ModelInferResponse(raw_output_contents=[b""])
    assert no_outputs(target, empty.SerializeToString())
    assert no_outputs(target, b"")
    assert not no_outputs(target, messages.ModelInferResponse(raw_output_contents=[b"\0"]).SerializeToString())


def stats(inferences, executions, sizes, queue_ns=0):
    """As HTTP gives them; by gRPC numbers are texts."""
    part = {"count": inferences, "ns": 0}
    return {
        "inference_count": inferences,
        "execution_count": str(executions),
        "inference_stats": {"success": part, "queue": {"count": inferences, "ns": queue_ns}, "compute_infer": part},
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": {"count": n, "ns": n * 1000},
                "compute_infer": {"count": str(n), "ns": n * ns},
            }
            for size, (n, ns) in sizes.items()
        ],
    }


def test_what_the_server_formed_between_two_looks():
    before = StatisticsSnapshot.of([stats(10, 5, {1: (4, 1_000_000), 4: (2, 3_000_000)}, queue_ns=5_000_000)])
    after = StatisticsSnapshot.of(
        [stats(110, 35, {1: (4, 1_000_000), 2: (10, 2_000_000), 4: (22, 3_000_000)}, queue_ns=55_000_000)]
    )
    found = after.since(before, includes_warmup=False)
    assert (found.inferences, found.executions, found.mean_batch) == (100, 30, pytest.approx(100 / 30))
    assert [(one.size, one.executions) for one in found.batches] == [(2, 10), (4, 20)]
    assert [one.execution_ms for one in found.batches] == [pytest.approx(2.001), pytest.approx(3.001)]
    assert found.queue_ms == pytest.approx(0.5)
    assert before.since(before, includes_warmup=True) is None
    both = StatisticsSnapshot.of([stats(1, 1, {1: (1, 5)}), stats(2, 2, {1: (1, 7), 2: (1, 9)})])  # two versions
    assert (both.inferences, both.batches) == (3, {1: (2, 2012), 2: (1, 1009)})
