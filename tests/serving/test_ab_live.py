"""`optkit ab` against the real Triton server: two versions, one with far more work, and one version against itself."""

import json

import jsonschema
import numpy as np
import pytest

from tests.support import project
from tests.support.served import package_versions, scaled

FAST = ("--time-limit-s", "20", "--limit-s", "60")
CLEAR = (*FAST, "--half-width", "0.2")  # enough to see a version with many times the work


@pytest.fixture
def optkit(monkeypatch, capsys):
    yield from project.command_line(monkeypatch, capsys)


@pytest.fixture(scope="module")
def server(serve, zoo, onnx, tmp_path_factory):
    """Version 1 is small, version 2 is 1 with other weights, version 3 does far more work, version 4 is 1 again."""
    folder = tmp_path_factory.mktemp("served")
    heavy = zoo.onnx(zoo.source("heavy", ["image:float32[batch,2,3]"], batch="1:4:16"))
    versions = {"1": onnx, "2": scaled(onnx, 2.0, folder), "3": heavy, "4": onnx}
    package_versions(versions, folder / "models")
    with serve(folder / "models") as running:
        yield running


def url(server, version, protocol="http"):
    return f"{protocol}://{getattr(server, protocol)}/models/model/versions/{version}"


@pytest.mark.measures
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_version_with_far_more_work_is_slower(server, optkit, protocol):
    pair = url(server, 1, protocol), url(server, 3, protocol)
    found = optkit("ab", *pair, *CLEAR, "--max-regression", "20%", "--json")
    assert found.code == 1, found.err
    record = json.loads(found.out)
    assert record["speed_up"]["verdict"] == "slower"
    assert record["speed_up"]["high"] < 1 / 1.2
    assert record["failures"][0].startswith(f"latency of {pair[1]}: worse by +")
    assert f"failed: latency of {pair[1]}" in found.err.replace("\n", "")
    schema = json.loads(optkit("schema", "ab").out)
    jsonschema.validate(record, schema)
    back = optkit("ab", *reversed(pair), *CLEAR, "--max-regression", "20%", "--json")
    assert (back.code, json.loads(back.out)["speed_up"]["verdict"]) == (0, "faster")


@pytest.mark.measures
def test_a_version_against_itself_is_neither_faster_nor_slower(server, optkit):
    """An interval of 95 % is wrong once in twenty: three times in a row, once in eight thousand."""
    said = []
    for seed in range(3):
        found = optkit("ab", url(server, 1), url(server, 1), "--time-limit-s", "8", "--seed", seed, "--json")
        assert found.code == 0, found.err
        record = json.loads(found.out)
        assert all(output["failure"] is None for output in record["answers"])
        said.append(record["speed_up"]["verdict"])
        if said[-1] in ("no difference", "too noisy to say"):
            return
    pytest.fail(f"says {', '.join(said)} of a version and itself")


def test_http_against_grpc_answers_the_same(server, optkit, tmp_path):
    np.savez(tmp_path / "sample.npz", image=np.random.default_rng(0).standard_normal((3, 2, 3)).astype(np.float32))
    data = ("--data", tmp_path / "sample.npz", "--same-answers")
    found = optkit("ab", url(server, 1), url(server, 4, "grpc"), *data, "--time-limit-s", "1")
    assert found.code == 0, found.err
    assert "outputs for 1 request (real samples): equal within atol" in found.out
    assert "speed-up of b over a" in found.out


def test_versions_that_answer_differently(server, optkit):
    pair = url(server, 1), url(server, 2)
    found = optkit("ab", *pair, "--time-limit-s", "1")
    assert found.code == 0, found.err  # versions may differ, unless they are asked not to
    assert "different: output 'output': " in found.out
    gated = optkit("ab", *pair, "--time-limit-s", "1", "--same-answers")
    assert gated.code == 1
    assert f"failed: outputs of {pair[1]}: output 'output': " in gated.err


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_version_that_is_not_there(server, optkit, protocol):
    found = optkit("ab", url(server, 1, protocol), url(server, 9, protocol), "--time-limit-s", "1")
    assert (found.code, found.out) == (2, "")
    assert "model 'model' version 9" in found.err


def test_inputs_that_the_model_does_not_take(server, optkit, tmp_path):
    np.savez(tmp_path / "wrong.npz", image=np.zeros((3, 2, 3)))
    found = optkit("ab", url(server, 1), url(server, 2), "--data", tmp_path / "wrong.npz")
    assert (found.code, found.out) == (2, "")
    assert "float64" in found.err
