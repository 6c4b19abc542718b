"""Two variants compared: with answers and times by the script, and with servers that are dead, hang, or answer garbage."""

import contextlib
import json
import time
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, ClassVar

import jsonschema
import numpy as np
import pytest

from optkit.api import ab
from optkit.api.ab import AbRecord, Gates, compare_variants, difference
from optkit.artifact.findings import Stopped, Tolerance, Verdict
from optkit.benchmark import BenchSettings
from optkit.benchmark.timing import Block
from optkit.errors import FeedError, RecipeError, RunnerError
from optkit.serving.endpoints import Answer, Body, Endpoint, TorchServeEndpoint, TritonEndpoint, _answer, parse_endpoint
from optkit.serving.golden import Golden, write_golden
from optkit.serving.triton.connection import TensorMetadata

NEAR = Tolerance(atol=1e-3)
STEADY = repeat(1.0)
NO_GATES = Gates()
ONE = {"x": np.ones((2, 3), np.float32)}


@dataclass(frozen=True)
class Scripted(Endpoint):
    """Answers by the script; its times come from the clock that the test puts in the place of the timing loop."""

    kind: ClassVar[str] = "scripted"
    answers: tuple[Any, ...] = (1.0,)
    feeds: list[Any] = field(default_factory=lambda: [ONE])

    @contextlib.contextmanager
    def session(self, limit_s):
        answers = iter(self.answers)

        def prepare(request):
            found = next(answers, self.answers[-1])
            answer = found if isinstance(found, Answer) else Answer({"y": np.array([found])})
            ask = lambda: answer  # noqa: E731 - carries who asks
            ask.url = self.url  # type: ignore[attr-defined]
            return ask

        yield prepare

    def requests(self, data, seed, limit_s):
        return self.feeds, "script"


@pytest.fixture
def compare(monkeypatch):
    """Return compare(times of a, times of b, ...): blocks with those medians."""

    def comparing(a=STEADY, b=STEADY, *, gates=NO_GATES, answers=((1.0,), (1.0,)), feeds=None, **settings):
        times = {"a": iter(a), "b": iter(b)}

        def time_block(ask, _):
            found = next(times[ask.url])
            if not isinstance(found, float):
                raise found
            return Block(np.full(20, found), dropped_calls=1)

        monkeypatch.setattr(ab, "time_block", time_block)
        variants = [
            Scripted(name, "s", "m", "", answers=given, feeds=feeds or [ONE])
            for name, given in zip("ab", answers, strict=True)
        ]
        usual = {"min_blocks": 10, "max_blocks": 10}
        asked = BenchSettings(**(usual | settings))
        return compare_variants(*variants, asked, data=None, tolerance=NEAR, gates=gates, limit_s=1)

    return comparing


def noisy(seed, sd, ms=1.0):
    random = np.random.default_rng(seed)
    while True:
        yield float(ms * np.exp(random.normal(0, sd)))


@pytest.mark.parametrize(
    ("b", "verdict"),
    [
        (noisy(2, 0.01, 1.5), Verdict.SLOWER),
        (noisy(2, 0.01, 0.7), Verdict.FASTER),
        (noisy(3, 0.001), Verdict.NO_DIFFERENCE),
        (noisy(4, 0.5), Verdict.TOO_NOISY),
    ],
)
def test_the_verdict_is_the_benchs(compare, b, verdict):
    found = compare(noisy(1, 0.001), b)
    assert found.speed_up.verdict is verdict
    assert (found.speed_up.reference, found.speed_up.candidate, found.speed_up.batch) == ("a", "b", 2)
    assert (found.failures, found.warnings) == ((), ())  # nothing without a gate
    assert {tuple(sorted(row)) for row in found.order} == {("a", "b")}
    assert len(set(found.order)) == 2  # in random order
    assert (found.a.latencies.calls, found.a.latencies.p90_ms is None, found.a.latencies.dropped_calls) == (
        200,
        False,
        10,
    )


def test_the_ratio_is_of_the_medians_of_one_block(compare):
    """Both become slower together, as on a machine that others use too, and the ratio stays."""
    drift = [1.0, 2.0, 4.0, 8.0, 16.0]
    found = compare(drift, [2 * ms for ms in drift], min_blocks=5, max_blocks=5)
    assert found.speed_up.ratio == pytest.approx(0.5)
    assert found.speed_up.high == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("b", "failures", "warnings"),
    [
        (noisy(2, 0.01, 1.2), 1, 0),
        (noisy(2, 0.01, 1.02), 0, 0),
        (noisy(2, 0.6, 1.3), 0, 1),
    ],
    ids=["beyond", "within", "too noisy"],
)
def test_the_gate(compare, b, failures, warnings):
    found = compare(noisy(1, 0.001), b, gates=Gates(max_regression=0.05))
    assert (len(found.failures), len(found.warnings)) == (failures, warnings)
    for text in (*found.failures, *found.warnings):
        assert text.startswith("latency of b: worse by +")
        assert "at most 5.0% is allowed" in text


