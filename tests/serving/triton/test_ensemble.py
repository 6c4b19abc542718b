"""The graph of a pipeline: what its maps come to, what is refused, and running it without a server."""

from pathlib import Path

import numpy as np
import pytest

from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.data import Samples
from optkit.errors import FeedError, OutputError, RunnerError, StageError
from optkit.serving.golden import Golden
from optkit.serving.triton.ensemble.config import package_ensemble
from optkit.serving.triton.ensemble.local import LocalEnsemble, prove_ensemble
from optkit.serving.triton.ensemble.package import EnsemblePart, EnsembleSettings, Node, connect
from optkit.serving.triton.lint import lint

DIMS = {"batch": DimRange(min=1, opt=4, max=16)}
PROVEN = BatchIndependence(dim="batch")
CODE = """
from pathlib import Path

import numpy as np

def double(feed):
    return {"input": feed["raw"] * np.float32(2)}

def total(feed):
    return {"sum": feed["output"].sum(axis=1)}

def reference(feed):
    weight = ((np.arange(12).reshape(3, 4) - 5) / 4).astype(np.float32)
    scores = 2 * feed["raw"] @ weight.T + np.array([1, -2, 3], np.float32)
    return {"output": scores, "sum": scores.sum(axis=1)}

def wrong(feed):
    found = reference(feed)
    return found | {"sum": found["sum"] + 1}

def raises(feed):
    raise ValueError("no such pixel")

def lists(feed):
    return [1, 2]

def float64(feed):
    return {"input": feed["raw"].astype(np.float64)}
"""


def specs(*texts):
    return tuple(TensorSpec.parse(text) for text in texts)


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "steps.py"
    path.write_text(CODE)
    return str(path)


@pytest.fixture
def nodes(onnx_linear, code):
    """raw -> double -> linear -> total; in another order than they run in."""
    return [
        Node("total", specs("output:float32[batch,3]"), specs("sum:float32[batch]"), {"output": "output"}, {"sum": "sum"}, function=f"{code}:total"),
        Node("linear", onnx_linear.inputs, onnx_linear.outputs, {"input": "doubled"}, {"output": "output"}, artifact=onnx_linear, independence=PROVEN),
        Node("double", specs("raw:float32[batch,4]"), specs("input:float32[batch,4]"), {"raw": "raw"}, {"input": "doubled"}, function=f"{code}:double"),
    ]  # fmt: skip


RAW = specs("raw:float32[batch,4]")


def ensemble(nodes, outputs=("output", "sum"), inputs=RAW):
    return connect("pipeline", inputs, outputs, nodes, DIMS)


def test_nodes_run_in_the_order_of_their_tensors(nodes):
    assert [node.name for node in ensemble(nodes).nodes] == ["double", "linear", "total"]


def test_it_gives_what_the_source_codes_pipeline_gives(nodes, code):
    with LocalEnsemble(ensemble(nodes)) as local:
        feed = {"raw": np.arange(12, dtype=np.float32).reshape(3, 4)}
        answer = local.infer(feed)
        assert {name: array.shape for name, array in answer.items()} == {"output": (3, 3), "sum": (3,)}
        samples = Samples(RAW, DIMS)
        assert prove_ensemble(local, f"{code}:reference", samples).passed
        refuted = prove_ensemble(local, f"{code}:wrong", samples)
        assert not refuted.passed
        assert "output 'sum'" in refuted.failure
        with pytest.raises(FeedError, match="raw"):
            local.infer({"raw": np.zeros((3, 4))})


def changed(node, **fields):
    return Node(**{**{key: getattr(node, key) for key in node.__dataclass_fields__}, **fields})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, li, d: [t, li, changed(d, gives={})], "'doubled' has no producer; expected one of raw, sum, output"),
        (lambda t, li, d: [t, li, changed(d, gives={"input": "raw"})], "double: produces 'raw', which has a producer already"),
        (lambda t, li, d: [changed(t, gives={"sum": "other"}), li, d], "'sum' has no producer.*'other' has no consumer"),
        (lambda t, li, d: [changed(t, takes={"outputs": "output"}), li, d], "total: takes names 'outputs'; expected one of output"),
        (lambda t, li, d: [t, changed(li, gives={"out": "output"}), d], "linear: gives names 'out'; expected one of output"),
        (lambda t, li, d: [t, li, changed(d, name="linear")], "two parts have the name 'linear'"),
        (
            lambda t, li, d: [t, li, changed(d, outputs=specs("input:float64[batch,4]"))],
            r"linear: 'doubled' is float64\[batch,4\]; expected input:float32\[batch,4\]",
        ),
        (
            lambda t, li, d: [t, li, changed(d, outputs=specs("input:float32[batch,5]"))],
            r"linear: 'doubled' is float32\[batch,5\]; expected input:float32\[batch,4\]",
        ),
        (
            lambda t, li, d: [t, li, changed(d, inputs=specs("raw:float32[batch,4]", "x:float32[batch]"), takes={"raw": "raw", "x": "sum"})],
            "total, linear, double: form a cycle",
        ),
    ],
)  # fmt: skip
def test_a_graph_that_does_not_hold_together_is_refused(nodes, change, message):
    with pytest.raises(StageError, match=f"ensemble 'pipeline': .*{message}"):
        ensemble(change(*nodes))


