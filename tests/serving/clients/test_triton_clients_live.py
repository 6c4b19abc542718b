"""Generated clients and their router against the real Triton server: imported, and run as programs."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx as library
import pytest
from onnx import TensorProto, helper

from optkit import onnx_file
from optkit.artifact.tensors import DimRange
from optkit.data import Samples
from optkit.runners import open_runner
from optkit.serving import TritonServing, make_golden, package_triton
from optkit.serving.triton.lint import lint
from optkit.serving.triton.server import TritonServer
from optkit.serving.triton.smoke import smoke_triton
from optkit.untrusted.names import name_text_fault
from tests.support.hostile_texts import QUOTED, UNUSUAL
from tests.support.program import program
from tests.support.served import PROVEN, package_versions, scaled


@pytest.fixture(scope="module")
def served(serve, zoo, onnx, tmp_path_factory):
    """A server with two versions of `model`, whose answers differ by a factor of 2, and a model of two inputs."""
    folder = tmp_path_factory.mktemp("served")
    versions = package_versions({"1": onnx, "2": scaled(onnx, 2.0, folder)}, folder / "models")
    both = zoo.onnx(zoo.source("two", ["ids:int64[batch,seq]", "mask:bool[batch]"], batch="1:2:8", seq="1:5:9"))
    golden = make_golden(both, Samples(both.inputs, both.dims))
    two = package_triton(
        both, folder / "models", TritonServing(), name="two", independence=PROVEN, sample=None, golden=golden
    )
    with serve(folder / "models") as server:
        yield server, folder / "models_clients", versions, two


@pytest.fixture(params=["http", "grpc"])
def url(served, request):
    return f"{request.param}://{getattr(served[0], request.param)}"


def test_each_version_answers_as_its_artifact(served, url, load, sample):
    package = load(served[1] / "model")
    for version, artifact in served[2].items():
        with open_runner(artifact) as runner:
            expected = runner.infer(sample)
        with package.Model(url, version=version) as client:
            answer = client.infer(sample["image"])
        assert list(answer) == list(expected)
        np.testing.assert_allclose(answer["output"], expected["output"], rtol=1e-4, atol=1e-5)


def test_as_a_program_it_prints_the_answer_to_its_sample(served, url):
    folder = served[1] / "two"
    found = program(folder, "--url", url)
    assert (found.returncode, found.stderr) == (0, "")
    with np.load(served[3].path / "golden/1.npz") as golden:
        answers = {name.removeprefix("output/"): golden[name] for name in golden if name.startswith("output/")}
    for name, array in answers.items():
        shape = ",".join(map(str, array.shape))
        assert f"{name}: {array.dtype}[{shape}]\n{array}\n" in found.stdout


def test_a_version_that_is_not_there(served, url, load, sample):
    package = load(served[1] / "model")
    with package.Model(url, version="7") as client, pytest.raises(package.ServerError, match="version"):
        client.infer(sample["image"])
    found = program(served[1] / "model", "--url", url, "--version", "7")
    assert (found.returncode, found.stdout) == (2, "")


def test_wrong_inputs_never_reach_the_server(served, url, load):
    package = load(served[1] / "two")
    with package.Two(url) as client:
        with pytest.raises(package.InputError, match=r"got int32\[2,3\]; expected int64\[batch,seq\]"):
            client.infer(np.zeros((2, 3), np.int32), np.zeros((2, 1), bool))
        with pytest.raises(package.InputError, match="with seq from 1 to 9"):
            client.infer(np.zeros((2, 10), np.int64), np.zeros((2, 1), bool))
        assert client.infer(np.ones((2, 3), np.int64), np.ones((2, 1), bool))  # and the connection still works


def test_the_router_sends_each_key_to_its_version_from_many_threads(served, url, load, sample):
    package = load(served[1] / "model")
    clients = {version: package.Model(url, version=version) for version in ("1", "2")}
    router = package.Router({v: client.infer for v, client in clients.items()}, {"1": 3, "2": 1})
    expected = {}
    for version, artifact in served[2].items():
        with open_runner(artifact) as runner:
            expected[version] = runner.infer(sample)["output"]

    def ask(keys):
        try:
            return [(key, router.infer(key, sample["image"])["output"]) for key in keys]
        finally:
            for client in clients.values():
                client.close()  # the connections of this thread

    keys = [f"user-{i}" for i in range(240)]
    with ThreadPoolExecutor(4) as pool:
        answers = [pair for part in pool.map(ask, [keys[i::4] for i in range(4)]) for pair in part]
    for key, answer in answers:
        np.testing.assert_allclose(answer, expected[router.pick(key)], rtol=1e-4, atol=1e-5)
    stats = router.stats()
    assert sum(s.calls for s in stats.values()) == 240
    assert stats["1"].calls == sum(router.pick(key) == "1" for key in keys)
    assert [s.errors for s in stats.values()] == [0, 0]
    assert stats["1"].p50_ms < stats["1"].p90_ms


def test_the_router_counts_a_version_that_is_not_there(served, url, load, sample):
    package = load(served[1] / "model")
    with package.Model(url, version="1") as good, package.Model(url, version="9") as gone:
        router = package.Router({"1": good.infer, "9": gone.infer}, {"1": 1, "9": 1}, fail_over=True)
        answers = [router.infer(key, sample["image"]) for key in range(20)]
    assert len(answers) == 20
    stats = router.stats()
    assert stats["9"].errors == stats["1"].taken_over > 0


def test_a_model_with_odd_names_is_served(triton, tmp_path, load):
    """Names of exporters and hostile ones, in the file, the configuration, the requests by both protocols and the client."""
    names = [name for name in (*UNUSUAL, *QUOTED) if name_text_fault(name) is None]
    value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in names}
    given = {name: helper.make_tensor_value_info(f"{name} out", TensorProto.FLOAT, ["batch", 2]) for name in names}
    nodes = [helper.make_node("Add", [name, name], [f"{name} out"]) for name in names]
    graph = helper.make_graph(nodes, "odd", list(value.values()), list(given.values()))
    library.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(tmp_path / "odd.onnx")
    )
    odd = onnx_file.describe(tmp_path / "odd.onnx", {"batch": DimRange(min=1, opt=2, max=4)})
    samples = Samples(odd.inputs, odd.dims)
    golden = make_golden(odd, samples)
    repository = tmp_path / "models"
    done = package_triton(
        odd,
        repository,
        TritonServing(),
        name="odd",
        independence=PROVEN,
        sample=samples.at({"batch": 2}),
        golden=golden,
    )
    assert lint(repository).findings == ()
    with TritonServer(triton, repository, limit_s=120) as server:
        for url in (f"http://{server.http}", f"grpc://{server.grpc}"):
            assert smoke_triton(repository, (url,)).passed
            with load(done.client).Odd(url) as client:
                answer = client._infer(client.example())
            assert {name: array.tolist() for name, array in answer.items()} == {
                f"{name} out": (2 * golden.inputs[name]).tolist() for name in names
            }
