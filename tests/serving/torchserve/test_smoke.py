"""`optkit smoke` for TorchServe archives, against a stand-in that runs the archive's own handler; the real server is in test_torchserve_live."""

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from optkit.api.package import package_files
from optkit.artifact import Passport
from optkit.artifact.findings import BatchIndependence
from optkit.data import Samples, images
from optkit.data.preprocessing import ImagePreprocessing
from optkit.errors import ArtifactError
from optkit.pytorch.forward import torchscript_notices_off
from optkit.serving import TorchServeServing, package_torchserve
from optkit.serving.torchserve import handler as handling
from optkit.serving.torchserve.golden import archive_golden, golden_files
from tests.serving.torchserve.test_handler import Context
from tests.support.hostile import within
from tests.support.project import command_line, files_below

NAMES = ("zero", "one", "two")
KEY = '{"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}'


@pytest.fixture
def cli(monkeypatch, capsys):
    monkeypatch.delenv("OPTKIT_TOKEN", raising=False)
    yield from command_line(monkeypatch, capsys)


def package(artifact, store, name, **fields):
    settings = TorchServeServing(**fields)
    return package_torchserve(
        artifact,
        store,
        settings,
        name=name,
        independence=BatchIndependence(dim="batch"),
        golden=archive_golden(artifact, Samples(artifact.inputs, artifact.dims), settings.image),
    ).path


