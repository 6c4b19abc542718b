"""Generated clients against the real TorchServe: imported, and run as programs."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from optkit.data import Samples
from optkit.data.preprocessing import ImagePreprocessing
from optkit.runners import open_runner
from optkit.serving import TorchServeServing, package_torchserve
from optkit.serving.torchserve.server import serving
from tests.support import project
from tests.support.needs import need
from tests.support.program import program
from tests.support.served import PROVEN


@pytest.fixture(scope="module")
def served(zoo, onnx, torchscript, two, sample, tmp_path_factory):
    need(importlib.util.find_spec("ts"), "torchserve is not installed")
    need(shutil.which("java"), "TorchServe needs Java")
    store = tmp_path_factory.mktemp("store") / "models"
    names = ("zero", "one", "two")

    def package(artifact, name, **fields):
        feed = Samples(artifact.inputs, artifact.dims).at({dim: r.opt for dim, r in artifact.dims.items()})
        return package_torchserve(
            artifact, store, TorchServeServing(**fields), name=name, independence=PROVEN, sample=feed
        )

    package(onnx, "graph")
    package(zoo.torchscript(two), "two")
    pictures = zoo.torchscript(zoo.source("pictures", ["image:float32[batch,3,4,4]"], batch="1:2:8"))
    package(pictures, "pictures", image=ImagePreprocessing(resize=4, crop=4), class_names=names)
    with serving(store, limit_s=120) as server:
        yield server, store.with_name("models_clients")


@pytest.fixture
def key_file(served):
    return served[0]._keys


def test_a_json_archive_answers_as_its_artifact(served, key_file, load, onnx, sample):
    package = load(served[1] / "graph")
    token = json.loads(key_file.read_text())["inference"]["key"]
    with open_runner(onnx) as runner:
        expected = runner.infer(sample)["output"]
    with package.Graph(served[0].inference_url, token=token) as client:
        for row, answer in zip(sample["image"], expected, strict=True):
            np.testing.assert_allclose(client.infer(row)["output"], answer, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(client.infer(row.tolist())["output"], answer, rtol=1e-4, atol=1e-5)


def test_an_image_archive_takes_the_bytes_of_a_file(served, key_file, load):
    package = load(served[1] / "pictures")
    token = json.loads(key_file.read_text())["inference"]["key"]
    with package.Pictures(served[0].inference_url, token=token) as client:
        answer = client.infer((served[1] / "pictures" / "sample.png").read_bytes())
        assert {entry["class"] for entry in answer["classes"]} == {"zero", "one", "two"}
        with pytest.raises(package.ServerError, match=r"refused with status 400: (?s:.*)cannot be read as an image"):
            client.infer(b"no image")


@pytest.mark.parametrize("name", ["graph", "two", "pictures"])
def test_as_a_program_each_prints_the_answer_to_its_sample(served, key_file, name):
    found = program(served[1] / name, "--url", served[0].inference_url, "--key-file", str(key_file))
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout)


def test_without_the_key(served):
    found = program(served[1] / "graph", "--url", served[0].inference_url)
    assert (found.returncode, found.stdout) == (2, "")
    assert re.search("graph: refused with status 400: .*Token", found.stderr, re.DOTALL), found.stderr


def test_a_client_needs_nothing_but_the_standard_library(served, key_file):
    """-I -S: no site-packages at all."""
    command = [sys.executable, "-I", "-S", str(served[1] / "two" / "client.py"), "--url", served[0].inference_url]
    found = subprocess.run([*command, "--key-file", str(key_file)], capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stderr) == (0, "")


def test_optkit_ab_compares_what_torchserve_serves(served, key_file, optkit, monkeypatch):
    """A model and its version by name are one; the request is the sample of its client."""
    url = f"{served[0].inference_url}/predictions/graph"
    sample = str(served[1] / "graph" / "sample.json")
    options = ("--data", sample, "--time-limit-s", "2", "--same-answers", "--json")
    refused = optkit("ab", url, f"{url}/1.0", *options)
    assert (refused.code, refused.out) == (2, "")
    assert "refused with status 400" in refused.err
    monkeypatch.setenv("OPTKIT_TOKEN", json.loads(key_file.read_text())["inference"]["key"])
    found = optkit("ab", url, f"{url}/1.0", *options)
    assert found.code == 0, found.err
    record = json.loads(found.out)
    assert [output["failure"] for output in record["answers"]] == [None]
    assert record["speed_up"]["blocks"] >= 1


@pytest.fixture
def optkit(monkeypatch, capsys):
    yield from project.command_line(monkeypatch, capsys)
