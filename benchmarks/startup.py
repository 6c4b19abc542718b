"""The time of `import optkit`, `optkit --help` and an unchanged `optkit run`, as ratios to `python -c pass` and `import typer` in the same run.

    python benchmarks/startup.py [--rounds 15] [--json results.json]

Every command is a whole process. The commands alternate, so that a slow moment of the machine affects all of them. The target is at most 1.5
times `python -c "import typer"`, which every Typer command needs, for `import optkit` at most 1.3 times `python -c pass`, and for an unchanged
`optkit run`, which reuses everything, at most 30 times `python -c pass`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from optkit.benchmark import this_machine

TARGET = 1.5
IMPORT_TARGET = 1.3
REUSE_TARGET = 30
REUSE = "optkit run, unchanged"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import optkit": [sys.executable, "-c", "import optkit"],
    "import typer": [sys.executable, "-c", "import typer"],
    "optkit --help": [str(Path(sys.executable).with_name("optkit")), "--help"],
    "optkit run --help": [str(Path(sys.executable).with_name("optkit")), "run", "--help"],
}


def main() -> int:
    """Measure, print the table, and return 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return _measured(COMMANDS | {REUSE: _run_once(Path(folder))}, options)


def _run_once(folder: Path) -> list[str]:
    """Write a tiny project, run it once, and return the command that runs it again."""
    (folder / "model.py").write_text("import torch\n\n\ndef build():\n    return torch.nn.Linear(4, 3)\n")
    recipe = """{name: tiny, model: {source: 'model.py:build'}, inputs: {x: 'float32[batch, 4]'}, dims: {batch: '1:4:8'},
        steps: [{stage: export-onnx, exporter: torchscript, opset: 17}], bench: {batches: [2], max_blocks: 2, min_blocks: 2, block_s: 0, drop_s: 0}}"""
    (folder / "recipe.yaml").write_text(recipe)
    optkit = str(Path(sys.executable).with_name("optkit"))
    command = [optkit, "run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return command


def _measured(commands: dict[str, list[str]], options: argparse.Namespace) -> int:
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(options.rounds + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if number:  # the first round fills the caches
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    print(f"{'command':20} {'median ms':>10} {'of import typer':>16} {'of pass':>8}")
    for name, seconds in medians.items():
        ratio, floor = seconds / medians["import typer"], seconds / medians["python -c pass"]
        print(f"{name:20} {seconds * 1000:10.0f} {ratio:15.2f}x {floor:7.1f}x")
    ratio = _ratio(times, "optkit --help", "import typer")
    of_import = _ratio(times, "import optkit", "python -c pass")
    print(f"optkit --help / import typer: {ratio:.2f} (median of {options.rounds} pairs; target {TARGET})")
    of_reuse = _ratio(times, REUSE, "python -c pass")
    print(f"import optkit / python -c pass: {of_import:.2f} (target {IMPORT_TARGET})")
    print(f"{REUSE} / python -c pass: {of_reuse:.1f} (target {REUSE_TARGET})")
    if options.json:
        found = {
            "ratio": ratio,
            "target": TARGET,
            "import_ratio": of_import,
            "import_target": IMPORT_TARGET,
            "reuse_ratio": of_reuse,
            "reuse_target": REUSE_TARGET,
            "seconds": times,
            "machine": this_machine().model_dump(),
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if ratio <= TARGET and of_import <= IMPORT_TARGET and of_reuse <= REUSE_TARGET else 1


def _ratio(times: dict[str, list[float]], ours: str, floor: str) -> float:
    """The median of the ratios of runs that took turns."""
    return statistics.median(a / b for a, b in zip(times[ours], times[floor], strict=True))


if __name__ == "__main__":
    sys.exit(main())
