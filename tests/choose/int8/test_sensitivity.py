"""The fewest layers stay in float, found on one model with switches and confirmed by trying every choice on real files."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.artifact.findings import Quantization
from optkit.checks import Prover, Requirements
from optkit.checks.parity import sqnr_db
from optkit.choose.int8.holdout import HOLDOUT, RANKING, split
from optkit.choose.int8.mixed_precision import MixedPrecisionModel
from optkit.choose.int8.sensitivity import cosine_metric, rank
from optkit.choose.stage import run_stage
from optkit.data import Feeds, Samples
from optkit.errors import ModelError, StageError
from optkit.pytorch.source import make_source
from optkit.quantization.ort_quantizer import quantizing
from optkit.runners import open_runner
from optkit.stages import ExportOnnx, QuantizeDynamic, QuantizeStatic
from tests.support import zoo

FEEDS = f"{zoo.HERE}:conv_feeds"
# Kernels with unsigned weights are exact on every processor; without VNNI those with signed ones saturate, or have 7 bits.
STATIC = QuantizeStatic(
    calibration=FEEDS, activation_type="uint8", weight_type="uint8", format="qdq", reduce_range=False
)
LIMIT = 0.9995

CODE = """
import numpy as np
right = None
def evaluate(predict):
    global right
    x = np.random.default_rng(7).standard_normal((16, 1, 6, 6)).astype(np.float32)
    found = predict({'input': x})['output'].ravel()
    right = found if right is None else right
    return float(np.corrcoef(right, found)[0, 1])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("sensitive")
    module = make_source(f"{zoo.HERE}:sensitive", folder, zoo.specs("input:float32[batch,1,6,6]"), zoo.BATCH)
    return ExportOnnx(exporter="torchscript", opset=17).run(module, folder / "onnx")


def prover(source: Artifact, evaluation: str | None = None) -> Prover:
    samples = Samples(source.inputs, source.dims, Feeds(FEEDS, source.inputs))
    return Prover(source, samples, Requirements(evaluation=evaluation))


def convolutions(source: Artifact) -> list[str]:
    return [node.name for node in onnx_file.load(source.path).graph.node if node.op_type == "Conv"]


def kept_of(source: Artifact, stage: QuantizeStatic, folder: Path) -> Quantization:
    made = run_stage(stage, source, folder / "out", prover(source))
    assert made.quantization is not None
    return made.quantization


def test_the_switches_give_what_the_quantized_file_gives(source: Artifact, tmp_path: Path) -> None:
    feed = zoo.conv_feeds()[0]
    found: dict[bool, tuple[float, float, float]] = {}  # noise of the file, of the switches, between the two
    with quantizing(source, tmp_path) as prepared:
        nodes = STATIC.nodes(onnx_file.load(prepared, weights=False).graph)
        ranges = STATIC.calibrated(prepared, source).ranges
        full = STATIC.write(prepared, ranges, source, tmp_path / "full.onnx")
        third = convolutions(source)[2]
        but_one = STATIC.model_copy(update={"exclude": (third,)}).write(prepared, ranges, source, tmp_path / "one.onnx")
        with (
            MixedPrecisionModel(source, prepared, full.path, [node.name for node in nodes]) as model,
            open_runner(source) as right,
            open_runner(full) as int8,
            open_runner(but_one) as mixed,
        ):
            expected = right.infer(feed)["output"]

            for kept, runner in ((frozenset[str](), int8), (frozenset({third}), mixed)):
                model.kept = kept
                file, switched = runner.infer(feed)["output"], model.infer(feed)["output"]
                found[bool(kept)] = (db(expected, file), db(expected, switched), db(file, switched))
            model.kept = frozenset(layer.name for layer in model.layers)
            assert db(expected, model.infer(feed)["output"]) > 100
    for file_db, switched_db, between_db in found.values():
        assert file_db == pytest.approx(switched_db, abs=1)
        assert between_db > file_db + 6  # far nearer to each other than to the float outputs


def db(reference: np.ndarray, candidate: np.ndarray) -> float:
    ratio = sqnr_db(reference, candidate)
    return np.inf if ratio is None else ratio


