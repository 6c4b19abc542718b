"""The generated handler, from the unpacked archive, with a context such as TorchServe gives."""

import importlib.util
import inspect
import json
import zipfile

import numpy as np
import pytest
import torch

from optkit.artifact.findings import BatchIndependence
from optkit.data import images
from optkit.pytorch.forward import torchscript_notices_off
from optkit.runners import open_runner
from optkit.serving import TorchServeServing, package_torchserve


class Context:
    """What the handler uses of ts.context.Context."""

    def __init__(self, folder, gpu=None):
        self.manifest = json.loads((folder / "MAR-INF/MANIFEST.json").read_text())
        self.system_properties = {"model_dir": str(folder), "gpu_id": gpu, "batch_size": 1}
        self.status = {}

    def set_response_status(self, code=200, phrase="", idx=0):
        self.status[idx] = code

    def set_response_content_type(self, idx, value):
        assert value == "application/json"


class Served:
    """An archive, unpacked, with its handler loaded from the file inside."""

    def __init__(self, artifact, folder, **fields):
        proof = BatchIndependence(dim="batch")
        settings = TorchServeServing(**fields)
        done = package_torchserve(artifact, folder / "store", settings, name="m", independence=proof)
        unpacked = folder / "unpacked"
        with zipfile.ZipFile(done.path) as archive:
            archive.extractall(unpacked)
        self.context = Context(unpacked)
        spec = importlib.util.spec_from_file_location("optkit_handler", unpacked / "optkit_handler.py")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.handler = self.module.ModelHandler()
        with torchscript_notices_off():
            self.handler.initialize(self.context)

    def __call__(self, *bodies):
        self.context.status.clear()
        answers = self.handler.handle([{"body": body} for body in bodies], self.context)
        return json.loads(json.dumps(answers, allow_nan=False))

    def refusal(self, body):
        [answer] = self(body)
        assert self.context.status == {0: 400}
        assert answer["code"] == 400
        return answer["error"]


@pytest.fixture(scope="session")
def served(onnx, tmp_path_factory):
    return Served(onnx, tmp_path_factory.mktemp("served"), batch_size=4)


@pytest.fixture(scope="session")
def served_two(zoo, two, tmp_path_factory):
    return Served(zoo.torchscript(two), tmp_path_factory.mktemp("served_two"), batch_size=4)


def test_torchserve_finds_one_class_and_no_function_called_handle(served):
    own = [c for _, c in inspect.getmembers(served.module, inspect.isclass) if c.__module__ == served.module.__name__]
    assert own == [served.module.ModelHandler]
    assert not hasattr(served.module, "handle")


def test_what_is_archived_needs_nothing_of_optkit(served):
    """`optkit_images` lies in the archive, and imports nothing of optkit either."""

    def imported(module):
        lines = inspect.getsource(module).splitlines()
        return {line.split()[1].partition(".")[0] for line in lines if line.split()[:1] in (["import"], ["from"])}

    assert "optkit" not in imported(served.module) | imported(images)


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "int8"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_answers_are_those_of_the_artifact(kind, batch_size, sample, request, tmp_path):
    artifact = request.getfixturevalue(kind)
    served = Served(artifact, tmp_path, batch_size=batch_size)
    answers = served(*({"image": image.tolist()} for image in sample["image"]))
    with open_runner(artifact) as runner:
        expected = runner.infer(sample)["output"]
    np.testing.assert_allclose([a["output"] for a in answers], expected, rtol=1e-6)
    assert served.context.status == {}


def test_int8_torchscript_runs_on_its_engine_and_on_the_cpu_whatever_gpu_is_given(int8, sample, tmp_path):
    assert int8.torch_engine
    served = Served(int8, tmp_path)
    before = torch.backends.quantized.engine
    other = next(e for e in torch.backends.quantized.supported_engines if e not in (int8.torch_engine, "none"))
    torch.backends.quantized.engine = other
    try:
        served.context.system_properties["gpu_id"] = 0
        with torchscript_notices_off():
            served.handler.initialize(served.context)
        assert torch.backends.quantized.engine == int8.torch_engine
        [answer] = served(sample["image"][0].tolist())
    finally:
        torch.backends.quantized.engine = before
    with open_runner(int8) as runner:
        np.testing.assert_array_equal(answer["output"], runner.infer(sample)["output"][0])


