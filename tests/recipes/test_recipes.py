"""The models and data of the recipes that need no download."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from optkit import user_code
from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange, Feed, TensorSpec
from optkit.pytorch.source import make_source
from optkit.pytorch.weights import state_sha256
from optkit.runners import open_runner
from optkit.stages import ExportOnnx, QuantizeStatic
from tests.support import RECIPES
from tests.support.needs import NARROW

DIMS = {"batch": DimRange(min=1, opt=8, max=64)}
INPUTS = {"digits": "image:float32[batch,1,8,8]", "churn": "input:float32[batch,4]"}
OUTPUT = {"digits": "logits", "churn": "output"}  # as the recipe names it
METHODS = ("minmax", "entropy", "percentile")


def recipe(name: str) -> ModuleType:
    """Return the recipe's module, the very one that optkit imports."""
    return sys.modules[user_code.load(f"{RECIPES / name}.py:build").__module__]


@pytest.fixture(scope="module", params=INPUTS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Artifact]:
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    inputs = [TensorSpec.parse(INPUTS[name])]
    source = make_source(f"{RECIPES / name}.py:build", folder, inputs, DIMS, outputs=(OUTPUT[name],))
    return name, ExportOnnx(exporter="torchscript", opset=17).run(source, folder)


def answers(artifact: Artifact, feeds: list[Feed], evaluate: Callable[..., float]) -> tuple[np.ndarray, float]:
    with open_runner(artifact) as runner:
        return np.concatenate([next(iter(runner.infer(feed).values())) for feed in feeds]), evaluate(runner.infer)


def test_static_int8_keeps_the_accuracy_by_every_method(exported: tuple[str, Artifact], tmp_path: Path) -> None:
    """On real data no method may lose what min-max keeps; the search for the entropy once lost 31 dB here."""
    name, model = exported
    module = recipe(name)
    feeds = module.calibration()
    reference, accuracy = answers(model, feeds, module.evaluate)
    assert accuracy >= (0.97 if name == "digits" else 0.9)
    sqnr_db: dict[str, float] = {}
    for method in METHODS:
        stage = QuantizeStatic(method=method, calibration=f"{RECIPES / name}.py:calibration", reduce_range=NARROW)
        quantized, found = answers(stage.run(model, tmp_path / method), feeds, module.evaluate)
        sqnr_db[method] = 10 * np.log10(np.sum(reference**2) / np.sum((quantized - reference) ** 2))
        assert found >= accuracy - 0.01
    assert sqnr_db["minmax"] > 30
    assert min(sqnr_db["entropy"], sqnr_db["percentile"]) > sqnr_db["minmax"] - 0.5


@pytest.mark.parametrize("name", INPUTS)
def test_training_is_the_same_each_time_and_leaves_nothing_behind(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = recipe(name)
    monkeypatch.setattr(module, *(("EPOCHS", 1) if name == "digits" else ("STEPS", 5)))
    train = module.build.__wrapped__  # past the cache
    threads = torch.get_num_threads()
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        states.append(state_sha256(train()))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert states[0] == states[1]
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", INPUTS)
def test_calibration_data_is_none_of_the_test_data(name: str) -> None:
    module = recipe(name)
    key = INPUTS[name].partition(":")[0]
    seen = np.concatenate([feed[key] for feed in module.calibration()])
    tested: list[np.ndarray] = []

    def predict(feed: Feed) -> dict[str, np.ndarray]:
        assert len(feed[key]) <= 64
        tested.append(feed[key])
        return {OUTPUT[name]: np.zeros((len(feed[key]), 10), np.float32)}

    module.evaluate(predict)
    rows = {row.tobytes() for row in seen}
    assert len(seen) >= 256
    assert not any(row.tobytes() in rows for batch in tested for row in batch)