def test_a_layer_left_in_float_is_not_quantized_again_by_onnx_runtime(source: Artifact, tmp_path: Path) -> None:
    """Its optimizer WeightBiasQuantization takes the Q/DQ nodes of the neighbours for those of the layer."""
    third = convolutions(source)[2]
    made = STATIC.model_copy(update={"exclude": (third,)}).run(source, tmp_path / "out")
    bare = onnx.load(made.path)
    (held,) = [node for node in bare.graph.node if node.op_type == "Sum"]
    next(node for node in bare.graph.node if node.name == third).input[0] = held.input[0]
    bare.graph.node.remove(held)
    feed = zoo.conv_feeds()[0]
    with open_runner(source) as right, open_runner(made) as runner:
        expected = right.infer(feed)["output"]
        assert db(expected, runner.infer(feed)["output"]) > 30
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    trap = onnxruntime.InferenceSession(bare.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert db(expected, trap.run(None, feed)[0]) < 5


def test_the_sensitive_layer_is_ranked_first(source: Artifact, tmp_path: Path) -> None:
    with quantizing(source, tmp_path) as prepared:
        nodes = STATIC.nodes(onnx_file.load(prepared, weights=False).graph)
        full = STATIC.write(prepared, STATIC.calibrated(prepared, source).ranges, source, tmp_path / "full.onnx")
        with MixedPrecisionModel(source, prepared, full.path, [node.name for node in nodes]) as model:
            shares = model.time_shares(zoo.conv_feeds()[0])
            effects = rank(model, zoo.conv_feeds()[:2])
    assert sum(shares.values()) == pytest.approx(1)
    third = convolutions(source)[2]
    assert min(effects, key=lambda name: effects[name] or np.inf) == third
    assert (effects[third] or 0) < 15 < min(value or 0 for name, value in effects.items() if name != third)


@pytest.mark.parametrize("limit", [0.95, LIMIT, 0.99992])
def test_no_smaller_choice_of_layers_reaches_the_limit(limit: float, source: Artifact, tmp_path: Path) -> None:
    found = kept_of(source, STATIC.model_copy(update={"min_cosine": limit}), tmp_path)
    assert found.value is not None
    assert found.value >= limit
    assert found.exclude
    names = convolutions(source)
    with open_runner(source) as right:
        metric = cosine_metric(right.infer, split(Feeds(FEEDS, source.inputs), holdout=True)[1], limit)
    with quantizing(source, tmp_path) as prepared:
        ranges = STATIC.calibrated(prepared, source).ranges
        for count in range(len(found.exclude)):
            for kept in itertools.combinations(names, count):
                stage = STATIC.model_copy(update={"exclude": kept})
                smaller = stage.write(
                    prepared, ranges, source, tmp_path / f"{'-'.join(map(str, map(names.index, kept)))}.onnx"
                )
                with open_runner(smaller) as runner:
                    assert not metric.accepts(metric.value(runner.infer)), kept


def test_the_culprit_alone_stays_in_float_and_the_record_tells_all(source: Artifact, tmp_path: Path) -> None:
    made = run_stage(STATIC.model_copy(update={"min_cosine": LIMIT}), source, tmp_path / "out", prover(source))
    found = made.quantization
    assert found is not None
    third = convolutions(source)[2]
    assert found.exclude == (third,)
    assert [layer.kept for layer in found.layers] == [True, False, False, False]
    assert {layer.op for layer in found.layers} == {"Conv"}
    assert found.layers[0].size_bytes == 4 * 8 * 8 * 3 * 3
    assert [point.kept for point in found.frontier] == sorted(point.kept for point in found.frontier)
    assert all(point.predicted_ms is not None for point in found.frontier)
    assert any(f"1 of 4 layers stay in float to reach it: {third}" in note for note in made.notes)
    integers = onnx_file.facts(made.path).nodes["DequantizeLinear"]
    assert integers < onnx_file.facts(STATIC.run(source, tmp_path / "full").path).nodes["DequantizeLinear"]


def test_max_drop_is_held_by_the_users_function(source: Artifact, tmp_path: Path) -> None:
    (tmp_path / "e.py").write_text(CODE)
    checker = prover(source, f"{tmp_path}/e.py:evaluate")
    made = run_stage(STATIC.model_copy(update={"max_drop": 0.0005}), source, tmp_path / "out", checker)
    assert made.quantization is not None
    assert made.quantization.exclude == (convolutions(source)[2],)
    assert made.quantization.metric == "e.py:evaluate"
    loose = run_stage(STATIC.model_copy(update={"max_drop": 0.9}), source, tmp_path / "loose", checker)
    assert loose.quantization is not None
    assert loose.quantization.layers == ()
    assert any("no layer stays in float" in note for note in loose.notes)


def test_dynamic_quantization_leaves_layers_out_too(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    m = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))\n"
        "    m[0].bias.data[0] = 1000.0\n"  # one activation of 1000, which the next layer multiplies by zero
        "    m[2].weight.data[:, 0] = 0\n"
        "    return m\n"
        "def feeds():\n"
        "    return [{'x': torch.randn(8, 8, generator=torch.Generator().manual_seed(i)).numpy()} for i in range(6)]\n"
    )
    module = make_source(f"{tmp_path}/m.py:build", tmp_path, zoo.specs("x:float32[batch,8]"), zoo.BATCH)
    source = ExportOnnx(exporter="torchscript", opset=17).run(module, tmp_path / "onnx")
    samples = Samples(source.inputs, source.dims, Feeds(f"{tmp_path}/m.py:feeds", source.inputs))
    checker = Prover(source, samples, Requirements())
    made = run_stage(QuantizeDynamic(min_cosine=0.999), source, tmp_path / "out", checker)
    assert made.quantization is not None
    (kept,) = made.quantization.exclude
    layers = [node.name for node in onnx_file.load(source.path).graph.node if node.op_type == "Gemm"]
    assert kept == layers[1]


