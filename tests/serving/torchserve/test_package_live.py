"""The archives on the real TorchServe, over HTTP."""

import base64
import importlib.util
import io
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from optkit.api.smoke import smoke
from optkit.artifact.findings import BatchIndependence
from optkit.data import Samples
from optkit.data.preprocessing import ImagePreprocessing
from optkit.errors import RecipeError, RunnerError
from optkit.runners import open_runner
from optkit.serving import TorchServeServing, package_torchserve
from optkit.serving.torchserve.golden import archive_golden, golden_files
from optkit.serving.torchserve.server import serving
from optkit.system.child import ChildProcess
from tests.support.needs import need
from tests.support.project import command_line

PROVEN = BatchIndependence(dim="batch")
NAMES = ("zero", "one", "two")
OWN = """
from ts.torch_handler.base_handler import BaseHandler

class Mine(BaseHandler):
    def preprocess(self, data):
        import torch
        return torch.tensor([row["body"]["values"] for row in data]).reshape(len(data), 2, 3)

    def postprocess(self, outputs):
        return [{"best": int(row.argmax()), "together": len(outputs)} for row in outputs]
"""


def package(artifact, store, name, **fields):
    settings = TorchServeServing(**fields)
    golden = archive_golden(artifact, Samples(artifact.inputs, artifact.dims), settings.image)
    return package_torchserve(
        artifact,
        store,
        settings,
        name=name,
        independence=PROVEN,
        golden=None if settings.handler else golden,
    )


@pytest.fixture(scope="module")
def store(zoo, onnx, torchscript, int8, two, tmp_path_factory):
    need(importlib.util.find_spec("ts"), "torchserve is not installed")
    need(shutil.which("java"), "TorchServe needs Java")
    store = tmp_path_factory.mktemp("store")
    package(torchscript, store, "script", class_names=NAMES)
    package(onnx, store, "graph", batch_size=4, max_batch_delay_ms=2000)
    package(zoo.torchscript(two), store, "two")
    package(int8, store, "small", batch_size=2, max_batch_delay_ms=100)
    pictures = zoo.torchscript(zoo.source("pictures", ["image:float32[batch,3,4,4]"], batch="1:2:8"))
    package(pictures, store, "pictures", image=ImagePreprocessing(resize=4, crop=4), class_names=NAMES)
    own = tmp_path_factory.mktemp("own") / "mine.py"
    own.write_text(OWN)
    package(torchscript, store, "own", handler=str(own), batch_size=4, max_batch_delay_ms=1000)
    config = store / "config.properties"  # models can be registered only where the owner of the server allows it
    config.write_text(config.read_text().replace("enable_model_api=false", "enable_model_api=true"))
    return store


@pytest.fixture(scope="module")
def server(store):
    with serving(store, limit_s=120) as running:
        yield running


def ask(server, model, value):
    return server.predict(model, json.dumps(value).encode())


def test_torchscript_answers_as_the_model_does_with_class_names(server, torchscript, sample):
    image = sample["image"][0]
    answer = ask(server, "script", image.tolist())
    assert answer.status == 200
    with open_runner(torchscript) as runner:
        logits = runner.infer({"image": image[None]})[torchscript.outputs[0].name][0]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    found = {entry["class"]: entry["probability"] for entry in answer.json()["classes"]}
    assert list(found) == [NAMES[i] for i in np.argsort(-logits)]
    np.testing.assert_allclose([found[name] for name in NAMES], probabilities, rtol=1e-5)


def test_requests_at_once_are_put_together_and_each_gets_its_own_answer(server, onnx):
    """The delay is long, and four requests end it at once: they come back before it, and so have met in one batch."""
    images = np.random.default_rng(0).random((4, 2, 3), np.float32)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda image: ask(server, "graph", {"image": image.tolist()}), images))
    assert [answer.status for answer in answers] == [200] * 4
    with open_runner(onnx) as runner:
        expected = runner.infer({"image": images})[onnx.outputs[0].name]
    np.testing.assert_allclose([answer.json()[onnx.outputs[0].name] for answer in answers], expected, rtol=1e-5)


def test_int8_torchscript_answers_as_the_artifact_itself(server, int8, torchscript):
    """What `optkit quantize-torch` writes, with its INT8 kernels in the server's worker."""
    images = np.random.default_rng(3).random((5, 2, 3), np.float32)
    answers = [ask(server, "small", {"image": image.tolist()}) for image in images]
    assert [answer.status for answer in answers] == [200] * 5
    with open_runner(int8) as runner, open_runner(torchscript) as float_runner:
        expected = runner.infer({"image": images})["output"]
        exact = float_runner.infer({"image": images})["output"]
    served = np.array([answer.json()["output"] for answer in answers], np.float32)
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(served, exact, rtol=1e-5, atol=1e-6), "the answers are those of the float model"


def test_several_inputs_and_outputs(server):
    answer = ask(server, "two", {"ids": [1, 2, 3], "mask": True})
    assert list(answer.json().values()) == [[1.0, 2.0, 3.0], 2.0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "is not JSON"),
        (b"[[1, 2]]", "got shape [1, 2]; expected float32[2,3]"),
        (b'{"x": 1}', "got inputs x; expected image"),
        (b'[["a", "b", "c"], [1, 2, 3]]', "values that are not float32"),
    ],
)
def test_a_bad_request_gets_400_and_a_reason(server, body, reason):
    answer = server.predict("script", body, content_type="text/plain")
    assert answer.status == 400
    assert reason in answer.json()["error"]


@pytest.fixture(scope="module")
def picture():
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return pixels, content.getvalue()