def test_an_input_that_nobody_takes_is_refused(nodes):
    with pytest.raises(StageError, match="'spare' has no consumer"):
        ensemble(nodes, inputs=(*RAW, *specs("spare:float32[batch]")))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", r"part 'double' \(.*steps.py:raises\): raised .*ValueError: no such pixel"),
        ("lists", r"part 'double' .*: returned a list; expected a mapping of output name to array"),
        ("float64", r"part 'double' .*: output 'input' is float64\[2,4\]; expected float32\[batch,4\]"),
    ],
)
def test_a_function_that_gives_something_else_is_named(nodes, code, function, message):
    broken = [*nodes[:2], changed(nodes[2], function=f"{code}:{function}")]
    with LocalEnsemble(ensemble(broken)) as local, pytest.raises(RunnerError, match=message):
        local.infer({"raw": np.zeros((2, 4), np.float32)})


def settings(**fields):
    part = EnsemblePart(name="p", artifact="fastest")
    return EnsembleSettings(
        name="pipeline",
        inputs={"raw": "float32[batch,4]"},
        outputs=("sum",),
        parts=(part,),
        reference="x.py:f",
        **fields,
    )


def golden(local):
    feed = {"raw": np.arange(12, dtype=np.float32).reshape(3, 4)}
    from optkit.checks import TOLERANCES

    return Golden(feed, local.infer(feed), TOLERANCES["fp32"])


def test_it_is_packaged_with_its_parts_and_lint_finds_nothing(nodes, tmp_path):
    graph = ensemble(nodes)
    with LocalEnsemble(graph) as local:
        answers = golden(local)
    done = package_ensemble(graph, settings(), tmp_path / "models", answers, force=False)
    assert {p.name for p in (tmp_path / "models").iterdir()} == {
        "pipeline", "pipeline_double", "pipeline_linear", "pipeline_total"
    }  # fmt: skip
    assert "its parts are pipeline_double, pipeline_linear, pipeline_total" in done.notes
    assert lint(tmp_path / "models").findings == ()
    package_ensemble(graph, settings(version=2), tmp_path / "models", answers, force=False)
    assert (tmp_path / "models/pipeline/2/.keep").is_file()
    assert (tmp_path / "models/pipeline_total/1/model.py").is_file()
    assert lint(tmp_path / "models").findings == ()


def test_a_part_that_mixes_its_batch_keeps_the_whole_from_batching(nodes, tmp_path):
    mixing = changed(nodes[1], independence=BatchIndependence(dim="batch", failure="output 'y' differs"))
    graph = ensemble([nodes[0], mixing, nodes[2]])
    with LocalEnsemble(graph) as local:
        answers = golden(local)
    done = package_ensemble(graph, settings(), tmp_path, answers, force=False)
    assert "no batching: 'linear' does not support batching: output 'y' differs" in done.notes
    for name in ("pipeline", "pipeline_double", "pipeline_linear", "pipeline_total"):
        assert "max_batch_size: 0" in (tmp_path / name / "config.pbtxt").read_text()
    assert lint(tmp_path).findings == ()
    with pytest.raises(StageError, match="max_batch_size is set, but 'linear' does not support batching"):
        package_ensemble(graph, settings(max_batch_size=4), tmp_path / "x", answers, force=False)


