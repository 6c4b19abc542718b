"""The single runs of benchmarks/calibration.py: each is a separate process, and its result is stored when it ends."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORKER = HERE / "worker.py"
TIME_LIMIT_S = 3600.0


class OutOfTimeError(Exception):
    """The time limit is reached; the measurements are stored."""


@dataclass(frozen=True)
class Job:
    """A tool with one of its methods."""

    tool: str
    method: str

    def __str__(self) -> str:
        return f"{self.tool} {self.method}"


FLOOR = Job("floor", "forward")


class Runs:
    """Runs jobs, or returns their stored results."""

    def __init__(self, work: Path, peer_python: str, limit_s: float) -> None:
        """Set the folder of the runs.

        Args:
            work: a folder; the model is made in it.
            peer_python: the interpreter of Olive and modelopt, which have separate floors.
            limit_s: no run is started after it.
        """
        self.model = work / "model.onnx"
        self._work = work
        self._peer_python = peer_python
        self._until = time.monotonic() + limit_s
        self._last: tuple[str, int, dict[str, Any]] | None = None  # the floor that has just been run
        if not self.model.exists():
            _make_model(self.model)

    def between_floors(self, job: Job, samples: int, number: int) -> dict[str, Any]:
        """Return one run with the floors before and after it; jobs that are run one after the other share the floor between them."""
        kept = self._kept(f"{job} {samples} {number}")
        if kept.exists():
            self._last = None
        else:
            python = self._python(job)
            before = self._last[2] if self._last and self._last[:2] == (python, samples) else None
            before = before or self._run(FLOOR, samples, python)
            found = self._run(job, samples, python)
            after = self._run(FLOOR, samples, python)
            self._last = (python, samples, after)
            _write(kept, found | {"floors": [before, after]})
        return _read(kept)

    def alone(self, job: Job, samples: int) -> dict[str, Any]:
        """Return one run for its memory, not for its time."""
        kept = self._kept(f"{job} {samples} memory")
        if not kept.exists():
            _write(kept, self._run(job, samples, self._python(job)))
        return _read(kept)

    def versions(self) -> dict[str, dict[str, str]]:
        """Return the packages installed here and for the peers' interpreter: package -> version."""
        ours = ("optkit", "onnxruntime-gpu", "onnxruntime", "onnx", "numpy")
        peers = ("olive-ai", "nvidia-modelopt", "onnxruntime-gpu", "onnxruntime", "onnx", "numpy")
        return {
            "optkit": json.loads(_output([sys.executable, "-c", _VERSIONS, *ours])),
            "peers": json.loads(_output([self._peer_python, "-c", _VERSIONS, *peers])),
        }

    def _python(self, job: Job) -> str:
        return self._peer_python if job.tool in ("olive", "modelopt") else sys.executable

    def _kept(self, name: str) -> Path:
        return self._work / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"

    def _run(self, job: Job, samples: int, python: str) -> dict[str, Any]:
        if time.monotonic() > self._until:
            raise OutOfTimeError
        with tempfile.TemporaryDirectory(dir=self._work) as folder:
            result = Path(folder) / "result.json"
            command = [python, str(WORKER), job.tool, job.method, str(self.model), str(samples), str(result)]
            load = os.getloadavg()[0]
            run = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
            if run.returncode:
                raise SystemExit(f"{job}, {samples} samples: failed\n{run.stderr[-2000:]}")
            return _read(result) | {"load": load}


_VERSIONS = """
import json, sys
from importlib import metadata
installed = {d.metadata["Name"]: d.version for d in metadata.distributions()}
print(json.dumps({name: installed[name] for name in sys.argv[1:] if name in installed}))
"""


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _write(path: Path, found: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found))
    partial.replace(path)


def _make_model(path: Path) -> None:
    """Write ResNet-18 with seeded weights and normalised activations, prepared as all these quantizers need it."""
    import warnings

    import torch
    from onnxruntime.quantization.shape_inference import quant_pre_process

    sys.path.insert(0, str(HERE.parents[1] / "recipes"))
    from resnet import ResNet18

    torch.manual_seed(0)
    model = ResNet18(classes=1000).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 224, 224))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw, prepared = Path(folder) / "raw.onnx", Path(folder) / "prepared.onnx"
        torch.onnx.export(
            model.eval(), (torch.randn(2, 3, 224, 224),), str(raw), dynamo=False, opset_version=17,
            input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
        quant_pre_process(raw, prepared, skip_symbolic_shape=True)
        prepared.replace(path)