def test_answers_that_differ_are_told_and_fail_only_where_that_is_asked(compare):
    differing = ((1.0,), (2.0,))
    found = compare(answers=differing)
    assert difference(found.answers).startswith("output 'y': 1 of 1 elements are outside atol 0.001")
    assert found.failures == ()
    assert compare(answers=differing, gates=Gates(same_answers=True)).failures[0].startswith("outputs of b: output 'y'")
    assert difference(compare(answers=((1.0,), (1.0005,))).answers) is None
    other = Answer({"z": np.zeros(1)})
    assert "'y': the candidate does not have it (and 1 more)" in difference(compare(answers=((1.0,), (other,))).answers)


def test_every_request_is_compared(compare):
    found = compare(answers=((1.0, 2.0, 3.0), (1.0, 2.0, 9.0)), feeds=[ONE] * 3)
    assert [o.failure is None for o in found.answers] == [True, True, False]
    assert found.requests == 3


def test_ctrl_c_keeps_the_blocks_that_are_whole(compare):
    found = compare([1.0, 1.0, KeyboardInterrupt()], repeat(2.0))
    assert found.interrupted
    assert found.speed_up.stopped is Stopped.INTERRUPTED
    assert (found.a.latencies.blocks_p50_ms, found.b.latencies.blocks_p50_ms) == ((1.0, 1.0), (2.0, 2.0))
    with pytest.raises(KeyboardInterrupt):
        compare([KeyboardInterrupt()])


def test_a_server_that_dies_meanwhile_ends_it(compare):
    with pytest.raises(RunnerError, match="gone"):
        compare(b=[1.0, 1.0, RunnerError("gone")])


def test_servers_of_two_kinds_take_different_requests():
    variants = parse_endpoint("http://h:1/models/m"), parse_endpoint("http://h:1/predictions/m")
    with pytest.raises(
        RecipeError, match=r"is on triton and .* on torchserve; expected two endpoints on the same kind of server"
    ):
        compare_variants(*variants, BenchSettings(), data=None, tolerance=NEAR, gates=Gates(), limit_s=1)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:8000/models/m", (TritonEndpoint, "http://h:8000", "m", "")),
        ("http://h:8000/v2/models/m/versions/2", (TritonEndpoint, "http://h:8000", "m", "2")),
        ("grpc://h:8001/models/my-model/versions/10/", (TritonEndpoint, "grpc://h:8001", "my-model", "10")),
        ("http://h:8080/predictions/m", (TorchServeEndpoint, "http://h:8080", "m", "")),
        ("https://h/predictions/m/1.0", (TorchServeEndpoint, "https://h", "m", "1.0")),
    ],
)
def test_urls(url, expected):
    found = parse_endpoint(url, "secret")
    assert (type(found), found.server, found.model, found.version) == expected
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    "url", ["h:8000/models/m", "http://h:8000", "http://h/models/m/versions/x", "grpc://h/predictions/m"]
)
def test_urls_of_another_form(url):
    with pytest.raises(RecipeError, match="expected http://host:port/models/NAME"):
        parse_endpoint(url)


def test_the_json_of_torchserve_is_numbers_and_what_is_none():
    found = _answer(
        {"classes": [{"class": "cat", "probability": 0.75}, {"class": "dog", "probability": 0.25}], "ok": True}
    )
    assert found.numbers["classes"].tolist() == [0.75, 0.25]
    assert found.numbers["ok"].tolist() == []
    assert "cat" in found.rest
    near = _answer(
        {"classes": [{"class": "cat", "probability": 0.7501}, {"probability": 0.2499, "class": "dog"}], "ok": True}
    )
    other = _answer(
        {"classes": [{"class": "dog", "probability": 0.75}, {"class": "cat", "probability": 0.25}], "ok": True}
    )
    assert difference(ab.compare_responses(found, near, NEAR)) is None
    assert "output 'response': differs in more than numbers" in difference(ab.compare_responses(found, other, NEAR))
    assert _answer([[1, 2], [3, 4]]).numbers["answer"].tolist() == [1, 2, 3, 4]