def test_external_data_is_found(external, sample, tmp_path):
    served = Served(external, tmp_path)
    with open_runner(external) as runner:
        expected = runner.infer(sample)["output"][0]
    np.testing.assert_allclose(served(sample["image"][0].tolist())[0]["output"], expected, rtol=1e-6)


def test_a_batch_is_one_forward_of_at_most_its_size(served, sample):
    calls = []
    run = served.handler.run

    def counted(feed):
        calls.append(feed["image"].shape)
        return run(feed)

    served.handler.run = counted
    try:
        served(*[sample["image"][0].tolist()] * 6)
    finally:
        served.handler.run = run
    assert calls == [(4, 2, 3), (2, 2, 3)]


def test_requests_of_other_shapes_are_run_apart_and_answered_in_order(served_two):
    long, short = {"ids": [1, 2, 3], "mask": True}, {"ids": [4], "mask": False}
    answers = served_two(long, short, long)
    assert answers == [
        {"output_0": [1.0, 2.0, 3.0], "output_1": 2.0},
        {"output_0": [0.0], "output_1": 0.0},
        {"output_0": [1.0, 2.0, 3.0], "output_1": 2.0},
    ]


@pytest.mark.parametrize("encode", [lambda body: body, json.dumps, lambda body: json.dumps(body).encode()])
def test_a_body_comes_parsed_as_text_or_as_bytes(served, sample, encode):
    body = sample["image"][0].tolist()
    assert served(encode({"image": body})) == served(encode(body)) == served(body)


def test_data_stands_in_for_body(served, sample):
    [answer] = served.handler.handle([{"data": sample["image"][0].tolist()}], served.context)
    assert len(answer["output"]) == 3


def test_one_bad_request_does_not_disturb_the_others(served, sample):
    good = sample["image"][0].tolist()
    first, second, third = served(good, {"picture": good}, good)
    assert first == third
    assert second == {"code": 400, "error": "got inputs picture; expected image"}
    assert served.context.status == {1: 400}


ROW = [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "the body is not JSON ("),
        (b"\xff", "the body is not JSON ("),
        ({}, "got inputs none; expected image"),
        ([ROW], "input 'image': got shape [1, 3]; expected float32[2,3]"),
        ([ROW, ROW, ROW], "input 'image': got shape [3, 3]; expected float32[2,3]"),
        ([[ROW, ROW]], "input 'image': got shape [1, 2, 3]; expected float32[2,3]"),
        ([ROW, ROW[:2]], "input 'image': the nested lists have unequal lengths; expected float32[2,3]"),
        ([["a"] * 3] * 2, "input 'image': got values that are not float32"),
        ([[None] * 3] * 2, "input 'image': got values that are not float32"),
        ([[True] * 3] * 2, "input 'image': got values that are not float32"),
        ([[float("nan")] * 3] * 2, "input 'image': holds NaN, infinity, or a number that float32 cannot hold"),
        ([[1e300] * 3] * 2, "input 'image': holds NaN, infinity, or a number that float32 cannot hold"),
        ([[10**400] * 3] * 2, "input 'image': got values that are not float32"),
        ([], "input 'image': got shape [0]; expected float32[2,3]"),
        (None, "input 'image': got shape []; expected float32[2,3]"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_its_reason(served, body, reason):
    assert served.refusal(body).startswith(reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([1], "got a list; expected an object with ids, mask"),
        ({"ids": [1]}, "got inputs ids; expected ids, mask"),
        ({"ids": [1.5], "mask": True}, "input 'ids': got values that are not int64; expected int64[seq]"),
        ({"ids": [2**63], "mask": True}, "input 'ids': holds 9223372036854775808 to"),
        ({"ids": [1], "mask": 1}, "input 'mask': got values that are not bool; expected bool[]"),
        (
            {"ids": [1] * 10, "mask": True},
            "input 'ids': got shape [10]; expected int64[seq] with seq from 1 to 9",
        ),
    ],
)
def test_types_and_ranges_are_those_of_the_contract(served_two, body, reason):
    assert served_two.refusal(body).startswith(reason)