def test_a_limit_that_only_float_reaches_is_a_negative_verdict(source: Artifact, tmp_path: Path) -> None:
    found = kept_of(source, STATIC.model_copy(update={"min_cosine": 0.99999999}), tmp_path)
    assert found.failure is not None
    assert "only the model with every layer in float reaches it" in found.failure


def test_a_limit_that_nothing_reaches_is_a_negative_verdict(source: Artifact, tmp_path: Path) -> None:
    (tmp_path / "e.py").write_text(
        "n = 0\ndef evaluate(predict):\n    global n\n    n += 1\n    return 1.0 if n == 1 else 0.5\n"
    )
    checker = prover(source, f"{tmp_path}/e.py:evaluate")
    made = run_stage(STATIC.model_copy(update={"max_drop": 0.1}), source, tmp_path / "out", checker)
    assert made.quantization is not None
    assert made.quantization.failure == (
        "e.py:evaluate: 0.5 even with every layer in float; the limit is 0.9. No choice of layers reaches it."
    )


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise KeyError('label')", r"raised .*KeyError: 'label'"),
        ("return float('nan')", r"returned nan; expected a finite number"),
    ],
)
def test_an_evaluation_that_fails_is_an_error_and_leaves_nothing(
    body: str, says: str, source: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "e.py").write_text(f"def evaluate(predict):\n    {body}\n")
    with pytest.raises(ModelError, match=says):
        run_stage(
            STATIC.model_copy(update={"max_drop": 0.1}),
            source,
            tmp_path / "out",
            prover(source, f"{tmp_path}/e.py:evaluate"),
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_ranking_needs_real_samples_and_more_than_one(source: Artifact, tmp_path: Path) -> None:
    bare = Prover(source, Samples(source.inputs, source.dims), Requirements())
    with pytest.raises(StageError, match=r"^quantize-static: ranking the layers needs real samples"):
        run_stage(STATIC.model_copy(update={"min_cosine": 0.99}), source, tmp_path / "out", bare)
    with pytest.raises(StageError, match=r"max_drop 0\.1: nothing measures accuracy"):
        run_stage(STATIC.model_copy(update={"max_drop": 0.1}), source, tmp_path / "out", prover(source))
    (tmp_path / "one.py").write_text("import numpy as np\nfeeds = [{'input': np.ones((1, 1, 6, 6), np.float32)}]\n")
    with pytest.raises(StageError, match=r"gave one sample; expected at least two"):
        split(Feeds(f"{tmp_path}/one.py:feeds", source.inputs), holdout=True)


def test_samples_that_rank_layers_are_not_in_the_holdout(source: Artifact, tmp_path: Path) -> None:
    ranking, holdout = split(Feeds(FEEDS, source.inputs), holdout=True)
    seen = {feed["input"].tobytes() for feed in ranking}
    assert ranking
    assert holdout
    assert not seen & {feed["input"].tobytes() for feed in holdout}
    (tmp_path / "one.py").write_text(
        "import numpy as np\nfeeds = [{'input': np.arange(5 * 36, dtype=np.float32).reshape(5, 1, 6, 6)}]\n"
    )
    ranking, holdout = split(Feeds(f"{tmp_path}/one.py:feeds", source.inputs), holdout=True)
    assert [len(feed["input"]) for feed in (*ranking, *holdout)] == [2, 3]


def test_a_huge_batch_is_cut_to_the_samples_that_are_enough(source: Artifact, tmp_path: Path) -> None:
    (tmp_path / "huge.py").write_text(
        "import numpy as np\nfeeds = [{'input': np.arange(36 * 4096, dtype=np.float32).reshape(4096, 1, 6, 6)}]\n"
    )
    ranking, holdout = split(Feeds(f"{tmp_path}/huge.py:feeds", source.inputs), holdout=True)
    assert [len(feed["input"]) for feed in (*ranking, *holdout)] == [32, 256]
    assert ranking[0]["input"].max() < holdout[0]["input"].min()


@pytest.mark.parametrize(
    ("shape", "ranked", "measured"), [((1, 8, 8), 32, 256), ((3, 96, 96), 32, 151), ((3, 224, 224), 8, 32)]
)
def test_fewer_samples_are_enough_where_they_are_large(shape: tuple[int, ...], ranked: int, measured: int) -> None:
    feed = {"image": np.zeros((2, *shape), np.float32)}
    assert (RANKING.of(feed), HOLDOUT.of(feed)) == (ranked, measured)
