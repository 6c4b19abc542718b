"""A whole small run, from an ONNX file to packages for both servers, and what must be equal after any fault."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.project import BENCH, write_recipe
from tests.support.zygote import Fault, Request

# What holds times, or the moment when it was made.
_VARIES = {"run.json", "bench.json", "packages.json", "report.html", "history.jsonl"}
_PASSPORT = ".passport.json"


@dataclass(frozen=True)
class SmallRun:
    """A recipe in a folder of its own, with its own folder for temporary files."""

    folder: Path

    @classmethod
    def write(cls, folder: Path) -> "SmallRun":
        """Write the model, its data and the recipe."""
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        weights = {"w": rng.standard_normal((32, 16)), "v": rng.standard_normal((16, 3))}
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])],
            "small",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
            [numpy_helper.from_array((array / 8).astype(np.float32), name) for name, array in weights.items()],
        )
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "small.onnx")
        np.savez(folder / "feeds.npz", x=rng.standard_normal((8, 32)).astype(np.float32))
        write_recipe(
            folder / "recipe.yaml",
            name="small",
            model={"source": "small.onnx"},
            inputs=None,
            steps=[{"stage": "convert-fp16"}, {"stage": "quantize-dynamic", "after": "source"}],
            data={"calibration": "feeds.npz"},
            bench=BENCH,
            serve=[
                {"target": "triton", "artifact": "convert-fp16", "warmup": True},
                {"target": "torchserve", "artifact": "quantize-dynamic"},
            ],
        )
        return cls(folder)

    @property
    def out(self) -> Path:
        """The folder of the run."""
        return self.folder / "out"

    @property
    def temporary(self) -> Path:
        """Its folder for temporary files."""
        return self.folder / "tmp"

    def clean(self) -> None:
        """Start again: an empty TMPDIR, and no output."""
        for path in (self.out, self.temporary):
            shutil.rmtree(path, ignore_errors=True)
        self.temporary.mkdir()

    def request(self, fault: Fault | None = None, **environment: str) -> Request:
        """Return the run as a command."""
        environment = {"TMPDIR": str(self.temporary)} | environment
        return Request(["run", "recipe.yaml", "-o", "out"], str(self.folder), environment, fault or self.fault("count"))

    def fault(self, kind: str, at: int = 1 << 60, *, only_temporary: bool = False) -> Fault:
        """Return a fault in the folders of the run."""
        roots = (self.temporary,) if only_temporary else (self.out, self.temporary)
        return Fault(kind, at, tuple(map(str, roots)))

    def results(self) -> dict[str, Any]:
        """Return every file with its hash; of a passport, what it says of its artifact; of what holds times, that it is whole."""
        found: dict[str, Any] = {}
        for path in sorted(self.out.rglob("*")):
            name = str(path.relative_to(self.out))
            if path.is_dir():
                found[name] = "folder"
            elif name.endswith(_PASSPORT):
                passport = json.loads(path.read_text())
                found[name] = (passport["artifact"]["sha256"], passport["key"], passport["proof_key"])
            elif name == "history.jsonl":
                found[name] = [json.loads(line)["schema"] for line in path.read_text().splitlines()]
            elif name in _VARIES:
                found[name] = json.loads(path.read_text())["schema"] if name.endswith(".json") else "page"
            else:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def left(self) -> list[str]:
        """Return temporary files, wherever they are."""
        inside = [str(path) for path in self.out.rglob("*") if path.name.startswith(".") and path.name != ".keep"]
        # ONNX Runtime 1.31 writes the same file `.ses` at each first import.
        return inside + [str(path) for path in self.temporary.rglob("*") if path.name != ".ses"]
