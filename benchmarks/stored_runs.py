"""The difference between two runs of the same benchmark, beyond the spread of the blocks within each run.

    python benchmarks/stored_runs.py [--runs 8] [--output benchmarks/results/stored_runs.json]

`optkit bench` measures the same three ONNX files several times, each time in a new process. For every pair of runs, the script computes the log
ratio of each file's time, alone and relative to the other two, and the variance between blocks. The rest is the spread between runs.
`optkit/benchmark/sessions.py` contains the two numbers, and `optkit compare` widens its intervals by them.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np

MODEL = """\
import torch


def build(width=256):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, width), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 8))
"""
WIDTHS = (128, 512, 1024)


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--time-limit-s", type=float, default=15.0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "stored_runs.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [export(Path(folder), width) for width in WIDTHS]
        records = [bench(files, asked.time_limit_s) for _ in range(asked.runs)]
    result = {
        "machine": records[0]["machine"],
        "versions": records[0]["versions"],
        "loads_before": [round(record["load_before"], 2) for record in records],
        "runs": asked.runs,
        "blocks": [len(record["order"]) for record in records],
        "alone": spread([logs(record, anchored=False) for record in records]),
        "anchored": spread([logs(record, anchored=True) for record in records]),
    }
    asked.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("loads_before", "alone", "anchored")}, indent=2))


def export(folder: Path, width: int) -> Path:
    """Export one model."""
    (folder / "model.py").write_text(MODEL)
    path = folder / f"w{width}.onnx"
    optkit("export", "onnx", f"{folder / 'model.py'}:build", "-o", path, "--set", f"width={width}", "--exporter", "torchscript",
           "--input", "x:float32[batch,64]", "--dim", "batch=1:8:64")  # fmt: skip
    return path


def bench(files: list[Path], time_limit_s: float) -> dict:
    """Measure the files once, in a separate process."""
    return json.loads(optkit("bench", *files, "--batch", "8", "--time-limit-s", time_limit_s, "--json"))


def optkit(*arguments: object) -> str:
    """Run optkit and return its JSON output."""
    command = [sys.executable, "-m", "optkit", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def logs(record: dict, *, anchored: bool) -> dict[str, np.ndarray]:
    """Return file -> log of the time of each block, relative to the median of the other files' when `anchored`."""
    times = {m["artifact"]: np.log(m["blocks_p50_ms"]) for m in record["measurements"]}
    if not anchored:
        return times
    return {
        name: mine - np.median([t for other, t in times.items() if other != name], axis=0)
        for name, mine in times.items()
    }


def spread(runs: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Return the standard deviation of the log ratio between two runs, in total, between blocks, and the rest."""
    differences, explained = [], []
    for old, new in combinations(runs, 2):
        for name, blocks in old.items():
            differences.append(float(new[name].mean() - blocks.mean()))
            explained.append(sum(float(x.var(ddof=1)) / len(x) for x in (blocks, new[name])))
    total, within = float(np.mean(np.square(differences))), float(np.mean(explained))
    left = math.sqrt(max(total - within, 0.0))
    return {
        "sd": round(math.sqrt(total), 4),
        "sd_of_blocks": round(math.sqrt(within), 4),
        "sd_between_runs": round(left, 4),
    }


if __name__ == "__main__":
    main()
