"""A model whose weights lie beside its graph, through the whole chain: the threshold is lowered so that a tiny one is large."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from optkit import onnx_file
from optkit.api.inspect import inspect
from optkit.api.make import make_file
from optkit.artifact import Artifact, Precision, passport_path
from optkit.artifact.gates import Gates
from optkit.checks import Prover, Requirements
from optkit.data import Samples
from optkit.errors import ArtifactError, RunnerError
from optkit.pipeline.steps import stage_step
from optkit.pytorch.source import make_source, open_artifact
from optkit.runners import open_runner
from optkit.serving import package_triton
from optkit.serving.settings import TritonServing
from optkit.stages import ConvertFp16, ExportOnnx, OptimizeOnnx, QuantizeDynamic, QuantizeStatic, Stage
from tests.support import zoo
from tests.support.project import files_below

HERE = Path(__file__).absolute()
THRESHOLD = 8000  # bytes; the model below has 40 kB of weights
EXPORTS = [ExportOnnx(exporter="dynamo"), ExportOnnx(exporter="torchscript")]
DERIVED: list[Stage] = [
    OptimizeOnnx(),
    ConvertFp16(),
    QuantizeDynamic(),
    QuantizeStatic(calibration=f"{HERE}:feeds"),
]


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32))


def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"input": rng.standard_normal((8, 32), np.float32)} for _ in range(4)]


@pytest.fixture(autouse=True)
def lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optkit.onnx_file.content.ONE_FILE_BYTES", THRESHOLD)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_source(
        f"{HERE}:build", tmp_path_factory.mktemp("source"), zoo.specs("input:float32[batch,32]"), zoo.BATCH
    )


@pytest.fixture(scope="module")
def large(source: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Return the exported model in two files. Do not change them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optkit.onnx_file.content.ONE_FILE_BYTES", THRESHOLD)
        return EXPORTS[0].run(source, tmp_path_factory.mktemp("large"))


@pytest.fixture
def copy(large: Artifact, tmp_path: Path) -> Path:
    """Return a copy of that model, free to be damaged."""
    return shutil.copytree(large.path.parent, tmp_path / "copy") / large.path.name


def answers(artifact: Artifact) -> np.ndarray:
    with open_runner(artifact) as runner:
        return runner.infer(feeds()[0])["output"]


@pytest.mark.parametrize("stage", EXPORTS, ids=lambda stage: stage.exporter)
def test_an_export_has_its_weights_in_one_file_beside_the_graph(
    stage: ExportOnnx, source: Artifact, tmp_path: Path
) -> None:
    made = stage.run(source, tmp_path, "net.onnx")
    assert files_below(tmp_path) == {"net.onnx", "net.onnx.data"}
    assert made.files == ("net.onnx.data",)
    assert made.path.stat().st_size < THRESHOLD < made.size_bytes
    np.testing.assert_allclose(answers(made), answers(source), atol=1e-5)


@pytest.mark.parametrize("stage", EXPORTS, ids=lambda stage: stage.exporter)
def test_an_export_below_the_threshold_is_one_file(
    stage: ExportOnnx, source: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optkit.onnx_file.content.ONE_FILE_BYTES", 50_000)
    assert stage.run(source, tmp_path).files == ()
    assert files_below(tmp_path) == {"model.onnx"}


@pytest.mark.parametrize("stage", DERIVED, ids=lambda stage: stage.stage)
def test_what_is_made_from_a_large_model_is_split_too_and_equals_that_of_a_small_one(
    stage: Stage, large: Artifact, source: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage.run(large, tmp_path / "large", "net.onnx")
    assert files_below(tmp_path / "large") == {"net.onnx", "net.onnx.data"}
    assert made.is_intact()
    assert (tmp_path / "large" / "net.onnx.data").stat().st_mode & 0o044 == 0o044 & made.path.stat().st_mode

    monkeypatch.setattr("optkit.onnx_file.content.ONE_FILE_BYTES", 50_000)
    small = stage.run(EXPORTS[0].run(source, tmp_path / "small"), tmp_path / "derived")
    assert small.files == ()
    assert small.notes == made.notes
    np.testing.assert_array_equal(answers(made), answers(small))


@pytest.mark.parametrize("stage", DERIVED, ids=lambda stage: stage.stage)
def test_a_command_moves_the_data_with_the_model(stage: Stage, large: Artifact, tmp_path: Path) -> None:
    output = tmp_path / "other.name.onnx"
    samples = Samples(large.inputs, large.dims)

    def make(force: bool = False) -> Artifact:
        made = make_file(stage, large, output, requirements=Requirements(), gates=Gates(), samples=samples, force=force)
        assert made.failures == ()
        assert made.parity is not None
        assert made.parity.passed
        return made.artifact

    make()
    assert files_below(tmp_path) == {output.name, f"{output.name}.data", passport_path(output).name}
    assert make(force=True).is_intact()
    inspection = inspect(output)
    assert inspection.onnx is not None
    assert inspection.onnx.files == inspection.artifact.files == (f"{output.name}.data",)
    assert inspection.size_bytes == output.stat().st_size + output.with_name(f"{output.name}.data").stat().st_size


def test_replacing_a_large_model_by_a_small_one_leaves_no_data_behind(
    large: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, samples = tmp_path / "net.onnx", Samples(large.inputs, large.dims)
    mine = tmp_path / "mine.data"
    mine.write_text("")
    for limit in (THRESHOLD, 50_000):
        monkeypatch.setattr("optkit.onnx_file.content.ONE_FILE_BYTES", limit)
        make_file(ConvertFp16(), large, output, requirements=Requirements(), gates=Gates(), samples=samples, force=True)
    assert files_below(tmp_path) == {"net.onnx", "net.onnx.passport.json", "mine.data"}
    assert open_artifact(output).files == ()


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [damage, Path.unlink], ids=["changed", "missing"])
def test_changed_or_missing_data_is_refused_like_the_model_itself(
    harm: Callable[[Path], None], large: Artifact, copy: Path, tmp_path: Path
) -> None:
    artifact = large.model_copy(update={"path": copy})
    assert artifact.is_intact()
    harm(copy.with_name("model.onnx.data"))
    assert not artifact.is_intact()
    with pytest.raises(ArtifactError, match=r"its file 'model\.onnx\.data' is missing|model\.onnx: has changed since"):
        package_triton(artifact, tmp_path / "repo", TritonServing(), name="m", independence=None, sample=None)
    assert not (tmp_path / "repo" / "m").exists()


def test_missing_data_is_refused_by_the_checker_and_the_runner(large: Artifact, copy: Path) -> None:
    copy.with_name("model.onnx.data").unlink()
    with pytest.raises(ArtifactError, match=r"external data 'model\.onnx\.data' is missing"):
        onnx_file.check(copy)
    with (
        pytest.raises(RunnerError, match=r"model\.onnx: ONNX Runtime cannot load it"),
        open_runner(large.model_copy(update={"path": copy})),
    ):
        pass


def test_a_step_is_made_again_when_its_data_has_changed(large: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "step"
    prover = Prover(large, Samples(large.inputs, large.dims), Requirements())
    made, reused = stage_step(ConvertFp16(), large, folder, prover)
    assert not reused
    assert stage_step(ConvertFp16(), large, folder, prover) == (made, True)
    damage(folder / "model.onnx.data")
    assert stage_step(ConvertFp16(), large, folder, prover)[1] is False
    assert files_below(folder) == {"model.onnx", "model.onnx.data", "model.onnx.passport.json"}


def test_triton_gets_a_folder_with_both_files(large: Artifact, tmp_path: Path) -> None:
    package_triton(large, tmp_path, TritonServing(batching=False), name="m", independence=None, sample=None)
    version = tmp_path / "m" / "1" / "model.onnx"
    assert files_below(version) == {"model.onnx", "model.onnx.data"}
    np.testing.assert_array_equal(answers(large.model_copy(update={"path": version / "model.onnx"})), answers(large))


def scattered(folder: Path) -> Path:
    """Write a model as the TorchScript exporter does above 2 GB: a file for each weight, and one for a constant of a node."""
    weight = numpy_helper.from_array(np.arange(4096, dtype=np.float32).reshape(64, 64), "weight")
    bias = numpy_helper.from_array(np.arange(512, dtype=np.float32), "unused")
    constant = numpy_helper.from_array(np.ones((1, 64 * 8), np.float32), "")
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["one"], value=constant),
            helper.make_node("MatMul", ["x", "weight"], ["h"]),
            helper.make_node("Tile", ["h", "times"], ["tiled"]),
            helper.make_node("Add", ["tiled", "one"], ["z"]),
            helper.make_node("Add", ["z", "unused"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 512])],
        [weight, bias, numpy_helper.from_array(np.array([1, 8]), "times")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=False, convert_attribute=True)
    return path


@pytest.mark.parametrize(("limit", "files"), [(THRESHOLD, ("model.onnx.data",)), (50_000, ())])
def test_scattered_data_is_gathered(
    limit: int, files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scattered(tmp_path)
    before = onnx_file.describe(path, zoo.BATCH)
    assert len(before.files) == 3
    x = {"x": np.random.default_rng(0).standard_normal((3, 64), np.float32)}
    with open_runner(before) as runner:
        expected = runner.infer(x)["y"]

    monkeypatch.setattr("optkit.onnx_file.content.ONE_FILE_BYTES", limit)
    onnx_file.gather(path)
    after = onnx_file.describe(path, zoo.BATCH)
    assert after.files == files
    assert files_below(tmp_path) == {"model.onnx", *files}
    onnx_file.check(path)
    with open_runner(after) as runner:
        np.testing.assert_array_equal(runner.infer(x)["y"], expected)


def test_a_graph_is_read_without_its_weights_but_with_its_constants(tmp_path: Path) -> None:
    model = onnx_file.load_graph(scattered(tmp_path))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    assert not tensors["weight"].raw_data
    assert list(tensors["weight"].dims) == [64, 64]
    assert numpy_helper.to_array(tensors["times"]).tolist() == [1, 8]
    assert numpy_helper.to_array(model.graph.node[0].attribute[0].t).shape == (1, 512)
    assert onnx.shape_inference.infer_shapes(model).graph.value_info


def test_fp16_of_a_large_model_notes_what_is_cut(large: Artifact, copy: Path, tmp_path: Path) -> None:
    model = onnx.load(copy)
    weight = next(t for t in model.graph.initializer if len(t.dims) == 2)
    values = numpy_helper.to_array(weight).copy()
    values[-1, -1], values[0, 0], values[0, 1], values[0, 2] = 1e6, np.inf, np.nan, 1e-12
    weight.raw_data = values.tobytes()
    onnx.save_model(model, copy, save_as_external_data=True, location="new.data")
    made = ConvertFp16().run(onnx_file.describe(copy, zoo.BATCH), tmp_path / "out")
    assert made.precision is Precision.FP16
    assert made.notes[1] == f"1 weights have values beyond FP16, clipped to 65504: {weight.name}"
    half = next(numpy_helper.to_array(t) for t in onnx.load(made.path).graph.initializer if t.name == weight.name)
    assert half.dtype == np.float16
    assert half[-1, -1] == 65504
    assert np.isinf(half[0, 0])
    assert np.isnan(half[0, 1])
    assert half[0, 2] > 0


def test_no_protobuf_holds_the_weights_of_a_large_model(
    large: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    serialize = onnx.save_model

    def spy(proto: onnx.ModelProto, *args: object, **options: object) -> None:
        sizes.append(proto.ByteSize())
        serialize(proto, *args, **options)

    monkeypatch.setattr(onnx, "save_model", spy)
    monkeypatch.setattr(onnx, "save", spy)
    ConvertFp16().run(large, tmp_path)
    assert sizes
    assert max(sizes) < 6000 < large.size_bytes / 4
