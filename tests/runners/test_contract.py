"""What every runner keeps; a new one joins by a line in RUNNERS, with the chain that makes an artifact for it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange, corners
from optkit.errors import FeedError, RunnerError
from optkit.runners import Device, open_runner
from optkit.stages import BuildTensorRt, CompileAoti, ExportOnnx, ExportProgram, ExportTorchScript, Stage
from tests.support import zoo
from tests.support.tensorrt_standin import standing_in
from tests.support.zoo import Make

RUNNERS: dict[str, tuple[Stage, ...]] = {
    "eager": (),
    "torchscript": (ExportTorchScript(),),
    "exported-program": (ExportProgram(),),
    "onnxruntime": (ExportOnnx(exporter="torchscript", opset=17),),
}

ENGINE = (*RUNNERS["onnxruntime"], BuildTensorRt(runtime="tensorrt", timing_cache="none"))  # runs on a GPU alone

AOTI = (CompileAoti(),)  # takes no size outside its range

ATOL = {Device.CPU: 1e-5, Device.CUDA: 1e-4}
PLACES = [
    *(pytest.param((chain, Device.CPU), id=f"{name}-cpu") for name, chain in RUNNERS.items()),
    *(pytest.param((chain, Device.CUDA), id=f"{name}-cuda", marks=pytest.mark.gpu) for name, chain in RUNNERS.items()),
    pytest.param((ENGINE, Device.CUDA), id="tensorrt-standin"),
    pytest.param((AOTI, Device.CPU), id="aoti-cpu"),
]


@pytest.fixture(params=PLACES)
def place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[tuple[Stage, ...], Device]]:
    """A chain, and where what it makes runs; engines run on the stand-in for TensorRT."""
    if request.param[0] is not ENGINE:
        yield request.param
        return
    for _ in standing_in("11", monkeypatch):
        yield request.param


@pytest.fixture
def make(make: Make, request: pytest.FixtureRequest) -> Make:
    """Compiling takes half a minute: without --slow one sample is compiled."""

    def limited(name: str, *stages: Stage) -> Artifact:
        if stages == AOTI and name != "linear" and not request.config.getoption("--slow"):
            pytest.skip("slow: run with --slow")
        return make(name, *stages)

    return limited


@pytest.fixture
def chain(place: tuple[tuple[Stage, ...], Device]) -> tuple[Stage, ...]:
    return place[0]


@pytest.fixture
def device(place: tuple[tuple[Stage, ...], Device]) -> Device:
    return place[1]


@pytest.fixture
def linear(chain: tuple[Stage, ...], make: Make) -> Artifact:
    return make("linear", *chain)


@pytest.fixture(params=RUNNERS)
def linear_on_cpu(request: pytest.FixtureRequest, make: Make) -> Artifact:
    return make("linear", *RUNNERS[request.param])


@pytest.fixture
def two(chain: tuple[Stage, ...], make: Make) -> Artifact:
    return make("two", *chain)


@pytest.mark.parametrize("name", zoo.SAMPLES)
def test_answers_are_right_at_every_corner(name: str, chain: tuple[Stage, ...], device: Device, make: Make) -> None:
    sample = zoo.SAMPLES[name]
    artifact = make(name, *chain)
    with open_runner(artifact, device) as runner:
        assert runner.device is device
        assert ("tensorrt" if chain is ENGINE else str(device)) in runner.provider.lower()
        for sizes in corners(sample.dims):
            feed = sample.feed(sizes)
            before = {key: array.copy() for key, array in feed.items()}
            found = runner.infer(feed)

            assert list(found) == [spec.name for spec in artifact.outputs]
            for spec in artifact.outputs:
                want = sample.expected(feed)[spec.name]
                assert found[spec.name].dtype == spec.dtype.numpy == want.dtype
                assert found[spec.name].shape == spec.shape_at(sizes)
                assert found[spec.name].flags.c_contiguous
                np.testing.assert_allclose(found[spec.name], want, atol=ATOL[device], rtol=1e-5, err_msg=str(sizes))
            for key in feed:
                np.testing.assert_array_equal(feed[key], before[key])


def test_the_order_of_the_feed_is_of_no_account(two: Artifact, device: Device) -> None:
    feed = zoo.SAMPLES["two"].feed({"batch": 3})
    with open_runner(two, device) as runner:
        straight, turned = runner.infer(feed), runner.infer(dict(reversed(feed.items())))
    for name in straight:
        np.testing.assert_array_equal(straight[name], turned[name])


def test_inputs_that_are_not_contiguous_are_read_as_numpy_reads_them(linear: Artifact, device: Device) -> None:
    sample = zoo.SAMPLES["linear"]
    feed = {"input": np.asfortranarray(sample.feed({"batch": 8})["input"])[::2]}
    assert not feed["input"].flags.c_contiguous
    with open_runner(linear, device) as runner:
        np.testing.assert_allclose(runner.infer(feed)["output"], sample.expected(feed)["output"], atol=ATOL[device])
        runner.bind(feed)()


X = np.zeros((2, 4), np.float32)
WRONG = {
    "missing name": ({}, r"got inputs none; the model takes input$"),
    "extra name": ({"input": X, "mask": X}, r"got inputs input, mask; the model takes input$"),
    "dtype": ({"input": X.astype(np.float64)}, r"input 'input': got float64\[2,4\]; .* float32\[batch,4\]\. Cast"),
    "rank": ({"input": X[0]}, r"input 'input': got float32\[4\]; the model takes float32\[batch,4\]"),
    "static dimension": ({"input": X[:, :3]}, r"input 'input': got float32\[2,3\]; the model takes float32\[batch,4\]"),
    "empty": ({"input": X[:0]}, r"input 'input': got float32\[0,4\]; the model takes float32\[batch,4\]"),
    "no array": ({"input": X.tolist()}, r"input 'input': got list; expected a numpy array float32\[batch,4\]"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_feed_is_refused(fault: str, linear: Artifact, device: Device) -> None:
    feed, message = WRONG[fault]
    with open_runner(linear, device) as runner:
        with pytest.raises(FeedError, match=message):
            runner.infer(feed)
        with pytest.raises(FeedError, match=message):
            runner.bind(feed)
        runner.infer({"input": X})  # and the runner lives on


def test_a_named_dimension_has_one_size_in_a_feed(two: Artifact, device: Device) -> None:
    feed = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((4, 3), np.float32)}
    with open_runner(two, device) as runner, pytest.raises(FeedError, match=r"input 'b': got float32\[4,3\].*batch=2"):
        runner.infer(feed)


@pytest.mark.parametrize("name", ["identity", "linear", "buffered"])
def test_outputs_belong_to_the_caller(name: str, chain: tuple[Stage, ...], device: Device, make: Make) -> None:
    sample = zoo.SAMPLES[name]
    feed = sample.feed({"batch": 2})
    with open_runner(make(name, *chain), device) as runner:
        first = runner.infer(feed)
        kept = {key: array.copy() for key, array in first.items()}
        second = runner.infer(sample.feed({"batch": 2}, seed=1))
        for key in first:
            assert not np.shares_memory(first[key], second[key])
            assert not np.shares_memory(first[key], next(iter(feed.values())))
            np.testing.assert_array_equal(first[key], kept[key])
            first[key][:] = 0  # it may be written to
        again = runner.infer(feed)
    for key, want in sample.expected(sample.feed({"batch": 2}, seed=1)).items():
        np.testing.assert_array_equal(again[key], kept[key])
        np.testing.assert_allclose(second[key], want, atol=ATOL[device], rtol=1e-5)  # the runner is gone by now


def test_bind_returns_a_callable_that_runs(two: Artifact, device: Device) -> None:
    sample = zoo.SAMPLES["two"]
    feed = sample.feed({"batch": 4})
    with open_runner(two, device) as runner:
        call = runner.bind(feed)
        with runner.calling():
            call()
            call()
        feed = sample.feed({"batch": 7})
        np.testing.assert_allclose(runner.infer(feed)["output_0"], sample.expected(feed)["output_0"], atol=ATOL[device])


def test_no_use_before_open_and_after_close(linear: Artifact, device: Device) -> None:
    runner = open_runner(linear, device)
    closed = r"the runner is not open; use it inside `with`"
    with pytest.raises(RunnerError, match=closed):
        runner.infer({"input": X})
    with pytest.raises(RunnerError, match=closed):
        runner.bind({"input": X})
    with runner:
        runner.infer({"input": X})
    with pytest.raises(RunnerError, match=closed):
        runner.infer({"input": X})
    with runner:  # it may be opened again
        runner.infer({"input": X})


def test_the_runner_is_closed_when_the_block_raises(linear: Artifact, device: Device) -> None:
    runner = open_runner(linear, device)
    with pytest.raises(KeyError), runner:
        raise KeyError
    with pytest.raises(RunnerError, match="not open"):
        runner.infer({"input": X})


def test_constructing_costs_nothing(linear: Artifact, device: Device, tmp_path: Path) -> None:
    missing = linear.model_copy(update={"path": tmp_path / linear.path.name})
    runner = open_runner(missing, device)
    with pytest.raises(RunnerError, match=rf"^{missing.path}: no such file$"), runner:
        pass


def test_a_size_outside_its_range_still_runs(linear_on_cpu: Artifact) -> None:
    """Ranges bind the build of an engine and the checks; a runner takes what the file takes."""
    sample = zoo.SAMPLES["linear"]
    assert sample.dims["batch"] == DimRange(min=1, opt=4, max=16)
    feed = sample.feed({"batch": 33})
    with open_runner(linear_on_cpu) as runner:
        np.testing.assert_allclose(runner.infer(feed)["output"], sample.expected(feed)["output"], atol=1e-5)


def test_threads_are_given_back(linear_on_cpu: Artifact) -> None:
    import torch

    before = torch.get_num_threads()
    with open_runner(linear_on_cpu, threads=1) as runner:
        runner.infer({"input": X})
    assert torch.get_num_threads() == before


def test_a_missing_gpu_is_no_reason_to_run_on_the_cpu(linear_on_cpu: Artifact) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(RunnerError, match=r"^device 'cuda': "), open_runner(linear_on_cpu, Device.CUDA):
        pass