@dataclasses.dataclass
class StandIn:
    """Answers as the handlers of archives do; `change` is applied to each answer."""

    folder: Path
    token: str | None = None
    change: object = staticmethod(lambda model, answer: answer)
    asked: list = dataclasses.field(default_factory=list)

    def load(self, archive):
        folder = self.folder / archive.stem
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
        model = handling.ModelHandler()
        context = Context(folder)
        with torchscript_notices_off():
            model.initialize(context)
        return model, context

    @contextlib.contextmanager
    def over(self, *archives):
        models = {archive.stem: self.load(archive) for archive in archives}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def reply(self, status, text):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def do_GET(self):
                assert self.path == "/ping"
                self.reply(200, '{"status": "Healthy"}')

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.token and self.headers.get("Authorization") != f"Bearer {outer.token}":
                    return self.reply(400, KEY)
                _, kind, name, version = self.path.split("/")
                assert kind == "predictions"
                if name not in models:
                    return self.reply(404, '{"code": 404, "message": "Model not found"}')
                outer.asked.append((name, version))
                model, context = models[name]
                context.status.clear()
                data = json.loads(body) if self.headers["Content-Type"] == "application/json" else bytearray(body)
                [answer] = model.handle([{"body": data}], context)
                return self.reply(context.status.get(0, 200), json.dumps(outer.change(name, answer)))

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def standin(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optkit_images", images)  # a file of the archive
    return StandIn(tmp_path / "unpacked")


@pytest.fixture(scope="module")
def store(zoo, onnx, torchscript, int8, two, tmp_path_factory):
    """Both kinds of handlers, with and without class names, TorchScript, INT8 TorchScript and ONNX. Do not change it."""
    pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    folder = tmp_path_factory.mktemp("store")
    package(onnx, folder, "graph")
    package(torchscript, folder, "named", class_names=NAMES, version="2.0")
    package(int8, folder, "small", class_names=NAMES)
    package(zoo.torchscript(two), folder, "two")
    pictures = zoo.torchscript(zoo.source("pictures", ["image:float32[batch,3,4,4]"], batch="1:2:8"))
    package(pictures, folder, "pictures", image=ImagePreprocessing(resize=4, crop=4), class_names=NAMES)
    total = zoo.torchscript(zoo.source("total", ["x:float32[n,2]"], n="2:3:4"))
    package(total, folder, "total")
    return folder


def archives(store):
    return sorted(store.glob("*.mar"))


def copied(store, tmp_path):
    import shutil

    return Path(shutil.copytree(store, tmp_path / "copy"))


def test_every_archive_of_a_store_is_asked_and_agrees(cli, standin, store):
    with standin.over(*archives(store)) as url:
        done = cli("smoke", store, "--url", url, "--json")
    record = json.loads(done.out)
    assert (done.code, record["schema"]) == (0, "optkit/smoke/1"), done
    assert [replay["model"] for replay in record["replays"]] == ["graph", "named", "pictures", "small", "total", "two"]
    assert ("named", "2.0") in standin.asked
    assert [standin.asked.count((name, "1.0")) for name in ("graph", "pictures", "total")] == [4, 1, 1]


def test_one_archive_of_a_store(cli, standin, store):
    with standin.over(*archives(store)) as url:
        done = cli("smoke", store / "graph.mar", "--url", f"{url}/")
    assert done.code == 0
    assert done.out.splitlines()[0].startswith(f"ok     graph version 1.0 at {url}: 1 outputs, max abs 0")
    assert done.out.endswith("1 tested, 0 failed\n")


def swapped(answer):
    first, second, *others = answer["classes"]
    return {"classes": [first | {"class": second["class"]}, second | {"class": first["class"]}, *others]}


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [
        ("graph", lambda a: {"output": [v + 0.01 for v in a["output"]]}, "output 'output': 12 of 12 elements are outside"),
        ("graph", lambda a: {"outputs": a["output"]}, "output 'output': the candidate does not have it"),
        ("graph", lambda a: {"output": a["output"][:2]}, "has shape [4, 2]; the reference has [4, 3]"),
        ("graph", lambda a: {"output": "abc"}, "output 'output': a row is not an array of float32"),
        ("graph", lambda a: [1], "the answer is [1]; expected a JSON object of outputs"),
        ("graph", lambda a: {"output": [None, 1, 2]}, "elements are NaN or infinite"),
        ("named", swapped, "output 'probability of each class': 8 of 12 elements are outside"),
        ("named", lambda a: {"classes": a["classes"][::-1]}, "output 'classes in order'"),
        ("named", lambda a: {"classes": a["classes"][:2]}, "the answer holds 2 classes; expected 3"),
        ("named", lambda a: {"classes": [e | {"class": "zero"} for e in a["classes"]]}, "class 'zero' more often than the model"),
        ("named", lambda a: {"classes": [e | {"class": "x"} for e in a["classes"]]}, "class 'x' more often"),
        ("named", lambda a: a["classes"], "expected classes with probabilities"),
        ("pictures", swapped, "output 'probability of each class'"),
        ("small", swapped, "output 'probability of each class'"),
        ("total", lambda a: {name: value + 1 for name, value in a.items()}, "1 of 1 elements are outside"),
    ],
)  # fmt: skip
def test_another_answer_is_a_negative_verdict(cli, standin, store, model, change, said):
    standin.change = lambda name, answer: change(answer)
    with standin.over(store / f"{model}.mar") as url:
        done = cli("smoke", store / f"{model}.mar", "--url", url)
    assert done.code == 1, done
    assert said in done.out, done.out
    assert done.out.endswith("1 tested, 1 failed\n")


def test_classes_that_are_as_likely_may_change_places(cli, standin, torchscript, tmp_path):
    archive = package(torchscript, tmp_path, "same", class_names=NAMES, class_scores="probabilities")
    arrays = golden_files(archive)[1]
    golden = dict(np.load(arrays))
    golden["output/output"] = np.tile(np.array([0.3, 0.30001, 0.4], np.float32), (len(golden["output/output"]), 1))
    np.savez(arrays, **golden)
    answer = [{"class": n, "probability": p} for n, p in (("two", 0.4), ("zero", 0.3), ("one", 0.3))]
    standin.change = lambda *_: {"classes": answer}
    with standin.over(archive) as url:
        assert cli("smoke", archive, "--url", url).code == 0
        answer[1]["probability"] = 0.31
        assert cli("smoke", archive, "--url", url).code == 1