@pytest.mark.parametrize("form", ["bytes", "base64", "json", "data url"])
def test_an_image_in_every_form(server, picture, form):
    pixels, content = picture
    text = base64.b64encode(content)
    body, kind = {
        "bytes": (content, "image/png"),
        "base64": (text, "text/plain"),
        "json": (json.dumps({"image": text.decode()}).encode(), "application/json"),
        "data url": (b"data:image/png;base64," + text, "text/plain"),
    }[form]
    answer = server.predict("pictures", body, content_type=kind)
    assert answer.status == 200, answer.text
    means = pixels.reshape(-1, 3).mean(0) / 255  # what the model gives: the mean of each channel
    assert [entry["class"] for entry in answer.json()["classes"]] == [NAMES[i] for i in np.argsort(-means)]


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"no image", "image/png", "cannot be read as an image"),
        (b"%%%", "text/plain", "not base64"),
        (b'{"photo": ""}', "application/json", "got inputs photo; expected image"),
        (b"[1, 2]", "application/json", "got a list; expected an image as base64 or as bytes"),
    ],
)
def test_what_is_no_image_gets_400(server, body, kind, reason):
    answer = server.predict("pictures", body, content_type=kind)
    assert answer.status == 400
    assert reason in answer.json()["error"]


def test_a_handler_of_the_users_own(server, torchscript, sample):
    image = sample["image"][1]
    answer = ask(server, "own", {"values": image.tolist()})
    with open_runner(torchscript) as runner:
        logits = runner.infer({"image": image[None]})[torchscript.outputs[0].name][0]
    assert answer.json() == {"best": int(logits.argmax()), "together": 1}


def test_the_server_forms_batches_as_model_config_says(server):
    """The handler says how many requests it got at once: more than one, and never more than the batch size."""
    body = {"values": np.zeros((2, 3)).tolist()}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(server, "own", body).json(), range(24)))
    together = [answer["together"] for answer in answers]
    assert 1 < max(together) <= 4


def test_describe_scale_unregister_and_register(server):
    [described] = server.manage("GET", "/models/graph").json()
    assert (described["batchSize"], described["maxBatchDelay"], described["minWorkers"]) == (4, 2000, 1)
    assert server.manage("PUT", "/models/two?min_worker=2&max_worker=2&synchronous=true").status == 200
    server.wait_for("two", workers=2)
    assert server.manage("DELETE", "/models/two").status == 200
    assert ask(server, "two", {"ids": [1], "mask": True}).status == 404
    assert server.manage("POST", "/models?url=two.mar&initial_workers=1&synchronous=true").status == 200
    assert ask(server, "two", {"ids": [1], "mask": True}).status == 200


def test_a_request_without_the_key_is_refused(server):
    keyless = type(server)(server.inference_url, server.management_url, server._keys / "none", server._process)
    assert ask(keyless, "script", [[1, 2, 3], [4, 5, 6]]).status == 400
    assert keyless.manage("GET", "/models").status == 400


def test_golden_samples_of_every_kind_pass(server, store):
    record = smoke(store, urls=[server.inference_url], token=server.token, limit_s=60)
    assert record.passed, [replay.fault for replay in record.replays]
    assert [replay.model for replay in record.replays] == ["graph", "pictures", "script", "small", "two"]
    assert record.notes == ("own.mar: not tested: no golden samples",)


def test_golden_samples_of_another_model_fail(server, store, tmp_path):
    """The same archives, and golden answers that are not theirs: both kinds of handlers are found out."""
    for name, output in (("graph", "output"), ("pictures", None)):
        shutil.copy(store / f"{name}.mar", tmp_path)
        described, arrays = golden_files(store / f"{name}.mar")
        shutil.copy(described, tmp_path)
        golden = dict(np.load(arrays))
        output = output or next(key.removeprefix("output/") for key in golden if key.startswith("output/"))
        golden[f"output/{output}"] = golden[f"output/{output}"][:, ::-1]
        np.savez(tmp_path / arrays.name, **golden)
    record = smoke(tmp_path, urls=[server.inference_url], token=server.token, limit_s=60)
    assert [(replay.model, replay.fault is None) for replay in record.replays] == [
        ("graph", False),
        ("pictures", False),
    ]


def test_smoke_without_the_key_says_where_it_is(server, store):
    with pytest.raises(RecipeError, match=r"requires a key; expected the inference key from key_file\.json"):
        smoke(store / "graph.mar", urls=[server.inference_url], limit_s=60)


def test_smoke_starts_a_server_for_one_archive_and_ends_it(store, monkeypatch, capsys):
    started = []
    original = ChildProcess.__init__

    def remember(self, *arguments, **named):
        original(self, *arguments, **named)
        started.append(self.group)

    monkeypatch.setattr(ChildProcess, "__init__", remember)
    for cli in command_line(monkeypatch, capsys):
        done = cli("smoke", store / "small.mar", "--start", "--limit-s", 120)
    assert done.code == 0, done
    assert done.out.endswith("1 tested, 0 failed\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(started[0], 0)


def test_a_model_that_cannot_start_ends_the_server_within_the_limit(torchscript, tmp_path):
    need(importlib.util.find_spec("ts"), "torchserve is not installed")
    need(shutil.which("java"), "TorchServe needs Java")
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no such thing')\n")
    package(torchscript, tmp_path / "store", "broken", handler=str(broken))
    with (
        pytest.raises(RunnerError, match=r"no worker of 'broken' was ready within 8 s"),
        serving(tmp_path / "store", 8),
    ):
        pass


def test_a_folder_without_configuration_is_refused(tmp_path):
    need(importlib.util.find_spec("ts"), "torchserve is not installed")
    need(shutil.which("java"), "TorchServe needs Java")
    with pytest.raises(RunnerError, match=r"config\.properties: no such file"), serving(tmp_path):
        pass
