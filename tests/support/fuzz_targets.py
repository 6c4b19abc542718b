"""What reads files of others, with valid files to begin from."""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from optkit.api.compare import compare
from optkit.api.inspect import inspect
from optkit.artifact import Passport, passport_path
from optkit.artifact.findings import Tolerance
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.data import Feeds
from optkit.data.image_folder import ImageFolder
from optkit.pipeline.history import HistoryEntry, add_to_history, read_history
from optkit.pipeline.plan import make_plan
from optkit.pipeline.records import RunRecord
from optkit.pytorch.source import open_artifact
from optkit.pytorch.weights import load_weights
from optkit.recipe import load_recipe
from optkit.record import SEAL, seal_of
from optkit.serving.golden import Golden, read_golden, write_golden
from optkit.serving.migrate.archive import open_mar
from optkit.serving.migrate.repository import TorchServeBatching, plain_model
from optkit.serving.torchserve.config import installed_models, loaded_models
from optkit.serving.triton.config import read_config
from optkit.serving.triton.lint import lint
from tests.support import ROOT
from tests.support.fuzz import Target
from tests.support.project import CODE, RECIPE
from tests.support.repositories import onnx_linear, write_good
from tests.support.runs import run_record

BATCH = {"batch": DimRange(min=1, opt=2, max=4)}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def sealed(content: bytes) -> bytes:
    """Return a record with the hash of its content, so that more than the hash is checked."""
    try:
        found = json.loads(content)
        return json.dumps(found | {SEAL: seal_of(found)}).encode()
    except (ValueError, TypeError, AttributeError):
        return content


def recipes(folder: Path) -> Sequence[bytes]:
    (folder / "model.py").write_text(CODE)
    for code in (ROOT / "recipes").glob("*.py"):
        (folder / code.name).write_bytes(code.read_bytes())
    small = [file.read_bytes() for file in sorted((ROOT / "recipes").glob("*.yaml"))]
    serve = {
        "serve": [{"target": "triton"}, {"target": "torchserve", "workers": 2}],
        "gates": {"max_accuracy_drop": 0.1},
    }
    full = RECIPE | serve | {"data": {"calibration": "model.py:calibration", "evaluation": "model.py:evaluate"}}
    return [yaml.safe_dump(RECIPE).encode(), yaml.safe_dump(full).encode(), json.dumps(full).encode(), *small]


def read_recipe(folder: Path, content: bytes) -> object:
    recipe = load_recipe(write(folder / "recipe.yaml", content))
    try:
        plan = make_plan(recipe, folder / "out")
    finally:
        recipe.model_dump_json()
    return plan.to_json(), str(plan)


def onnx_files(folder: Path) -> Sequence[bytes]:
    (folder / "w.bin").write_bytes(bytes(8192))
    from tests.support.hostile import model

    return [onnx_linear(), model({"location": "w.bin", "offset": "0", "length": "2048"}).SerializeToString()]


def read_onnx(folder: Path, content: bytes) -> object:
    found = inspect(write(folder / "model.onnx", content))
    return found.to_json(), str(found)


def passports(folder: Path) -> Sequence[bytes]:
    model = write(folder / "p.onnx", onnx_linear())
    artifact = open_artifact(model, BATCH)
    step = run_record().steps[0]
    Passport(artifact=artifact, stage="x", settings={"a": 1}, parity=step.parity, accuracy=step.accuracy).save()
    return [passport_path(model).read_bytes()]


def read_passport(folder: Path, content: bytes) -> object:
    write(passport_path(folder / "p.onnx"), sealed(content))
    found = inspect(folder / "p.onnx")
    return found.to_json(), str(found)


def runs(folder: Path) -> Sequence[bytes]:
    run_record().write(folder / "good.json")
    return [(folder / "good.json").read_bytes()]


def read_run(folder: Path, content: bytes) -> object:
    path = write(folder / "run.json", sealed(content))
    record = RunRecord.read(path)
    return str(record), record.to_json(), str(compare(path, folder / "good.json", across_machines=True))


def histories(folder: Path) -> Sequence[bytes]:
    for number in range(3):
        add_to_history(folder / "history.jsonl", HistoryEntry.of(run_record(created=f"2026-11-30T00:00:0{number}Z")))
    return [(folder / "history.jsonl").read_bytes()]


def npz(folder: Path) -> Sequence[bytes]:
    found = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, x=np.ones((2, 4), np.float32))
        found.append(stream.getvalue())
    arrays = {"x": np.ones((2, 4), np.float32)}
    write_golden(Golden(arrays, arrays, Tolerance()), folder / "golden.npz")
    return [*found, (folder / "golden.npz").read_bytes()]


def read_npz(folder: Path, content: bytes) -> object:
    path = write(folder / "x.npz", content)
    golden = read_golden(path, Tolerance())
    if golden.inputs:
        return golden
    return list(Feeds(str(path), (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),)))


def state_dicts(folder: Path) -> Sequence[bytes]:
    del folder
    found = []
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        stream = io.BytesIO()
        torch.save(torch.nn.Linear(4, 3).state_dict(), stream, **options)
        found.append(stream.getvalue())
    from safetensors.torch import save

    return [*found, save(torch.nn.Linear(4, 3).state_dict())]


def read_state_dict(folder: Path, content: bytes) -> object:
    name = "w.safetensors" if b'"dtype"' in content[:300] else "w.pt"
    return load_weights(torch.nn.Linear(4, 3), write(folder / name, content))