def test_a_model_that_was_exchanged_fails(cli, standin, onnx, store, tmp_path):
    """The archive that the server loaded holds another model than that whose answers were kept."""
    import onnx as library
    from onnx import numpy_helper

    folder = copied(store, tmp_path)
    archive = folder / "graph.mar"
    with zipfile.ZipFile(archive) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    model = library.load_from_string(members["model.onnx"])
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(1.5), tensor.name))
    with zipfile.ZipFile(archive, "w") as changed:
        for name, content in members.items():
            changed.writestr(name, model.SerializeToString() if name == "model.onnx" else content)
    with standin.over(archive) as url:
        done = cli("smoke", archive, "--url", url)
    assert done.code == 1
    assert "elements are outside" in done.out


def test_a_model_that_the_server_has_not(cli, standin, store):
    with standin.over(store / "graph.mar") as url:
        done = cli("smoke", store / "two.mar", "--url", url)
    assert done.code == 1
    assert "got status 404" in done.out
    assert "Model not found" in done.out


def test_the_token_of_the_server(cli, standin, store, monkeypatch):
    standin.token = "secret"
    with standin.over(store / "graph.mar") as url:
        none = cli("smoke", store / "graph.mar", "--url", url)
        other = cli("smoke", store / "graph.mar", "--url", url, "--token", "x")
        assert cli("smoke", store / "graph.mar", "--url", url, "--token", "secret").code == 0
        monkeypatch.setenv("OPTKIT_TOKEN", "secret")
        assert cli("smoke", store / "graph.mar", "--url", url).code == 0
    assert (none.code, other.code) == (2, 2)
    assert "requires a key; expected the inference key from key_file.json" in none.err
    assert "refuses the key in --token; expected the inference key from key_file.json" in other.err


def test_what_was_never_packaged_with_golden_samples(cli, torchscript, tmp_path):
    own = tmp_path / "own.py"
    own.write_text("class Mine: pass\n")
    record = package_files(
        [Passport(artifact=torchscript)],
        tmp_path / "store",
        TorchServeServing(name="own", handler=str(own)),
        None,
        False,
    )
    assert "no golden samples for optkit smoke" in " ".join(record.packages[0].notes)
    done = cli("smoke", tmp_path / "store", "--url", "http://127.0.0.1:1")
    assert done.code == 2
    assert f"{tmp_path}/store: holds no golden samples" in done.err
    done = cli("smoke", tmp_path / "store/gone.mar", "--url", "http://127.0.0.1:1")
    assert (done.code, "gone.mar: no such file; expected a TorchServe archive" in done.err) == (2, True)


def test_an_archive_without_golden_samples_beside_others_is_told(cli, standin, store, tmp_path):
    folder = copied(store, tmp_path)
    golden_files(folder / "two.mar")[0].unlink()
    with standin.over(*archives(folder)) as url:
        done = cli("smoke", folder, "--url", url)
    assert done.code == 0
    assert "two.mar: not tested: no golden samples" in done.out


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda record, arrays: record.write_text("{"), "graph.golden.json: cannot be read as JSON"),
        (lambda record, arrays: record.write_text("{}"), "schema None; this version of optkit reads"),
        (lambda record, arrays: arrays.write_bytes(b"PK"), "graph.golden.npz: cannot be read as .npz"),
        (lambda record, arrays: arrays.unlink(), "graph.golden.npz: cannot be read as .npz"),
        (lambda record, arrays: fifo_for(arrays), "golden.npz: cannot be read as .npz (is a FIFO"),
        (lambda record, arrays: np.savez(arrays), "graph.golden.npz: lacks inputs or outputs"),
    ],
)
def test_damaged_golden_samples(cli, store, tmp_path, damage, said):
    folder = copied(store, tmp_path)
    damage(*golden_files(folder / "graph.mar"))
    with within():
        done = cli("smoke", folder / "graph.mar", "--url", "http://127.0.0.1:1")
    assert (done.code, said in done.err) == (2, True), done.err


def fifo_for(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "url", ["grpc://127.0.0.1:1", "127.0.0.1:8080", "http://x:1/predictions", "http://x:port", "http://"]
)
def test_a_url_of_another_form(cli, store, url):
    done = cli("smoke", store, "--url", url)
    assert (done.code, "expected http://host:port, without a path" in done.err) == (2, True), done.err


