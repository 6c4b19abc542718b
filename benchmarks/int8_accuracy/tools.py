"""The tools: the command line of each, and one run of it in a separate process."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export_zoo.process import measure as run_process

from int8_accuracy.tasks import Task

ATTEMPT = Path(__file__).resolve().with_name("attempt.py")
OPTKIT = [sys.executable, "-m", "optkit"]
LIMIT_S = 1800.0  # of processor time for one tool on one model
OWN = (
    "optkit",
    "optkit static",
    "optkit entropy",
    "optkit unsigned",
    "optkit dynamic",
    "optkit-torch static",
    "optkit-torch dynamic",
)
# Each peer with its defaults, and ONNX Runtime's once more as its documentation advises for x86 processors without VNNI:
# unsigned activations, a scale for each channel, 7-bit weights. Name -> the tool whose environment it needs.
PEERS = {
    "ort-static": "", "ort-dynamic": "", "ort-static advised": "", "ort-dynamic advised": "",
    "olive-static": "olive", "olive-dynamic": "olive", "modelopt": "modelopt", "inc-static": "inc", "inc-dynamic": "inc",
    "inc-smoothquant": "inc",
}  # fmt: skip

Result = dict[str, Any]


def file_of(tool: str, folder: Path) -> Path:
    """Return the path of a tool's file."""
    return folder / f"{tool.replace(' ', '-')}.{'pt' if 'torch' in tool else 'onnx'}"


def weights(task: Task, folder: Path) -> list[str]:
    """Return the option that loads the weights of a model that was trained here."""
    return ["--weights", str(folder / "weights.pt")] if task.train else []


def command(tool: str, task: Task, folder: Path, pythons: Mapping[str, Path | None]) -> list[str] | None:
    """Return the command line of a tool; None if its environment was not given."""
    model, calibration, file = str(folder / "fp32.onnx"), str(folder / "calibration"), file_of(tool, folder)
    data = ["--data" if tool.endswith("dynamic") else "--calibration", calibration]
    quantize = [*OPTKIT, "quantize", model, "-o", str(file), "--force", *data]
    match tool.split():
        case ["optkit"]:  # its default, with calibration data
            return quantize
        case ["optkit", "entropy"]:
            return [*quantize, "--mode", "static", "--method", "entropy"]
        case ["optkit", "unsigned"]:  # weights
            return [*quantize, "--weight-type", "uint8"]
        case ["optkit", mode]:
            return [*quantize, "--mode", mode]
        case ["optkit-torch", mode]:
            quantize = [*OPTKIT, "quantize-torch", task.source, *task.contract, *weights(task, folder)]
            return [*quantize, "-o", str(file), "--force", "--mode", mode, *data]
    python = {"": Path(sys.executable), **pythons}[PEERS[tool]]
    given = str(folder / "given.onnx")
    return [str(python), str(ATTEMPT), tool, given, calibration, str(file)] if python else None


def attempt(line: Sequence[str], file: Path, folder: Path) -> Result:
    """Run a tool in a separate process; `exit` is 0 if it wrote a file."""
    file.unlink(missing_ok=True)
    # A separate copy: modelopt 0.47 writes to its input model.
    shutil.copyfile(folder / "fp32.onnx", folder / "given.onnx")
    environment = os.environ | {"OLIVE_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    done = run_process(line, environment, folder / "log.txt", LIMIT_S)
    made: Result = {"exit": done.code or int(not file.exists()), "seconds": done.seconds, "peak_mib": done.peak_mib}
    if made["exit"]:
        lines = [line.strip() for line in done.text.splitlines() if line.strip()]
        found = [line for line in lines if "rror" in line or line.startswith(("not ", "parity"))] or lines[-1:]
        return made | {"message": " ".join(found[-2:])[:400].replace("|", "/")}
    return made | {"size_bytes": file.stat().st_size, "message": "", "said": _said(done.text)}


def _said(text: str) -> list[str]:
    """Return the lines of optkit about chosen and rejected types."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith(("chosen:", "not chosen:"))]
