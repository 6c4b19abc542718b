"""`import optkit`: each command as a function, on what the caller has in memory."""

import ast
import importlib
import inspect
import subprocess
import sys
import threading
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import optkit
from optkit.cli.app import app
from optkit.errors import FeedError, ModelError, OutputError, RecipeError
from optkit.record import Document
from tests.support import ROOT

INPUTS = {"x": "float32[batch,8]"}
DIMS = {"batch": (1, 4, 16)}
FAST = {"time_limit_s": 1, "batches": [1]}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))

    def forward(self, x):
        return self.layers(x)


@pytest.fixture
def net() -> Net:
    return Net().train()


@pytest.fixture
def onnx(net: Net, tmp_path: Path) -> Path:
    optkit.export_onnx(net, tmp_path / "m.onnx", inputs=INPUTS, dims=DIMS, exporter="torchscript", opset=17)
    return tmp_path / "m.onnx"


def feeds(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((4, 8)).astype(np.float32)} for _ in range(count)]


def loader(**options) -> torch.utils.data.DataLoader:
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(32, 8), torch.arange(32) % 3)
    return torch.utils.data.DataLoader(data, batch_size=8, **options)


class TestNames:
    def test_every_name_is_there_and_typed(self) -> None:
        body = ast.parse(Path(optkit.__file__).read_text()).body
        typed = next(node for node in body if isinstance(node, ast.If))
        names = {alias.asname for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert {"__version__", *names} == set(optkit.__all__) == set(dir(optkit))
        for name in optkit.__all__:
            assert getattr(optkit, name) is getattr(optkit, name)

    def test_an_unknown_name(self) -> None:
        with pytest.raises(AttributeError, match=r"module 'optkit' has no attribute 'exprot_onnx'"):
            optkit.exprot_onnx  # noqa: B018

    def test_the_import_loads_nothing_heavy(self) -> None:
        code = "import sys, optkit; print([m for m in ('torch', 'onnx', 'numpy', 'pydantic', 'typing') if m in sys.modules])"
        found = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        assert found.stdout == "[]\n"


class TestAModuleInMemory:
    @pytest.mark.parametrize("export", [optkit.export_onnx, optkit.export_torchscript])
    def test_it_is_exported_and_stays_as_it_is(self, export, net: Net, tmp_path: Path) -> None:
        weight, handlers = net.layers[0].weight, list(net._forward_hooks.values())
        made = export(net, tmp_path / "m", inputs=INPUTS, dims=DIMS)
        assert made.passed
        assert made.parity.passed
        assert (tmp_path / "m").is_file()
        assert net.training
        assert net.layers[2].training
        assert net.layers[0].weight is weight
        assert list(net._forward_hooks.values()) == handlers
        with optkit.open(made) as runner:
            x = feeds()[0]["x"]
            (answer,) = runner.infer({"x": x}).values()
        with torch.inference_mode():
            right = net.eval()(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(answer, right, atol=1e-5)

    def test_the_same_module_gives_the_same_file_twice_and_another_another(self, net: Net, tmp_path: Path) -> None:
        one, two = (optkit.export_onnx(net, tmp_path / f"{i}.onnx", inputs=INPUTS, dims=DIMS) for i in (1, 2))
        with torch.no_grad():
            net.layers[0].get_parameter("weight").add_(1)
        other = optkit.export_onnx(net, tmp_path / "3.onnx", inputs=INPUTS, dims=DIMS)
        assert one.artifact.sha256 == two.artifact.sha256 != other.artifact.sha256

    def test_the_passport_names_its_class_and_says_that_nothing_rebuilds_it(self, net: Net, tmp_path: Path) -> None:
        made = optkit.export_onnx(net, tmp_path / "m.onnx", inputs=INPUTS, dims=DIMS)
        (note,) = [note for note in made.artifact.notes if "in memory" in note]
        assert "test_front_door.Net, a module in memory with the state dict " in note
        assert "nothing can build it again" in note

    def test_inputs_are_read_off_an_example(self, net: Net, tmp_path: Path) -> None:
        made = optkit.export_onnx(net, tmp_path / "m.onnx", example=(torch.zeros(4, 8),), dims={"batch": (1, 4, 8)})
        assert [str(spec) for spec in made.artifact.inputs] == ["x:float32[batch,8]"]

    def test_weights_are_loaded_into_a_copy(self, net: Net, tmp_path: Path) -> None:
        other = Net()
        nn.init.ones_(other.layers[0].weight)
        torch.save(other.state_dict(), tmp_path / "w.pt")
        made = optkit.export_onnx(net, tmp_path / "m.onnx", inputs=INPUTS, dims=DIMS, weights=tmp_path / "w.pt")
        assert made.passed
        assert not torch.equal(net.layers[0].weight, other.layers[0].weight)
        assert optkit.check(net, tmp_path / "m.onnx").failures

    def test_what_needs_a_file_says_so(self, net: Net, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"Net: is in memory, so no script can build it again"):
            optkit.export_onnx(net, tmp_path / "m.onnx", inputs=INPUTS, dims=DIMS, repro=tmp_path / "repro")
        with pytest.raises(ModelError, match=r"takes no arguments \(n given\)"):
            optkit.export_onnx(net, tmp_path / "m.onnx", inputs=INPUTS, dims=DIMS, args={"n": 1})
        with pytest.raises(ModelError, match=r"model: is a function; expected a torch\.nn\.Module"):
            optkit.export_onnx(lambda x: x, tmp_path / "m.onnx")
        assert not (tmp_path / "m.onnx").exists()

    def test_in_a_thread(self, net: Net, tmp_path: Path) -> None:
        made = []
        thread = threading.Thread(
            target=lambda: made.append(optkit.export_onnx(net, tmp_path / "m.onnx", inputs=INPUTS, dims=DIMS))
        )
        thread.start()
        thread.join()
        assert made[0].passed

    def test_half_of_a_class_in_another_language_of_weights_is_named(self, tmp_path: Path) -> None:
        class Broken(nn.Module):
            def __deepcopy__(self, memo):
                raise RuntimeError("locked")

        with pytest.raises(ModelError, match=r"memory:Broken: cannot be copied: locked"):
            optkit.export_onnx(Broken(), tmp_path / "m.onnx", inputs=INPUTS, dims=DIMS)


class TestDataAndEvaluation:
    def test_a_data_loader_with_labels(self, onnx: Path, tmp_path: Path) -> None:
        called = []

        def accuracy(predict):
            called.append(predict)
            (scores,) = predict(feeds()[0]).values()
            return float(scores.shape[0])

        made = optkit.quantize(
            onnx,
            tmp_path / "q.onnx",
            calibration=loader(),
            to_feed=lambda batch: batch[0],
            evaluate=accuracy,
            max_drop=0.5,
        )
        assert made.passed
        assert made.artifact.precision == "int8"
        assert made.accuracy.function == "accuracy"
        assert called

    @pytest.mark.parametrize(
        "data",
        [
            feeds(),
            [(feed["x"],) for feed in feeds()],
            [torch.from_numpy(feed["x"]) for feed in feeds()],
            [{"x": torch.from_numpy(feed["x"])} for feed in feeds()],
            lambda: iter(feeds()),
        ],
        ids=["dicts", "tuples", "tensors", "dicts of tensors", "function that gives an iterator"],
    )
    def test_every_form_of_data_gives_the_same_file(self, data, onnx: Path, tmp_path: Path) -> None:
        one = optkit.quantize(
            onnx, tmp_path / "1.onnx", mode="static", calibration=data, activation_type="uint8", format="qdq"
        )
        two = optkit.quantize(
            onnx, tmp_path / "2.onnx", mode="static", calibration=feeds(), activation_type="uint8", format="qdq"
        )
        assert one.artifact.sha256 == two.artifact.sha256

    def test_data_that_does_not_fit(self, onnx: Path, tmp_path: Path) -> None:
        with pytest.raises(FeedError, match=r"feed 0: has 2 arrays; expected 1: x\. Leave out .* such as labels"):
            optkit.quantize(onnx, tmp_path / "q.onnx", calibration=loader())
        with pytest.raises(FeedError, match=r"can be read only once"):
            optkit.quantize(onnx, tmp_path / "q.onnx", calibration=iter(feeds()))
        with pytest.raises(FeedError, match=r"data: is a int; expected an iterable of feeds"):
            optkit.quantize(onnx, tmp_path / "q.onnx", calibration=3)
        with pytest.raises(FeedError, match=r"to_feed: applies only to data in memory"):
            optkit.quantize(onnx, tmp_path / "q.onnx", calibration=tmp_path, to_feed=lambda x: x)
        with pytest.raises(ModelError, match=r"evaluate: is a int; expected a function that takes predict"):
            optkit.quantize(onnx, tmp_path / "q.onnx", calibration=feeds(), evaluate=3)
        assert not (tmp_path / "q.onnx").exists()

    def test_an_error_in_the_callers_function_names_it(self, onnx: Path, tmp_path: Path) -> None:
        def accuracy(predict):
            return predict(feeds()[0])["nothing"].mean()

        with pytest.raises(ModelError, match=r"memory:accuracy: raised .*test_front_door\.py:\d+: KeyError: 'nothing'"):
            optkit.quantize(onnx, tmp_path / "q.onnx", calibration=feeds(), evaluate=accuracy, max_drop=0.1)


class TestTheOtherFunctions:
    def test_bench_of_files_and_a_module(self, onnx: Path, net: Net) -> None:
        record = optkit.bench([onnx, net], **FAST)
        assert [m.artifact for m in record.measurements] == ["m.onnx", "Net"]
        with pytest.raises(RecipeError, match=r"no model file declares the inputs"):
            optkit.bench([net], **FAST)

    def test_check(self, onnx: Path, net: Net) -> None:
        assert optkit.check(net, onnx).failures == ()
        other = Net()
        nn.init.zeros_(other.layers[0].weight)
        (failure,) = optkit.check(other, onnx).failures
        assert failure.startswith("parity: output ")

    def test_packages(self, onnx: Path, tmp_path: Path) -> None:
        (triton,) = optkit.package_triton(onnx, tmp_path / "repository", name="classifier").packages
        (archive,) = optkit.package_torchserve(onnx, tmp_path / "store", name="classifier").packages
        assert (triton.path / "1" / "model.onnx").is_file()
        assert archive.path.suffix == ".mar"
        assert optkit.lint(tmp_path / "repository").passed

    def test_inspect_takes_what_a_function_returned(self, net: Net, tmp_path: Path) -> None:
        made = optkit.export_onnx(net, tmp_path / "m.onnx", inputs=INPUTS, dims=DIMS)
        assert optkit.inspect(made).artifact == made.artifact
        assert optkit.inspect(tmp_path / "m.onnx").onnx.opset == 20

    def test_compare_takes_records(self, onnx: Path) -> None:
        record = optkit.bench([onnx], **FAST)
        assert optkit.compare(record, record).failures == ()

    def test_errors_speak_of_arguments(self, onnx: Path, net: Net, tmp_path: Path) -> None:
        with pytest.raises(
            OutputError, match=r"exists already\. Give force=True to replace it, or give another output"
        ):
            optkit.export_onnx(net, onnx, inputs=INPUTS, dims=DIMS)
        with pytest.raises(
            ModelError, match=r'as in inputs=\{"x": "float32\[batch,8\]"\}, dims=\{"batch": \(1, 8, 64\)\}'
        ):
            optkit.export_onnx(net, tmp_path / "n.onnx")
        with pytest.raises(RecipeError, match=r"max_drop=0\.1: nothing measures accuracy\. Give evaluate="):
            optkit.quantize(onnx, tmp_path / "q.onnx", max_drop=0.1)

    def test_progress_and_silence(self, net: Net, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        steps = []
        optkit.export_onnx(
            net, tmp_path / "m.onnx", inputs=INPUTS, dims=DIMS, progress=lambda *step: steps.append(step)
        )
        assert ("export-onnx", 0, None) in steps
        assert any(total for _, _, total in steps)
        assert capfd.readouterr() == ("", "")


class TestRecipes:
    def recipe(self, net: Net, **changes) -> optkit.Recipe:
        keys = {
            "name": "tiny",
            "model": net,
            "inputs": INPUTS,
            "dims": DIMS,
            "steps": [{"stage": "export-onnx", "exporter": "torchscript", "opset": 17}, {"stage": "quantize-static"}],
            "calibration": feeds(),
            "evaluation": lambda predict: float(next(iter(predict(feeds()[0]).values())).shape[0]),
            "bench": {"batches": [1], "time_limit_s": 1},
            "serve": [{"target": "triton", "artifact": "fastest"}],
        }
        return optkit.Recipe(**(keys | changes))

    def test_one_in_python_runs_and_is_reused_and_made_anew(self, net: Net, tmp_path: Path) -> None:
        recipe = self.recipe(net)
        first = optkit.run(recipe, tmp_path / "out")
        assert first.failures == ()
        assert [step.status for step in first.steps] == ["built", "built"]
        assert first.packaged[0].path.is_dir()
        assert (tmp_path / "out" / "report.html").is_file()
        again = optkit.run(recipe, tmp_path / "out")
        assert [step.status for step in again.steps] == ["reused", "reused"]
        with torch.no_grad():
            net.layers[0].get_parameter("weight").add_(1)
        changed = optkit.run(recipe, tmp_path / "out")
        assert [step.status for step in changed.steps] == ["built", "built"]

    def test_one_in_yaml_and_in_python_give_the_same_files(self, tmp_path: Path, monkeypatch) -> None:
        (tmp_path / "model.py").write_text(
            "import numpy as np, torch\nfrom torch import nn\n"
            "def build():\n    torch.manual_seed(0)\n    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))\n"
            "def feeds():\n    return [{'x': np.random.default_rng(i).standard_normal((4, 8)).astype('float32')} for i in range(4)]\n"
        )
        (tmp_path / "recipe.yaml").write_text(
            "name: tiny\nmodel: {source: model.py:build}\ninputs: {x: 'float32[batch,8]'}\ndims: {batch: {min: 1, opt: 4, max: 16}}\n"
            "data: {calibration: model.py:feeds}\nbench: {batches: [1], time_limit_s: 1}\n"
            "steps: [{stage: export-onnx, exporter: torchscript, opset: 17}, {stage: quantize-static, activation_type: uint8, format: qdq}]\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        model = importlib.import_module("model")
        recipe = optkit.Recipe(
            name="tiny",
            model=model.build(),
            inputs=INPUTS,
            dims=DIMS,
            calibration=model.feeds(),
            bench={"batches": [1], "time_limit_s": 1},
            steps=[
                {"stage": "export-onnx", "exporter": "torchscript", "opset": 17},
                {"stage": "quantize-static", "activation_type": "uint8", "format": "qdq"},
            ],
        )
        in_python = optkit.run(recipe, tmp_path / "python")
        in_yaml = optkit.run(tmp_path / "recipe.yaml", tmp_path / "yaml")
        assert [step.sha256 for step in in_python.steps] == [step.sha256 for step in in_yaml.steps]

    def test_a_fault_names_the_recipe(self, net: Net, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match=r"tiny: .*stage"):
            optkit.run(self.recipe(net, steps=[{"stage": "export-onx"}]), tmp_path / "out")
        with pytest.raises(RecipeError, match=r"overrides: apply only to a recipe in a file"):
            optkit.run(self.recipe(net), tmp_path / "out", overrides={"bench.seed": "1"})


class TestNothingStaysBehind:
    def test_calls_leave_the_process_as_it_was(self, net: Net, tmp_path: Path) -> None:
        import logging
        import warnings

        def state():
            return (
                list(sys.path),
                list(sys.meta_path),
                list(sys.path_hooks),
                list(warnings.filters),
                torch.get_num_threads(),
                torch.backends.mkldnn.enabled,
                torch.are_deterministic_algorithms_enabled(),
                torch.get_default_dtype(),
                torch.is_grad_enabled(),
                torch.backends.quantized.engine,
                logging.getLogger().level,
                list(logging.getLogger().handlers),
                list(logging.getLogger("optkit").handlers),
            )

        optkit.export_onnx(net, tmp_path / "0.onnx", inputs=INPUTS, dims=DIMS)  # imports of libraries are done now
        before = state()
        for i in (1, 2):
            optkit.export_onnx(net, tmp_path / f"{i}.onnx", inputs=INPUTS, dims=DIMS)
            optkit.export_torchscript(net, tmp_path / f"{i}.pt", inputs=INPUTS, dims=DIMS)
            optkit.convert_fp16(tmp_path / f"{i}.onnx", tmp_path / f"{i}.fp16.onnx")
            optkit.quantize(tmp_path / f"{i}.onnx", tmp_path / f"{i}.int8.onnx", calibration=feeds())
            optkit.quantize_torch(net, tmp_path / f"{i}.int8.pt", inputs=INPUTS, dims=DIMS)
            optkit.check(net, tmp_path / f"{i}.onnx")
            optkit.bench([tmp_path / f"{i}.onnx", net], threads=1, **FAST)
            optkit.package_triton(tmp_path / f"{i}.onnx", tmp_path / "repository", name=f"m{i}")
            optkit.package_torchserve(tmp_path / f"{i}.pt", tmp_path / "store", name=f"m{i}")
            optkit.lint(tmp_path / "repository")
            optkit.inspect(tmp_path / f"{i}.onnx")
            assert state() == before

    def test_no_object_of_the_callers_is_kept(self, tmp_path: Path) -> None:
        import gc
        import weakref

        net = Net()
        optkit.export_onnx(net, tmp_path / "m.onnx", inputs=INPUTS, dims=DIMS, exporter="torchscript", opset=17)
        alive = weakref.ref(net)
        del net
        gc.collect()
        assert alive() is None


# Command -> the function that it calls, and the function's arguments under other names there.
COMMANDS = {
    "ab": ("ab", {}),
    "bench": ("bench", {}),
    "build-engine": ("build_engine", {}),
    "check": ("check", {}),
    "compare": ("compare", {}),
    "compile": ("compile_aoti", {}),
    "convert fp16": ("convert_fp16", {}),
    "diff": ("diff", {}),
    "doctor": ("doctor", {}),
    "export onnx": ("export_onnx", {"source": "model"}),
    "export torchscript": ("export_torchscript", {"source": "model"}),
    "inspect": ("inspect", {}),
    "lint": ("lint", {}),
    "loadtest": ("load_test", {}),
    "migrate": ("migrate", {"output": "repository"}),
    "package torchserve": ("package_torchserve", {"output": "model_store"}),
    "package triton": ("package_triton", {"output": "repository"}),
    "package triton-python": ("package_triton_python", {"output": "repository"}),
    "quantize": ("quantize", {}),
    "quantize-torch": ("quantize_torch", {"source": "model"}),
    "run": ("run", {}),
    "smoke": ("smoke", {}),
    "verify": ("verify", {}),
}
SHOWING = {"as_json", "quiet", "verbose", "junit", "github", "markdown", "layout", "rules", "explain", "dry_run"}
IN_PYTHON = {"progress", "to_feed"}  # a callback, and what makes a feed of an object in memory
OF_SELF_TEST = {"self_test", "trials"}
PRINTING = {"serve", "report", "schema"}  # print a command, show a record again, print a schema


def commands(group=None, prefix: str = ""):
    """Yield each command's name and its function."""
    for command in (group or app).registered_commands:
        yield f"{prefix}{command.name}", command.callback
    for inner in (group or app).registered_groups:
        yield from commands(inner.typer_instance, f"{prefix}{inner.name} ")


def test_every_command_has_its_function() -> None:
    assert {name for name, _ in commands()} == COMMANDS.keys() | PRINTING


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_a_command_are_the_arguments_of_its_function(command: str) -> None:
    name, others = COMMANDS[command]
    called = dict(commands())[command]
    function = inspect.unwrap(getattr(optkit, name))
    options = {others.get(p, p): v for p, v in inspect.signature(called).parameters.items() if p not in SHOWING}
    given = inspect.signature(function).parameters
    assert options.keys() - OF_SELF_TEST == given.keys() - IN_PYTHON
    for key, parameter in given.items():
        if key in options and parameter.default is not parameter.empty:
            assert _plain(options[key].default) == _plain(parameter.default), key


def _plain(default: object) -> object:
    """A list that is not given is None on the command line, and an empty tuple or mapping in Python."""
    return None if default in ((), {}, [], None) else default


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_at_most_25_lines_and_no_logic(command: str) -> None:
    called = dict(commands())[command]
    function = ast.parse(inspect.getsource(called)).body[0]
    assert isinstance(function, ast.FunctionDef)
    body = function.body[1:]  # without its docstring
    statements = [node for statement in body for node in ast.walk(statement) if isinstance(node, ast.stmt)]
    assert len(statements) <= 25
    assert not [node for node in statements if isinstance(node, (ast.For, ast.While, ast.Try))]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_function_returns_the_record_that_the_command_prints(command: str) -> None:
    function = inspect.unwrap(getattr(optkit, COMMANDS[command][0]))
    returned = typing.get_type_hints(
        function, vars(importlib.import_module(function.__module__)) | {"torch": torch, "np": np}
    )["return"]
    assert issubclass(returned, Document)
    assert returned.model_config["frozen"]