def archives(folder: Path) -> Sequence[bytes]:
    del folder
    specs = [
        {"name": name, "dtype": "float32", "shape": ["batch", size]} for name, size in (("input", 4), ("output", 3))
    ]
    contract = {"inputs": specs[:1], "outputs": specs[1:], "dims": {"batch": [1, 4]}, "classes": None, "image": None}
    found = []
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        model = {
            "modelName": "m",
            "handler": "optkit_handler.py",
            "serializedFile": "model.onnx",
            "configFile": "model-config.yaml",
        }
        members = {
            "MAR-INF/MANIFEST.json": json.dumps({"model": model, "runtime": "python"}).encode(), "contract.json": json.dumps(contract).encode(),
            "optkit_handler.py": b"", "model.onnx": onnx_linear(), "model-config.yaml": b"batchSize: 2\nminWorkers: 1\n",
        }  # fmt: skip
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", kind) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        found.append(stream.getvalue())
    return found


def read_archive(folder: Path, content: bytes) -> object:
    import shutil

    shutil.rmtree(folder / "unpacked", ignore_errors=True)
    (folder / "unpacked").mkdir()
    mar = open_mar(write(folder / "m.mar", content), folder / "unpacked")
    TorchServeBatching.of(mar, folder / "config.properties", batching=True).serving(mar.name)
    return plain_model(mar, {}, ())


def members(folder: Path) -> Sequence[bytes]:
    """The texts inside of an archive, one after the other."""
    manifest = {
        "model": {
            "modelName": "m",
            "handler": "optkit_handler.py",
            "serializedFile": "model.onnx",
            "configFile": "c.yaml",
        }
    }
    specs = [
        {"name": name, "dtype": "float32", "shape": ["batch", size]} for name, size in (("input", 4), ("output", 3))
    ]
    contract = {"inputs": specs[:1], "outputs": specs[1:], "dims": {"batch": [1, 4]}, "classes": None, "image": None}
    del folder
    return [json.dumps([manifest, contract, {"batchSize": 2, "maxBatchDelay": 5}]).encode()]


def read_members(folder: Path, content: bytes) -> object:
    try:
        texts: Any = json.loads(content)
        parts = [json.dumps(part).encode() for part in texts] if isinstance(texts, list) else [content]
    except ValueError:
        parts = [content]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, part in zip(("MAR-INF/MANIFEST.json", "contract.json", "c.yaml"), parts, strict=False):
            archive.writestr(name, part)
        archive.writestr("optkit_handler.py", b"")
        archive.writestr("model.onnx", onnx_linear())
    return read_archive(folder, stream.getvalue())


def configurations(folder: Path) -> Sequence[bytes]:
    write_good(folder / "models")
    return [path.read_bytes() for path in sorted((folder / "models").glob("*/config.pbtxt"))]


def read_configuration(folder: Path, content: bytes) -> object:
    write(folder / "models" / "classifier" / "config.pbtxt", content)
    record = lint(folder / "models")
    str(record), record.to_json()
    return read_config(folder / "models" / "classifier" / "config.pbtxt")


def properties(folder: Path) -> Sequence[bytes]:
    del folder
    models = {"a": {"1.0": {"marName": "a.mar", "batchSize": 2}}}
    return [
        f"# x\ninference_address=http://127.0.0.1:8080\nload_models=a.mar,b=c.mar\nmodels={json.dumps(models)}\n".encode()
    ]


def read_properties(folder: Path, content: bytes) -> object:
    path = write(folder / "config.properties", content)
    return installed_models(path), loaded_models(path)


def images(folder: Path) -> Sequence[bytes]:
    from PIL import Image

    (folder / "photos").mkdir()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(folder / "photos" / "a.png")
    return [
        b"images: photos\nresize: 8\ncrop: 4\nmean: [0.5, 0.5, 0.5]\nstd: [0.5, 0.5, 0.5]\n",
        b'{"images": "photos", "resize": 8, "crop": 4, "mode": "RGB"}',
    ]


IMAGE = (TensorSpec(name="image", dtype="float32", shape=("batch", 3, "h", "w")),)


def read_images(folder: Path, content: bytes) -> object:
    found = ImageFolder.from_file(write(folder / "images.yaml", content))
    found.sha256()
    return list(Feeds(str(folder / "images.yaml"), IMAGE))


def pictures(folder: Path) -> Sequence[bytes]:
    from PIL import Image

    (folder / "photos").mkdir()
    (folder / "images.yaml").write_text("images: photos\nresize: 8\ncrop: 4\n")
    found = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        stream = io.BytesIO()
        Image.new("RGB", (16, 16), (1, 2, 3)).save(stream, kind)
        found.append(stream.getvalue())
    return found


def read_picture(folder: Path, content: bytes) -> object:
    write(folder / "photos" / "a.png", content)
    return list(Feeds(str(folder / "images.yaml"), IMAGE))


def read_lines(folder: Path, content: bytes) -> object:
    return read_history(write(folder / "history.jsonl", content))


TARGETS = (
    Target("recipes", recipes, read_recipe), Target("onnx", onnx_files, read_onnx), Target("passports", passports, read_passport),
    Target("runs", runs, read_run), Target("histories", histories, read_lines), Target("npz", npz, read_npz),
    Target("state dicts", state_dicts, read_state_dict), Target("archives", archives, read_archive), Target("members", members, read_members),
    Target("configurations", configurations, read_configuration), Target("properties", properties, read_properties),
    Target("image folders", images, read_images), Target("pictures", pictures, read_picture),
)  # fmt: skip
