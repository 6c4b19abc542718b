"""The image classifier: what its functions give, the five best classes of its archive, and the whole recipe."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from optkit import user_code
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import check_feed
from optkit.pytorch.forward import torchscript_notices_off
from optkit.pytorch.source import make_source
from optkit.pytorch.weights import state_sha256
from optkit.recipe import load_recipe
from optkit.serving import TorchServeServing, TritonServing, package_torchserve, package_triton
from optkit.stages import ExportOnnx, ExportTorchScript
from tests.support import RECIPES

FILE = RECIPES / "resnet.yaml"
CODE = FILE.with_suffix(".py")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RECIPE = load_recipe(FILE)


@pytest.fixture
def module() -> ModuleType:
    return sys.modules[user_code.load(f"{CODE}:build").__module__]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a factory that skips the training, whose answers do not matter here."""
    file = tmp_path_factory.mktemp("untrained") / "untrained.py"
    (file.parent / "resnet.py").write_bytes(CODE.read_bytes())
    file.write_text("from resnet import ResNet18\n\ndef build():\n    return ResNet18(10).eval()\n")
    return file


def test_the_architecture_is_the_usual_one(module: ModuleType) -> None:
    model = module.ResNet18(1000)
    assert sum(p.numel() for p in model.parameters()) == 11_689_512  # as torchvision documents for resnet18
    keys = set(model.state_dict())
    assert {"conv1.weight", "layer2.0.downsample.0.weight", "layer4.1.bn2.running_var", "fc.bias"} <= keys
    assert model.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


def test_data_fits_the_declared_inputs_and_calibration_is_none_of_the_test(module: ModuleType) -> None:
    feeds = module.calibration()
    assert sum(len(feed["image"]) for feed in feeds) == 256
    tested = []

    def perfect(feed):
        check_feed(feed, RECIPE.inputs, RECIPE.dims)
        start = sum(map(len, tested))
        tested.append(feed["image"])
        return {"logits": np.eye(10)[module.digits()[3][start : start + len(feed["image"])]]}

    assert module.evaluate(perfect) == 1
    seen = set()
    for feed in feeds:
        check_feed(feed, RECIPE.inputs, RECIPE.dims)
        assert 0 <= feed["image"].min() < feed["image"].max() <= 1
        seen |= {row.tobytes() for row in feed["image"]}
    assert not any(row.tobytes() in seen for batch in tested for row in batch)


def test_training_is_the_same_each_time_and_leaves_nothing_behind(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test, labels, answers = module.digits()
    monkeypatch.setattr(module, "digits", lambda: (train[:32], test, labels[:32], answers))
    monkeypatch.setattr(module, "TRAINING_BATCH", 16)
    threads = torch.get_num_threads()
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        states.append(state_sha256(module.build.__wrapped__()))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert states[0] == states[1]
    assert torch.get_num_threads() == threads


def test_the_archive_answers_with_the_five_most_probable_classes(
    module: ModuleType, untrained: Path, tmp_path: Path
) -> None:
    [settings] = [s for s in RECIPE.serve if isinstance(s, TorchServeServing) and s.image is None]
    assert settings.class_names == NAMES
    source = make_source(f"{untrained}:build", tmp_path / "s", RECIPE.inputs, RECIPE.dims, outputs=RECIPE.outputs)
    script = ExportTorchScript().run(source, tmp_path / "script")
    proof = BatchIndependence(dim="batch")
    packed = package_torchserve(script, tmp_path / "store", settings, name="resnet", independence=proof)
    with zipfile.ZipFile(packed.path) as archive:
        archive.extractall(tmp_path / "unpacked")

    spec = importlib.util.spec_from_file_location("handler_of_resnet", tmp_path / "unpacked/optkit_handler.py")
    handler_module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(handler_module)
    handler = handler_module.ModelHandler()
    context = SimpleNamespace(
        manifest=json.loads((tmp_path / "unpacked/MAR-INF/MANIFEST.json").read_text()),
        system_properties={"model_dir": str(tmp_path / "unpacked"), "gpu_id": None},
        set_response_content_type=lambda i, kind: None,
    )
    with torchscript_notices_off():
        handler.initialize(context)
        image = module.digits()[1][0]
        [answer] = json.loads(json.dumps(handler.handle([{"body": {"image": image.tolist()}}], context)))
        with torch.inference_mode():
            scores = torch.jit.load(script.path)(torch.from_numpy(image)[None])[0].double().softmax(0)
    best = scores.topk(5)
    assert [row["class"] for row in answer["classes"]] == [NAMES[i] for i in best.indices]
    np.testing.assert_allclose([row["probability"] for row in answer["classes"]], best.values, rtol=1e-5)


def test_the_triton_entry_makes_a_repository(module: ModuleType, untrained: Path, tmp_path: Path) -> None:
    [settings] = [s for s in RECIPE.serve if isinstance(s, TritonServing)]
    source = make_source(f"{untrained}:build", tmp_path / "s", RECIPE.inputs, RECIPE.dims, outputs=RECIPE.outputs)
    model = ExportOnnx(exporter="torchscript", opset=20).run(source, tmp_path / "onnx")
    proof = BatchIndependence(dim="batch")
    feed = module.calibration()[0]
    package_triton(model, tmp_path / "repository", settings, name="resnet", independence=proof, sample=feed)
    config = (tmp_path / "repository/resnet/config.pbtxt").read_text()
    assert "max_batch_size: 16" in config
    assert "dynamic_batching {" in config


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
    accuracy = {
        passport.parent.name: json.loads(passport.read_text())["accuracy"]["value"]
        for passport in tmp_path.glob("*/*.passport.json")
    }
    assert set(accuracy) == {"source", "export-torchscript", "export-onnx", "convert-fp16", "quantize-static"}
    assert min(accuracy.values()) > 0.94
    assert (tmp_path / "model_repository/resnet/config.pbtxt").is_file()
    assert (tmp_path / "model_store/resnet.mar").is_file()
