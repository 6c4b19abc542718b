"""A Python function as a model of its own: what is refused before anything is written, and the real server's answers."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as grpc

from optkit.artifact.tensors import DimRange
from optkit.data import Feeds, Samples
from optkit.errors import FeedError, ModelError, OutputError, RecipeError, RunnerError, StageError
from optkit.pipeline.plan import make_plan
from optkit.recipe import load_recipe
from optkit.serving import TritonPythonServing, VersionPolicy, package_function
from optkit.serving.triton.connection import TritonClient
from optkit.serving.triton.lint import lint
from optkit.serving.triton.python_backend import package as packaging
from optkit.serving.triton.smoke import smoke_triton
from tests.support.project import BENCH, carry_out, command_line, files_below, write_project

DIMS = {"batch": DimRange(min=1, opt=4, max=16)}
CODE = """
import os
from pathlib import Path

import numpy as np

import neighbour

def double(feed):
    if (feed["x"] == 99).any():
        raise ValueError("99 is no number")
    return {"y": feed["x"] * np.float32(neighbour.FACTOR), "total": feed["x"].sum(axis=1)}

def sized(feed):
    rows = np.float32(len(feed["x"]))
    return {"y": feed["x"] * np.float32(2), "total": np.full(len(feed["x"]), rows)}

def mixing(feed):
    return double(feed) | {"total": (feed["x"] - feed["x"].mean()).sum(axis=1)}

COUNT = []

def counting(feed):
    COUNT.append(1)
    return double(feed) | {"total": np.full(len(feed["x"]), len(COUNT), np.float32)}

def folded(feed):
    return {"y": feed["x"].reshape(1, -1), "total": feed["x"].sum(axis=1)}

def float64(feed):
    return double(feed) | {"y": feed["x"].astype(np.float64)}

def partial(feed):
    return {"y": feed["x"]}

def raises(feed):
    raise ValueError("no such thing")

def changes(feed):
    feed["x"] *= 2
    return {"y": feed["x"], "total": feed["x"].sum(axis=1)}

def reads(feed):
    return {"y": feed["x"] * np.load(Path(__file__).with_name("weight.npy")), "total": feed["x"].sum(axis=1)}

def elsewhere(feed):
    factor = 2 if "OPTKIT_ELSEWHERE" in os.environ and Path(__file__).with_name("mark").exists() else 3
    return double(feed) | {"y": feed["x"] * np.float32(factor)}

def waits(feed):
    import time
    if not Path(__file__).with_name("mark").exists():
        time.sleep(60)
    return double(feed)

def nan(feed):
    return double(feed) | {"total": feed["x"].sum(axis=1) * np.float32("nan")}

def fixed(feed):
    return {"z": feed["a"] + 1}