def test_a_request_without_a_body_is_refused(served):
    [answer] = served.handler.handle([{}], served.context)
    assert answer == {"code": 400, "error": "the request has no body"}


def test_a_model_without_a_batch_takes_whole_inputs(zoo, tmp_path):
    artifact = zoo.onnx(zoo.source("total", ["x:float32[batch,4]"], batch="1:2:8"))
    served = Served(artifact, tmp_path)
    assert served([[1, 2, 3, 4], [1, 1, 1, 1]]) == [{"output": 14.0}]
    assert served.refusal([1, 2, 3, 4]) == "input 'x': got shape [4]; expected float32[batch,4]"


def test_sizes_that_two_inputs_share_must_agree(served_two):
    contract = {
        "batch": None,
        "dims": {"n": [1, 9]},
        "inputs": [{"name": k, "dtype": "float32", "shape": ["n"]} for k in "ab"],
    }
    with pytest.raises(
        ValueError,
        match=r"input 'b': got shape \[3\]; expected float32\[n\] with n from 1 to 9 and the same in every input",
    ):
        served_two.module.read_request({"body": {"a": [1, 2], "b": [1, 2, 3]}}, contract)


def test_a_dictionary_output_is_answered_by_the_artifacts_names(zoo, tmp_path):
    artifact = zoo.torchscript(zoo.source("named", ["x:float32[batch,4]"], batch="1:2:8"))
    assert Served(artifact, tmp_path)([1, 2, 3, 4]) == [{"double": [2, 4, 6, 8], "half": [0.5, 1, 1.5, 2]}]


def test_class_names_bring_the_most_probable_classes(onnx, sample, tmp_path):
    served = Served(onnx, tmp_path, class_names=("cat", "dog", "cow"))
    [answer] = served(sample["image"][0].tolist())
    with open_runner(onnx) as runner:
        logits = runner.infer(sample)["output"][0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    found = {row["class"]: row["probability"] for row in answer["classes"]}
    np.testing.assert_allclose([found[name] for name in ("cat", "dog", "cow")], expected, rtol=1e-6)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_scores_that_are_probabilities_already_are_not_changed(served):
    names = [str(i) for i in range(7)]
    scores = np.array([0.1, 0.4, 0.05, 0.2, 0.05, 0.1, 0.1])
    best = served.module.top_classes(scores, names, "probabilities")
    assert [(row["class"], row["probability"]) for row in best] == [
        ("1", 0.4),
        ("3", 0.2),
        ("0", 0.1),
        ("5", 0.1),
        ("6", 0.1),
    ]


def test_an_output_that_is_no_number_is_an_error_of_the_server(served, sample, monkeypatch):
    monkeypatch.setattr(served.handler, "run", lambda feed: {"output": np.array([[np.nan, 1, 2]])})
    assert served(sample["image"][0].tolist()) == [{"code": 500, "error": "output 'output': contains NaN or infinity"}]
    assert served.context.status == {0: 500}


def test_a_gpu_that_onnxruntime_cannot_use_is_an_error_and_no_cpu(served, onnx, monkeypatch):
    import onnxruntime

    class Fallen:
        def __init__(self, *_, **__): ...

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    with pytest.raises(RuntimeError, match=r"gave GPU 0, but ONNX Runtime fell back to CPUExecutionProvider. Install"):
        served.module.load_onnx(onnx.path, 0, served.handler.contract)