def test_a_server_of_something_else(cli, store):
    class Other(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        done = cli("smoke", store, "--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert done.code == 2
    assert "is not TorchServe: /ping returned '[]'" in done.err


def test_packaging_anew_with_an_own_handler_takes_the_old_golden_samples_away(torchscript, tmp_path):
    archive = package(torchscript, tmp_path / "store", "model")
    assert all(file.is_file() for file in golden_files(archive))
    own = tmp_path / "own.py"
    own.write_text("class Mine: pass\n")
    settings = TorchServeServing(handler=str(own))
    package_torchserve(torchscript, tmp_path / "store", settings, name="model", force=True)
    assert files_below(tmp_path / "store") == {"model.mar", "config.properties"}


def test_golden_files_are_the_same_bytes_each_time_and_outside_the_archive(torchscript, onnx, tmp_path):
    found = []
    for folder in ("a", "b"):
        archive = package(torchscript, tmp_path / folder, "model", class_names=NAMES)
        found.append([file.read_bytes() for file in (archive, *golden_files(archive))])
    assert found[0] == found[1]
    with zipfile.ZipFile(tmp_path / "a/model.mar") as opened:
        assert not any("golden" in name for name in opened.namelist())


def test_a_golden_image_of_the_users_own(zoo, tmp_path):
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    from optkit.data import Feeds

    (tmp_path / "photos").mkdir()
    photo = tmp_path / "photos/a.png"
    Image.new("RGB", (9, 7), (255, 0, 51)).save(photo)
    listed = tmp_path / "images.yaml"
    listed.write_text("images: photos\nresize: [4, 4]\n")
    artifact = zoo.torchscript(zoo.source("pictures", ["image:float32[batch,3,4,4]"], batch="1:2:8"))
    samples = Samples(artifact.inputs, artifact.dims, Feeds(str(listed), artifact.inputs))
    golden = archive_golden(artifact, samples, ImagePreprocessing(resize=(4, 4)))
    assert golden.inputs["image"].tobytes() == photo.read_bytes()
    [means] = golden.outputs.values()
    np.testing.assert_allclose(means, [[1, 0, 0.2]], atol=1e-6)
    photo.write_bytes(b"no image")
    with pytest.raises(ArtifactError, match="image: the preprocessing of the golden image failed"):
        archive_golden(artifact, samples, ImagePreprocessing(resize=(4, 4)))


@pytest.mark.parametrize(
    "image",
    [{}, {"resize": 4}, {"crop": 4}, {"resize": (4, 6), "layout": "hwc", "mode": "L"}],
    ids=["as it is", "resized", "cropped", "grey"],
)
def test_the_picture_that_is_drawn_fits_the_model(zoo, image):
    pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    text = "image:float32[batch,4,6,1]" if image.get("mode") else "image:float32[batch,3,4,4]"
    artifact = zoo.torchscript(zoo.source("pictures", [text], batch="1:2:9" if image.get("mode") else "1:2:8"))
    golden = archive_golden(artifact, Samples(artifact.inputs, artifact.dims), ImagePreprocessing(**image))
    assert all(len(array) == 1 and np.ptp(array) > 0 for array in golden.outputs.values())


def test_start_without_java_or_torchserve(cli, store, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = cli("smoke", store, "--start")
    assert done.code == 2
    assert "TorchServe" in done.err


def test_an_answer_that_trickles_is_cut_at_the_limit():
    """Each byte comes within the time-out of the socket, and the whole never does."""
    import socket

    from optkit.errors import RunnerError
    from optkit.serving.server.http import ask

    ended = threading.Event()

    def trickle(listener):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not ended.is_set():
                connection.sendall(b"x")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, args=(listener,))
        thread.start()
        try:
            with pytest.raises(RunnerError, match=r"no response within 0.5 s \(the response was incomplete\)"):
                ask("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/", 0.5)
        finally:
            ended.set()
            thread.join()