"""


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "code/steps.py"
    path.parent.mkdir()
    path.write_text(CODE)
    (path.parent / "neighbour.py").write_text("FACTOR = 2\n")
    (path.parent / "mark").touch()
    return path


@pytest.fixture
def package(code, tmp_path):
    def made(function, repository=tmp_path / "models", data=None, force=False, **fields):
        given = {
            "function": f"{code}:{function}",
            "inputs": {"x": "float32[batch,3]"},
            "outputs": {"y": "float32[batch,3]", "total": "float32[batch]"},
        }
        settings = TritonPythonServing(**(given | fields))
        dims = DIMS if any("batch" in spec.shape for spec in settings.inputs) else {}
        samples = Samples(settings.inputs, dims, Feeds(data, settings.inputs) if data else None)
        return package_function(settings, repository, dims, samples, force=force)

    return made


def test_it_is_packaged_with_its_code_golden_samples_and_warmup(package):
    done = package("double")
    assert done.files == (
        "1/code/neighbour.py",
        "1/code/steps.py",
        "1/model.py",
        "1/optkit_model.json",
        "config.pbtxt",
        "golden/1.npz",
        "optkit.json",
        "warmup/x",
    )
    assert (done.name, done.target) == ("double", "triton-python")
    assert "Triton's Python needs numpy" in done.notes
    assert lint(done.path.parent).findings == ()


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (
            "mixing",
            StageError,
            "steps.py:mixing: batching would give wrong answers: output 'total' of a sample depends on",
        ),
        ("counting", StageError, "steps.py:counting: output 'total' differs in a second call with the same feed"),
        ("folded", RunnerError, r"output 'y' is float32\[1,3\]; expected|output 'y' is float32\[1,12\]; expected"),
        ("float64", RunnerError, r"output 'y' is float64\[\d,3\]; expected float32\[batch,3\] with batch \d"),
        ("partial", RunnerError, r"output 'total' is None; expected float32\[batch\]"),
        ("raises", RunnerError, "raised .*steps.py:.*ValueError: no such thing"),
        ("reads", RunnerError, "raised .*No such file or directory: .*weight.npy"),
        ("nan", StageError, "output 'total': the samples are unusable: on them the model itself gives NaN"),
        ("nothing", ModelError, "has no 'nothing'"),
    ],
)
def test_a_function_that_does_not_keep_its_contract_is_refused_and_nothing_written(
    package, tmp_path, function, error, said
):
    with pytest.raises(error, match=said):
        package(function)
    assert not (tmp_path / "models").exists()


def test_one_that_mixes_its_batch_is_served_without_batching(package):
    done = package("mixing", batching=False)
    assert "max_batch_size: 0" in (done.path / "config.pbtxt").read_text()


def test_a_function_may_change_its_inputs_and_the_golden_ones_stay(package):
    done = package("changes")
    golden = np.load(done.path / "golden/1.npz")
    np.testing.assert_allclose(golden["output/y"], 2 * golden["input/x"])


def test_the_files_that_it_reads_are_carried_where_they_are_named(package, code, tmp_path):
    weight = code.parent / "weight.npy"
    np.save(weight, np.float32(5))
    with pytest.raises(StageError, match=r"the packaged files do not run alone: .*weight.npy.*--extra-file"):
        package("reads")
    done = package("reads", extra_files=(str(weight),))
    assert "1/code/weight.npy" in done.files
    with pytest.raises(StageError, match=r"extra_files: .*steps.py: another file has this name"):
        package("double", version=2, extra_files=(str(code),))
    with pytest.raises(StageError, match=r"extra_files: .*gone: no such file"):
        package("double", version=2, extra_files=(str(tmp_path / "gone"),))


def test_one_that_answers_otherwise_from_the_carried_files_is_refused(package, monkeypatch, tmp_path):
    monkeypatch.setenv("OPTKIT_ELSEWHERE", "1")
    with pytest.raises(StageError, match=r"output 'y' differs with the packaged files: .*--extra-file"):
        package("elsewhere")
    monkeypatch.setattr(packaging, "_TRIAL_LIMIT_S", 2)
    with pytest.raises(StageError, match="the packaged code did not finish within 2 s"):
        package("waits")
    assert not (tmp_path / "models").exists()


def test_real_samples_that_do_not_fit_are_refused(package, tmp_path):
    np.savez(tmp_path / "feed.npz", x=np.zeros((2, 4), np.float32))
    with pytest.raises(FeedError, match=r"input 'x': got float32\[2,4\]"):
        package("double", data=str(tmp_path / "feed.npz"))


def test_a_version_that_is_there_is_refused(package):
    package("double")
    with pytest.raises(OutputError, match="double/1: exists already"):
        package("double")
    done = package("double", version=2, version_policy=VersionPolicy(all=True), force=True)
    assert files_below(done.path) >= {"1/model.py", "2/model.py", "golden/1.npz", "golden/2.npz"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_batch_size": 32}, "max_batch_size is 32; expected at most 16, the declared maximum"),
        ({"preferred_batch_sizes": (17,)}, "17 is above max_batch_size 16"),
    ],
)
def test_settings_that_do_not_fit(package, fields, said):
    with pytest.raises(StageError, match=said):
        package("double", **fields)


def test_a_function_without_its_file_is_refused(tmp_path):
    given = {"inputs": {"x": "float32[batch,3]"}, "outputs": {"y": "float32[batch,3]"}}
    settings = TritonPythonServing(function="steps", name="x", **given)
    with pytest.raises(ModelError, match=r"expected file\.py:function"):
        package_function(settings, tmp_path / "models", DIMS, Samples(settings.inputs, DIMS, None), force=False)


def test_the_real_server_answers_as_the_function_and_puts_requests_together(serve, package):
    """`sized` answers with the rows of its call, which no batch-independent function does: so it shows which requests the server joined."""
    package("double", max_queue_delay_us=200_000, preferred_batch_sizes=(8,))
    package("mixing", batching=False)
    done = package("fixed", inputs={"a": "int64[2]"}, outputs={"z": "int64[2]"})
    repository = done.path.parent
    feeds = [{"x": np.random.default_rng(i).random((1 + i % 2, 3), np.float32)} for i in range(16)]
    with serve(repository) as server:
        urls = (f"http://{server.http}", f"grpc://{server.grpc}")
        record = smoke_triton(repository, urls)
        assert record.passed, [replay.fault for replay in record.replays]
        assert {replay.model for replay in record.replays} == {"double", "mixing", "fixed"}

        def ask(feed):
            with TritonClient(urls[1]) as client:
                return client.infer("double", "", feed, ["y", "total"])

        with grpc.InferenceServerClient(server.grpc) as client:
            before = client.get_inference_statistics("double").model_stats[0]
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(ask, feeds))
            after = client.get_inference_statistics("double").model_stats[0]
        for feed, answer in zip(feeds, answers, strict=True):
            np.testing.assert_allclose(answer["y"], feed["x"] * 2)
            np.testing.assert_allclose(answer["total"].reshape(-1), feed["x"].sum(axis=1), rtol=1e-6)
        assert after.execution_count - before.execution_count < 16


def test_a_request_that_fails_does_not_disturb_those_that_came_with_it(serve, package):
    repository = package("double", max_queue_delay_us=300_000, preferred_batch_sizes=(16,)).path.parent
    feeds = [{"x": np.full((1, 3), 99 if i == 3 else i, np.float32)} for i in range(6)]
    with serve(repository) as server:

        def ask(feed):
            with TritonClient(f"grpc://{server.grpc}") as client:
                try:
                    return client.infer("double", "", feed, ["y"])["y"]
                except RunnerError as e:
                    return str(e)

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(ask, feeds))
    assert "double: ValueError: 99 is no number" in answers.pop(3)
    for feed, answer in zip(feeds[:3] + feeds[4:], answers, strict=True):
        np.testing.assert_allclose(answer, feed["x"] * 2)


@pytest.fixture
def cli(monkeypatch, capsys):
    yield from command_line(monkeypatch, capsys)


CONTRACT = ("--input", "x:float32[batch,3]", "--returns", "y:float32[batch,3]", "--returns", "total:float32[batch]")


def test_the_command(cli, code, tmp_path):
    done = cli(
        "package", "triton-python", f"{code}:double", *CONTRACT, "--dim", "batch=1:4:8", "-o", tmp_path / "m", "--json"
    )
    assert done.code == 0, done.err
    [packaged] = json.loads(done.out)["packages"]
    assert (packaged["name"], packaged["target"]) == ("double", "triton-python")
    assert "max_batch_size: 8" in (tmp_path / "m/double/config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--dim", "batch=1:4:8"), 'expected --input "x:float32[batch,4]" and --returns'),
        (CONTRACT, "steps.py:double: dimension 'batch': used by an input but has no range"),
        ((*CONTRACT, "--dim", "batch=1:4:8", "--name", "../up"), "--name: '../up' cannot be a model name"),
        ((*CONTRACT, "--dim", "batch=1:4:8", "--returns", "x"), "--returns: "),
        (
            (*CONTRACT, "--dim", "batch=1:4:8", "--no-batching", "--max-batch-size", "4"),
            "is set together with batching: false",
        ),
    ],
)
def test_the_command_refuses(cli, code, tmp_path, arguments, said):
    done = cli("package", "triton-python", f"{code}:double", *arguments, "-o", tmp_path / "m")
    assert (done.code, said in done.err) == (2, True), done.err
    assert not (tmp_path / "m").exists()


ENTRY = {
    "target": "triton-python",
    "function": "code/steps.py:double",
    "inputs": {"x": "float32[batch, 3]"},
    "outputs": {"y": "float32[batch, 3]", "total": "float32[batch]"},
}


def test_an_entry_of_a_recipe_is_written_and_reused_until_its_code_changes(code, tmp_path):
    recipe = write_project(tmp_path, serve=[ENTRY, {"target": "triton", "artifact": "export-onnx"}], bench=BENCH)
    first = carry_out(recipe)
    assert [packaged.name for packaged in first.packaged] == ["double", "tiny"]
    model = tmp_path / "out/model_repository/double/1/model.py"
    before = model.stat().st_mtime_ns
    carry_out(recipe)
    assert model.stat().st_mtime_ns == before
    code.write_text(CODE.replace("np.float32(neighbour.FACTOR)", "np.float32(4)"))
    carry_out(recipe)
    assert model.stat().st_mtime_ns > before
    assert "np.float32(4)" in (model.parent / "code/steps.py").read_text()


def test_an_entry_whose_function_breaks_its_word_fails_the_run_and_writes_nothing(code, tmp_path):
    recipe = write_project(tmp_path, serve=[ENTRY | {"function": "code/steps.py:mixing"}], bench=BENCH)
    record = carry_out(recipe)
    assert "batching would give wrong answers" in " ".join(record.failures)
    assert not (tmp_path / "out/model_repository/mixing").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"function": "code/gone.py:f"}, "gone.py: no such file"),
        ({"inputs": {"x": "float32[rows, 3]"}}, "serve.0 (triton-python): dimension 'rows' has no range in dims"),
        ({"extra_files": ["gone.txt"]}, "gone.txt: no such file"),
        ({"data": "gone"}, "gone: no such file or folder"),
        ({"name": "tiny"}, "serve: two entries write 'tiny' version 1 for triton"),
    ],
)
def test_a_plan_finds_what_is_wrong_with_an_entry(code, tmp_path, change, said):
    recipe = write_project(tmp_path, serve=[ENTRY | change, {"target": "triton", "artifact": "export-onnx"}])
    with pytest.raises(RecipeError) as error:
        make_plan(load_recipe(recipe), tmp_path / "out")
    assert said in str(error.value)
