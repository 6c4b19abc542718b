"""Archives as people make them for TorchServe, each with a request; made with zipfile, as the official archiver does."""

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from optkit.pytorch.forward import torchscript_notices_off

CLASS_HANDLER = """
import torch
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import map_class_to_label

class Classifier(BaseHandler):
    def preprocess(self, data):
        rows = [row.get("data") or row.get("body") for row in data]
        return torch.tensor([row["pixels"] for row in rows], dtype=torch.float32)

    def postprocess(self, outputs):
        probabilities = torch.softmax(outputs, 1).tolist()
        if self.mapping:
            return map_class_to_label([[p] for p in probabilities], self.mapping, [[list(range(3))]] * len(probabilities))
        return probabilities
"""

LABELS = """
import torch
from ts.torch_handler.base_handler import BaseHandler

class Labels(BaseHandler):
    def preprocess(self, data):
        return torch.tensor([row["body"]["pixels"] for row in data], dtype=torch.float32)

    def postprocess(self, outputs):
        return [{"label": self.mapping[str(int(i))], "of": len(outputs)} for i in outputs.argmax(1)]
"""

PLAIN_CLASS = """
import json, os, logging
import torch

class Own:
    def initialize(self, context):
        properties = context.system_properties
        self.model = torch.jit.load(os.path.join(properties["model_dir"], context.manifest["model"]["serializedFile"]))
        with open(os.path.join(properties["model_dir"], "scale.json")) as f:
            self.scale = json.load(f)["scale"]
        assert properties["gpu_id"] is None
        context.metrics.add_counter("Loaded", 1)

    def handle(self, data, context):
        answers = []
        for i, row in enumerate(data):
            body = row.get("body")
            if not isinstance(body, str):
                context.set_response_status(400, "Bad Request", i)
                answers.append("expected text")
                continue
            x = torch.tensor([[float(v) for v in body.split(",")]])
            context.set_response_content_type(i, "text/plain")
            answers.append(",".join(f"{v:.4f}" for v in (self.model(x) * self.scale)[0].tolist()))
        return answers
"""

FUNCTION = """
import os
import torch
model = None

def answer(data, context):
    global model
    if data is None:
        path = os.path.join(context.system_properties["model_dir"], context.manifest["model"]["serializedFile"])
        model = torch.jit.load(path)
        return None
    return [model(torch.tensor([row["body"]])).tolist()[0] for row in data]
"""

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x)
"""


class Net(torch.nn.Module):
    """The model of every archive."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return three scores."""
        return self.linear(x)


@dataclass(frozen=True)
class Made:
    """An archive with a request that its handler answers."""

    path: Path
    body: bytes
    content_type: str


def write(path: Path, model: Mapping[str, str], members: Mapping[str, bytes]) -> Path:
    """Write an archive with a manifest as the official archiver makes it."""
    described = {"modelName": path.stem, "modelVersion": "1.0", **model}
    manifest = {
        "createdOn": "23/11/2026 10:00:00",
        "runtime": "python",
        "model": described,
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def saved(folder: Path, save: Callable[[Path], None]) -> bytes:
    """Return what a function writes to a file."""
    path = folder / "saved"
    save(path)
    return path.read_bytes()


def make_all(folder: Path) -> dict[str, Made]:
    """Return name -> archive: of a base handler's subclass, class names, a plain class, a function, weights with a model file."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    torch.manual_seed(0)
    model = Net().eval()
    with torchscript_notices_off():
        script = saved(scratch, lambda path: torch.jit.script(model).save(str(path)))
    weights = saved(scratch, lambda path: torch.save(model.state_dict(), path))
    pixels = json.dumps({"pixels": [0.5, -1.0, 2.0, 0.25]}).encode()
    names = json.dumps({"0": "cat", "1": "dog", "2": "bird"}).encode()
    batch = b"batchSize: 4\nmaxBatchDelay: 50\nminWorkers: 1\nmaxWorkers: 1\n"
    torchscript = {"serializedFile": "model.pt"}
    return {
        "base": Made(
            write(
                folder / "base.mar",
                torchscript | {"handler": "classifier.py"},
                {"model.pt": script, "classifier.py": CLASS_HANDLER.encode()},
            ),
            pixels,
            "application/json",
        ),
        "names": Made(
            write(
                folder / "names.mar",
                torchscript | {"handler": "labels.py", "configFile": "model-config.yaml"},
                {
                    "model.pt": script,
                    "labels.py": LABELS.encode(),
                    "index_to_name.json": names,
                    "model-config.yaml": batch,
                },
            ),
            pixels,
            "application/json",
        ),
        "own": Made(
            write(
                folder / "own.mar",
                torchscript | {"handler": "own.py", "requirementsFile": "requirements.txt"},
                {
                    "model.pt": script,
                    "own.py": PLAIN_CLASS.encode(),
                    "scale.json": b'{"scale": 3}',
                    "requirements.txt": b"numpy\n",
                },
            ),
            b"1,2,3,4",
            "text/plain",
        ),
        "function": Made(
            write(
                folder / "function.mar",
                torchscript | {"handler": "service.py:answer"},
                {"model.pt": script, "service.py": FUNCTION.encode()},
            ),
            b"[1, 2.5, 3, 4]",
            "application/json",
        ),
        "eager": Made(
            write(
                folder / "eager.mar",
                {"serializedFile": "weights.pth", "modelFile": "net.py", "handler": "classifier.py"},
                {"weights.pth": weights, "net.py": NET.encode(), "classifier.py": CLASS_HANDLER.encode()},
            ),
            pixels,
            "application/json",
        ),
    }
