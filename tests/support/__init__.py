"""What several tests share: models with closed-form answers, servers, recorded runs, a command line."""

from pathlib import Path

ROOT = Path(__file__).absolute().parents[2]
RECIPES = ROOT / "recipes"
BENCHMARKS = ROOT / "benchmarks"
