"""The clients that packaging writes: their code, their folder, what they refuse before they send, and servers that do not answer."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.data import Samples
from optkit.data.preprocessing import ImagePreprocessing
from optkit.errors import OutputError
from optkit.serving import TorchServeServing, TritonServing, make_golden, package_torchserve, package_triton
from optkit.serving.clients import triton_template as template
from optkit.serving.clients.folder import client_folder, write_client
from optkit.serving.clients.generate import identifier, parameters, quoted
from optkit.serving.torchserve.generated_client import write_torchserve_client
from optkit.serving.triton.contract import TritonContract
from optkit.serving.triton.generated_client import write_triton_client
from tests.support import ROOT
from tests.support.hostile import within

PROVEN = BatchIndependence(dim="batch")
DIGITS = ("image:float32[batch,1,8,8]",), ("logits:float32[batch,10]",), {"batch": DimRange(min=1, opt=8, max=64)}
TEXT = (
    ("ids:int64[batch,seq]", "mask:bool[batch,seq]"),
    ("embedding:float32[batch,4]",),
    {"batch": DimRange(min=1, opt=2, max=8), "seq": DimRange(min=4, opt=8, max=32, multiple_of=4)},
)


def specs(texts):
    return tuple(TensorSpec.parse(text) for text in texts)


def triton_client(folder, described=DIGITS, name="digits", largest=64, sample=None):
    inputs, outputs, dims = described
    contract = TritonContract(specs(inputs), specs(outputs), largest, (), ())
    written, left = write_triton_client(folder / "models", name, contract, dims, sample)
    assert left is None
    return written


def handler(**fields):
    plain = {
        "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 1, 8, 8]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}],
        "dims": {"batch": [1, 64]}, "batch": "batch", "max_batch": 1, "classes": None, "engine": None, "image": None,
    }  # fmt: skip
    return {**plain, **fields}


TEXT_HANDLER = handler(
    inputs=[
        {"name": "ids", "dtype": "int64", "shape": ["batch", "seq"]},
        {"name": "mask", "dtype": "bool", "shape": ["batch", "seq"]},
    ],
    dims={"batch": [1, 8], "seq": [4, 32]},
)


def torchserve_client(folder, contract, name="digits", sample=None):
    written, left = write_torchserve_client(folder / "store", name, contract, sample)
    assert left is None
    return written


@pytest.mark.parametrize("target", ["triton", "torchserve"])
def test_the_modules_of_optkit_are_the_clients_of_digits_themselves(tmp_path, target):
    """So what ruff and mypy read of optkit is what users get, up to the model."""
    written = triton_client(tmp_path) if target == "triton" else torchserve_client(tmp_path, handler())
    assert (written / "client.py").read_text() == (ROOT / f"optkit/serving/clients/{target}_template.py").read_text()


def every_kind(folder):
    image = handler(
        image=ImagePreprocessing(resize=8, crop=8, mode="L").model_dump(mode="json"), classes={"output": "logits"}
    )
    odd = (
        (
            TensorSpec(name='a "b" \\ c', dtype="int64", shape=("batch",)),
            TensorSpec(name="class", dtype="bool", shape=("batch", 2)),
        ),
        (TensorSpec(name="x.y/é", dtype="float16", shape=("batch",)),),
        DIGITS[2],
    )
    contract = TritonContract(odd[0], odd[1], 0, (), ())
    write_triton_client(folder / "odd", "3-tensor.models", contract, odd[2], None)
    return [
        triton_client(folder, TEXT, "text", 8),
        triton_client(folder, name="tensor"),
        client_folder(folder / "odd", "3-tensor.models"),
        torchserve_client(folder, TEXT_HANDLER, "text"),
        torchserve_client(folder, image, "picture"),
        torchserve_client(folder, None, "own"),
    ]


def test_every_client_satisfies_ruff_and_mypy(tmp_path):
    for number, written in enumerate(every_kind(tmp_path)):
        package = shutil.copytree(written, tmp_path / "checked" / f"c{number}")
        found = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", package],
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stdout
    settings = ["--strict", "--ignore-missing-imports", "--cache-dir", tmp_path / "cache"]
    found = subprocess.run(
        [sys.executable, "-m", "mypy", *settings, *(tmp_path / "checked").iterdir()],
        cwd=tmp_path / "checked",
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_client_is_importable_and_has_its_own_method(tmp_path, load):
    text, tensor, odd, json_text, picture, own = (load(written) for written in every_kind(tmp_path))
    assert text.Text.infer.__annotations__ == {"ids": np.ndarray, "mask": np.ndarray, "return": dict[str, np.ndarray]}
    assert tensor.TensorModel.name == "tensor"  # Tensor is taken
    assert list(odd.Model3TensorModels.infer.__annotations__) == ["a__b____c", "class_", "return"]
    assert json_text.Text.outputs == ("logits",)
    assert picture.Picture.outputs == ("classes",)
    assert own.Own.outputs == ()
    assert text.Router.__name__ == picture.Router.__name__ == "Router"


def test_names_of_python():
    assert [identifier(name) for name in ("image", "input-ids", "3d", "class", "self", "x.y")] == [
        "image",
        "input_ids",
        "_3d",
        "class_",
        "self_",
        "x_y",
    ]
    assert parameters(["a-b", "a_b", "a.b"]) == {"a-b": "a_b", "a_b": "a_b_2", "a.b": "a_b_3"}
    for text in ("plain", 'a "b"', "it's", "both ' and \"", "back\\slash", "new\nline", "é✓😀"):
        assert eval(quoted(text)) == text


def test_a_client_is_the_same_byte_for_byte(tmp_path, onnx, sample):
    def contents(folder):
        golden = make_golden(onnx, Samples(onnx.inputs, onnx.dims))
        done = package_triton(
            onnx, folder / "models", TritonServing(), name="digits", independence=PROVEN, sample=sample, golden=golden
        )
        image = package_torchserve(
            onnx, folder / "store", TorchServeServing(), name="digits", independence=PROVEN, sample=sample
        )
        return {
            f"{d.target}/{file.name}": file.read_bytes() for d in (done, image) for file in sorted(d.client.iterdir())
        }

    first = contents(tmp_path / "a")
    time.sleep(2.1)  # a zip holds times in steps of 2 s
    assert first == contents(tmp_path / "b")
    assert set(first) == {
        f"{target}/{name}"
        for target, own in (("triton", "sample.npz"), ("torchserve", "sample.json"))
        for name in ("__init__.py", "client.py", "router.py", "optkit.json", own)
    }


def test_clients_lie_beside_the_repository_where_no_server_looks(tmp_path, onnx, sample):
    done = package_triton(
        onnx, tmp_path / "models", TritonServing(), name="my-model", independence=PROVEN, sample=sample
    )
    assert done.client == tmp_path / "models_clients" / "my_model"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["my-model"]
    assert (done.client / "client.py").is_file()


def test_no_client_where_none_is_wished(tmp_path, onnx, sample):
    done = package_triton(
        onnx, tmp_path / "models", TritonServing(client=False), name="m", independence=PROVEN, sample=sample
    )
    assert done.client is None
    assert package_torchserve(onnx, tmp_path / "store", TorchServeServing(client=False), name="m").client is None
    assert not list(tmp_path.glob("*_clients"))


def test_where_no_client_can_be_written_nothing_is(tmp_path, onnx, sample):
    (tmp_path / "models_clients").write_text("a file")
    with pytest.raises(OutputError, match=r"the client cannot be written .* use --no-client"):
        package_triton(onnx, tmp_path / "models", TritonServing(), name="m", independence=PROVEN, sample=sample)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["client.py", "router.py", "sample.npz", "__init__.py"])
def test_a_file_that_was_edited_is_never_overwritten(tmp_path, name):
    feed = {"image": np.zeros((1, 1, 8, 8), np.float32)}
    written = triton_client(tmp_path, sample=feed)
    (written / name).write_text("mine")
    before = {file.name: file.read_bytes() for file in written.iterdir()}
    contract = TritonContract(specs(DIGITS[0]), specs(DIGITS[1]), 32, (), ())
    folder, left = write_triton_client(tmp_path / "models", "digits", contract, DIGITS[2], feed)
    assert folder == written
    assert left.startswith(f"no client was written: {name} in {written} was edited")
    assert {file.name: file.read_bytes() for file in written.iterdir()} == before


def test_an_untouched_client_follows_its_model_and_what_is_beside_it_stays(tmp_path):
    written = triton_client(tmp_path, sample={"image": np.zeros((1, 1, 8, 8), np.float32)})
    (written / "notes.txt").write_text("mine")
    triton_client(tmp_path, TEXT, "digits", 8)
    assert "ids" in (written / "client.py").read_text()
    assert not (written / "sample.npz").exists()  # of the old inputs
    assert (written / "notes.txt").read_text() == "mine"


def test_files_that_optkit_did_not_write_are_left(tmp_path):
    folder = client_folder(tmp_path / "models", "digits")
    folder.mkdir(parents=True)
    (folder / "client.py").write_text("mine")
    contract = TritonContract(specs(DIGITS[0]), specs(DIGITS[1]), 32, (), ())
    assert write_triton_client(tmp_path / "models", "digits", contract, DIGITS[2], None)[0] is None
    assert [file.name for file in folder.iterdir()] == ["client.py"]
    (folder / "optkit.json").write_text("{}")  # a record that cannot be read vouches for nothing
    assert "client.py in " in write_client(folder, "digits", {"client.py": b"new"})


@pytest.mark.parametrize("name", ["../victim", "/victim", "up/victim", "link", "fifo", "x" * 300, "a\0b"])
def test_a_record_that_names_a_file_outside_has_nothing_deleted(tmp_path, name):
    """What optkit wrote and no longer writes is deleted by the record's names, where its hash is the record's."""
    written = triton_client(tmp_path)
    victim = written.parent / "victim"
    victim.write_text("mine")
    (written / "up").symlink_to("..")
    (written / "link").symlink_to("../victim")
    os.mkfifo(written / "fifo")
    record = json.loads((written / "optkit.json").read_text())
    record["files"][f"{victim}" if name == "/victim" else name] = hashlib.sha256(b"mine").hexdigest()
    (written / "optkit.json").write_text(json.dumps(record))
    before = sorted(written.iterdir())
    contract = TritonContract(specs(TEXT[0]), specs(TEXT[1]), 8, (), ())
    with within():
        write_triton_client(tmp_path / "models", "digits", contract, TEXT[2], None)
    assert victim.read_text() == "mine"
    assert sorted(written.iterdir()) == before


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_file_of_optkits_is_left(tmp_path, kind):
    written = triton_client(tmp_path)
    code = written / "client.py"
    (written.parent / "mine.py").write_bytes(code.read_bytes())
    code.unlink()
    if kind == "link":
        code.symlink_to("../mine.py")
    elif kind == "fifo":
        os.mkfifo(code)
    else:
        code.mkdir()
    before = code.lstat()
    with within():
        left = write_client(written, "digits", {"client.py": b"new"})
    assert left.startswith(f"no client was written: client.py in {written} was edited or is not from optkit")
    assert code.lstat() == before


def test_two_models_whose_names_are_one_in_python(tmp_path):
    triton_client(tmp_path, name="a-b")
    contract = TritonContract(specs(DIGITS[0]), specs(DIGITS[1]), 32, (), ())
    folder, left = write_triton_client(tmp_path / "models", "a.b", contract, DIGITS[2], None)
    assert folder is None
    assert left == f"no client was written: {tmp_path / 'models_clients/a_b'} holds the client of the model 'a-b'"


class TestTriton:
    """What a Triton client refuses before it sends; nobody listens at the address."""

    @pytest.mark.parametrize(
        ("array", "says"),
        [
            (
                np.zeros((1, 1, 8, 8)),
                "input 'image': got float64[1,1,8,8]; expected float32[batch,1,8,8]. Convert it with .astype('float32').",
            ),
            (np.zeros((1, 8, 8), np.float32), "got float32[1,8,8]; expected float32[batch,1,8,8]"),
            (np.zeros((1, 1, 8, 9), np.float32), "got float32[1,1,8,9]; expected float32[batch,1,8,8]"),
            (
                np.zeros((65, 1, 8, 8), np.float32),
                "got float32[65,1,8,8]; expected float32[batch,1,8,8] with batch from 1 to 64",
            ),
            (
                np.zeros((0, 1, 8, 8), np.float32),
                "got float32[0,1,8,8]; expected float32[batch,1,8,8] with batch from 1 to 64",
            ),
            ([[0.0]], "got a list; expected a numpy array float32[batch,1,8,8]"),
        ],
    )
    def test_an_array_that_does_not_fit(self, tmp_path, load, nobody, array, says):
        package = load(triton_client(tmp_path))
        for url in (f"http://{nobody}", f"grpc://{nobody}"):
            with package.Digits(url) as client, pytest.raises(package.InputError) as refused:
                client.infer(array)
            assert says in str(refused.value)

    def test_several_inputs(self, tmp_path, load, nobody):
        package = load(triton_client(tmp_path, TEXT, "text", 8))
        client = package.Text(f"grpc://{nobody}")

        def says(ids, mask):
            with pytest.raises(package.InputError) as refused:
                client.check({"ids": np.zeros(ids, np.int64), "mask": np.zeros(mask, bool)})
            return str(refused.value)

        client.check({"ids": np.zeros((2, 8), np.int64), "mask": np.zeros((2, 8), bool)})
        assert "with seq from 4 to 32, multiples of 4" in says((2, 6), (2, 6))
        assert "with the same seq in every input, but another input has 8" in says((2, 8), (2, 12))
        with pytest.raises(package.InputError, match="got inputs ids; text expects ids, mask"):
            client.check({"ids": np.zeros((2, 8), np.int64)})
        assert {name: array.shape for name, array in client.example().items()} == {"ids": (1, 4), "mask": (1, 4)}

    @pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://", "https://h:1", "http://h:1/v2"])
    def test_a_url_of_another_form(self, url):
        with pytest.raises(ValueError, match="expected http://host:port or grpc://host:port"):
            template.Digits(url)

    @pytest.mark.parametrize("scheme", ["http", "grpc"])
    @pytest.mark.parametrize("server", ["dead", "hangs", "garbage"])
    def test_no_answer(self, scheme, server, nobody, speaks):
        address = {"dead": lambda: nobody, "hangs": lambda: speaks(None), "garbage": lambda: speaks(b"what?\r\n\r\n")}[
            server
        ]()
        client = template.Digits(f"{scheme}://{address}", limit_s=1)
        began = time.monotonic()
        with client, pytest.raises(template.ServerError, match="digits: no answer within 1 s: "):
            client.infer(np.zeros((1, 1, 8, 8), np.float32))
        assert time.monotonic() - began < 10

    @pytest.mark.parametrize(
        "answer",
        [
            b"{}",
            b'{"outputs": []}',
            b"[]",
            b'{"outputs":[{"name":"logits","datatype":"INT32","shape":[1,10],"data":[1,1,1,1,1,1,1,1,1,1]}]}',
        ],
        ids=["empty", "no output", "a list", "another type"],
    )
    def test_an_answer_that_is_not_the_models(self, answer, speaks):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
        client = template.Digits(f"http://{speaks(head + answer)}", limit_s=2)
        with client, pytest.raises(template.ServerError):
            client.infer(np.zeros((1, 1, 8, 8), np.float32))

    def test_as_a_program_it_tells_why_it_failed(self, tmp_path, nobody):
        written = triton_client(tmp_path)
        found = run(written, "--url", f"http://{nobody}", "--limit-s", "1")
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr.startswith(f"error: http://{nobody}: digits: no answer within 1 s: ")
        np.savez(tmp_path / "wrong.npz", image=np.zeros((1, 1, 8, 8)))
        found = run(written, "--url", f"http://{nobody}", str(tmp_path / "wrong.npz"))
        assert (found.returncode, "Convert it with .astype('float32')" in found.stderr) == (2, True)


def run(folder, *arguments):
    """Run a client as a user does, in another folder and without optkit's."""
    command = [sys.executable, "-W", "error::ResourceWarning", str(folder / "client.py"), *arguments]
    return subprocess.run(command, cwd=folder.parent.parent, capture_output=True, text=True, timeout=120)