@pytest.mark.parametrize("batched", [True, False])
def test_the_real_server_answers_as_the_source_code(serve, nodes, code, tmp_path, batched):
    """Source code, local executor and server agree, with and without batches, on other values than the golden ones."""
    from optkit import user_code
    from optkit.serving.triton.connection import TritonClient
    from optkit.serving.triton.smoke import smoke_triton

    if not batched:
        nodes[1] = changed(nodes[1], independence=BatchIndependence(dim="batch", failure="mixes"))
    graph = ensemble(nodes)
    feed = {"raw": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    with LocalEnsemble(graph) as local:
        package_ensemble(graph, settings(), tmp_path / "models", golden(local), force=False)
        here = local.infer(feed)
    source = user_code.load(f"{code}:reference")(feed)
    with serve(tmp_path / "models") as server:
        for url in (f"http://{server.http}", f"grpc://{server.grpc}"):
            with TritonClient(url) as client:
                served = client.infer("pipeline", "", feed, ["output", "sum"])
            for name in ("output", "sum"):
                np.testing.assert_allclose(served[name].reshape(source[name].shape), source[name], rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(here[name], source[name], rtol=1e-4, atol=1e-5)
        assert smoke_triton(tmp_path / "models", (f"grpc://{server.grpc}",)).passed


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_generated_client_of_an_ensemble(serve, nodes, code, tmp_path, load, protocol):
    from optkit import user_code

    graph = ensemble(nodes)
    with LocalEnsemble(graph) as local:
        done = package_ensemble(graph, settings(), tmp_path / "models", golden(local), force=False)
    assert [folder.name for folder in done.client.parent.iterdir()] == ["pipeline"]  # none of its parts
    feed = {"raw": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    source = user_code.load(f"{code}:reference")(feed)
    with (
        serve(tmp_path / "models") as server,
        load(done.client).Pipeline(f"{protocol}://{getattr(server, protocol)}") as client,
    ):
        served = client.infer(feed["raw"])
        assert set(client.infer(**client.example())) == {"output", "sum"}
    for name, expected in source.items():
        np.testing.assert_allclose(served[name].reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_a_python_model_answers_a_request_that_fails_with_the_error(serve, nodes, code, tmp_path):
    from optkit.serving.triton.connection import TritonClient

    graph = ensemble(nodes)
    with LocalEnsemble(graph) as local:
        answers = golden(local)
    broken = ensemble([nodes[0], nodes[1], changed(nodes[2], function=f"{code}:raises")])
    package_ensemble(broken, settings(), tmp_path / "models", answers, force=False)
    with serve(tmp_path / "models") as server, TritonClient(f"http://{server.http}") as client:
        for _ in range(2):  # the model lives on
            with pytest.raises(RunnerError, match="raises: ValueError: no such pixel"):
                client.infer("pipeline_double", "", {"raw": np.zeros((1, 4), np.float32)}, ["input"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "p: got none of artifact, module and function; expected exactly one"),
        ({"artifact": "a", "function": "f.py:f"}, "p: got artifact and function of artifact, module and function"),
        ({"module": "f.py:f"}, "p: a part of kind module needs inputs"),
        ({"function": "f.py:f", "inputs": {"x": "float32[batch]"}}, "p: a part of kind function needs inputs and outputs"),
        ({"artifact": "a", "inputs": {"x": "float32[batch]"}}, "p: a part of kind artifact needs neither inputs nor outputs"),
        ({"module": "f.py:f", "inputs": ["x"]}, "expected pairs of name: dtype"),
    ],
)  # fmt: skip
def test_parts_that_say_too_little_or_too_much_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EnsemblePart(name="p", **fields)


def listing(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("last", [1, 3], ids=["the second move fails", "the last move fails"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "a new version"])
def test_a_write_that_fails_midway_leaves_nothing_of_it(nodes, tmp_path, monkeypatch, last, before):
    graph = ensemble(nodes)
    with LocalEnsemble(graph) as local:
        answers = golden(local)
    models = tmp_path / "models"
    models.mkdir()
    if before:
        package_ensemble(graph, settings(), models, answers, force=False)
    whole = listing(models)
    moved = []
    rename = Path.rename

    def failing(self, target):
        if ".replaced" not in str(target) and ".staged.optkit-" in str(self) and ".replaced" not in str(self):
            moved.append(target)
            if len(moved) == last + 1:
                raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match=r"models: cannot be written .No space left on device"):
        package_ensemble(graph, settings(version=2), models, answers, force=False)
    assert len(moved) > last
    assert listing(models) == whole
    assert [path for path in models.iterdir() if path.name.startswith(".")] == []


def test_a_part_that_is_there_already_keeps_the_others_from_being_written(nodes, tmp_path):
    graph = ensemble(nodes)
    with LocalEnsemble(graph) as local:
        answers = golden(local)
    (tmp_path / "pipeline_total/1").mkdir(parents=True)
    with pytest.raises(OutputError, match="pipeline_total/1: exists already"):
        package_ensemble(graph, settings(), tmp_path, answers, force=False)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("pipeline")] == ["pipeline_total"]