def test_the_bodies_of_torchserve(tmp_path):
    variant = parse_endpoint("http://h:1/predictions/m")
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.png").write_bytes(b"png")
    found, _ = variant.requests(str(tmp_path), 0, 1)
    assert found == [Body(b"[1]", "application/json"), Body(b"png", "image/png")]
    assert variant.requests(str(tmp_path / "a.json"), 0, 1)[0] == found[:1]
    with pytest.raises(FeedError, match=r"TorchServe does not report the inputs of a model. Give --data"):
        variant.requests(None, 0, 1)
    with pytest.raises(FeedError, match="cannot be read"):
        variant.requests(str(tmp_path / "none"), 0, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FeedError, match="holds no file"):
        variant.requests(str(tmp_path / "empty"), 0, 1)


@pytest.fixture
def described(monkeypatch):
    """Let a server say what a model takes."""
    from optkit.serving import endpoints

    def describing(*inputs):
        class Client:
            def __init__(self, *_): ...
            def __enter__(self):
                return self

            def __exit__(self, *_): ...
            def metadata(self, *_):
                return {"inputs": [TensorMetadata(*given) for given in inputs], "outputs": []}

        monkeypatch.setattr(endpoints, "TritonClient", Client)
        return parse_endpoint("grpc://h:1/models/m")

    return describing


def test_what_triton_is_asked(described, tmp_path):
    variant = described(("x", "FP32", [-1, 3]), ("ids", "INT64", [-1, 2]))
    [drawn], origin = variant.requests(None, 1, 1)
    assert ({name: (array.dtype, array.shape) for name, array in drawn.items()}, origin) == (
        {"x": (np.float32, (1, 3)), "ids": (np.int64, (1, 2))}, "seeded random",
    )  # fmt: skip
    feed = {"x": np.ones((4, 3), np.float32), "ids": np.ones((4, 2), np.int64)}
    for i in range(40):
        np.savez(tmp_path / f"{i}.npz", **feed)
    found, origin = variant.requests(str(tmp_path), 0, 1)
    assert (len(found), found[0]["x"].shape, origin) == (32, (4, 3), "real samples")
    write_golden(Golden(feed, {"y": np.ones(4)}, NEAR), tmp_path / "golden.npz")
    [golden], origin = variant.requests(str(tmp_path / "golden.npz"), 0, 1)
    assert (set(golden), origin) == ({"x", "ids"}, "golden sample")
    np.savez(tmp_path / "wrong.npz", x=feed["x"])
    with pytest.raises(FeedError, match="got inputs x; the model takes x, ids"):
        variant.requests(str(tmp_path / "wrong.npz"), 0, 1)


def test_what_triton_cannot_be_asked(described):
    with pytest.raises(
        FeedError, match=r"input 'x' is float32\[x_0,x_1\]; expected fixed sizes for random values. Give --data"
    ):
        described(("x", "FP32", [-1, -1])).requests(None, 0, 1)
    with pytest.raises(FeedError, match="input 's' is BYTES; expected a numeric type"):
        described(("s", "BYTES", [-1, 1])).requests(None, 0, 1)


def test_the_record_is_the_documented_one(compare):
    record = compare()
    document = json.loads(record.to_json())
    schema = AbRecord.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"more": 1}, schema)


URLS = {"http": "http://{}/models/m", "grpc": "grpc://{}/models/m", "torchserve": "http://{}/predictions/m"}


@pytest.mark.parametrize("protocol", URLS)
@pytest.mark.parametrize("server", ["dead", "hangs", "garbage"])
def test_no_answer_within_the_limit_is_an_error(tmp_path, nobody, speaks, protocol, server):
    address = {"dead": lambda: nobody, "hangs": lambda: speaks(None), "garbage": lambda: speaks(b"what?\r\n\r\n")}[
        server
    ]()
    variant = parse_endpoint(URLS[protocol].format(address))
    (tmp_path / "body.json").write_text("[1]")
    data = str(tmp_path / "body.json") if protocol == "torchserve" else None
    began = time.monotonic()
    with pytest.raises(RunnerError, match=address.replace(".", r"\.")):
        compare_variants(variant, variant, BenchSettings(), data=data, tolerance=NEAR, gates=Gates(), limit_s=1)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"inputs": 1, "outputs": 2}', b"<html>"])
def test_metadata_that_is_garbage(speaks, answer):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
    variant = parse_endpoint(f"http://{speaks(head + answer)}/models/m")
    with pytest.raises(RunnerError):
        compare_variants(variant, variant, BenchSettings(), data=None, tolerance=NEAR, gates=Gates(), limit_s=2)