class TestTorchServe:
    """What a TorchServe client refuses before it sends, and what it makes of answers."""

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            ([[1.0]], "input 'image': got shape [1,1]; expected one sample, float32[1,8,8]"),
            (np.zeros((2, 8, 8)), "got shape [2,8,8]; expected one sample, float32[1,8,8]"),
            (np.zeros((1, 1, 8, 8)), "got shape [1,1,8,8]; expected one sample"),
            ([[[0.0] * 8] * 7 + [[0.0] * 7]], "the nested lists have unequal lengths"),
            (np.full((1, 8, 8), np.nan), "contains nan, which is not float32"),
            ([[["a"] * 8] * 8], "contains 'a', which is not float32"),
            (5.0, "got shape []; expected one sample"),
        ],
    )
    def test_a_value_that_does_not_fit(self, tmp_path, load, nobody, value, says):
        package = load(torchserve_client(tmp_path, handler()))
        with package.Digits(f"http://{nobody}") as client, pytest.raises(package.InputError) as refused:
            client.infer(value)
        assert says in str(refused.value)

    def test_several_inputs(self, tmp_path, load, nobody):
        package = load(torchserve_client(tmp_path, TEXT_HANDLER, "text"))
        client = package.Text(f"http://{nobody}")
        assert json.loads(client.body({"ids": np.arange(4), "mask": [True] * 4})) == {
            "ids": [0, 1, 2, 3],
            "mask": [True] * 4,
        }
        for feed, says in (
            (
                {"ids": [1, 2, 3], "mask": [True] * 3},
                "got shape [3]; expected one sample, int64[seq] with seq from 4 to 32",
            ),
            ({"ids": [1] * 4, "mask": [True] * 5}, "with the same seq in every input"),
            ({"ids": [1.5] * 4, "mask": [True] * 4}, "contains 1.5, which is not int64"),
            ({"ids": [2**63] * 4, "mask": [True] * 4}, "which is not int64"),
            ({"ids": [True] * 4, "mask": [True] * 4}, "contains True, which is not int64"),
            ({"ids": [1] * 4, "mask": [1] * 4}, "contains 1, which is not bool"),
            ({"ids": [1] * 4}, "got inputs ids; text expects ids, mask"),
        ):
            with pytest.raises(package.InputError) as refused:
                client.body(feed)
            assert says in str(refused.value)

    @pytest.mark.parametrize("server", ["dead", "hangs", "garbage"])
    def test_no_answer(self, tmp_path, load, server, nobody, speaks):
        address = {"dead": lambda: nobody, "hangs": lambda: speaks(None), "garbage": lambda: speaks(b"what?\r\n\r\n")}[
            server
        ]()
        package = load(torchserve_client(tmp_path, handler()))
        began = time.monotonic()
        with (
            package.Digits(f"http://{address}", limit_s=1) as client,
            pytest.raises(package.ServerError, match="no answer within 1 s: "),
        ):
            client.infer(np.zeros((1, 8, 8)))
        assert time.monotonic() - began < 10

    @pytest.mark.parametrize(
        ("status", "body", "says"),
        [
            ("200 OK", b"<html>", "the answer is b'<html>'; expected JSON"),
            ("200 OK", b"[1]", "answered a list; expected logits"),
            ("200 OK", b'{"other": 1}', "answered other; expected logits"),
            ("503 Service Unavailable", b"worker died", "refused with status 503: worker died"),
        ],
    )
    def test_an_answer_that_is_not_the_models(self, tmp_path, load, speaks, status, body, says):
        package = load(torchserve_client(tmp_path, handler()))
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with (
            package.Digits(f"http://{speaks(head + body)}", limit_s=5) as client,
            pytest.raises(package.ServerError) as refused,
        ):
            client.infer(np.zeros((1, 8, 8)))
        assert says in str(refused.value)

    def test_a_connection_that_the_server_closed_meanwhile_is_made_anew(self, tmp_path, load, speaks):
        package = load(torchserve_client(tmp_path, handler()))
        body = b'{"logits": [1]}'
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )  # and then it closes, without having said so
        with package.Digits(f"http://{speaks(head + body)}", limit_s=5) as client:
            for _ in range(3):
                assert client.infer(np.zeros((1, 8, 8))) == {"logits": [1]}
                time.sleep(0.05)

    def test_the_picture_that_an_image_client_is_tried_with(self, tmp_path):
        image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
        contract = handler(image=ImagePreprocessing(mode="L").model_dump(mode="json"))
        written = torchserve_client(tmp_path, contract)
        with image.open(written / "sample.png") as picture:
            assert (picture.size, picture.mode) == ((8, 8), "L")
            assert np.array_equal(np.asarray(picture)[0], np.arange(8))

    def test_the_key_file(self, tmp_path, nobody):
        written = torchserve_client(tmp_path, handler())
        (tmp_path / "key_file.json").write_text('{"other": 1}')
        found = run(written, "--url", f"http://{nobody}", "--key-file", str(tmp_path / "key_file.json"))
        assert (found.returncode, "is not a TorchServe key file" in found.stderr) == (2, True)
