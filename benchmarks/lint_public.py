"""Lint of public Triton repositories: how often each rule speaks, and how many planted defects it finds.

    python benchmarks/lint_public.py FOLDER [--show T305] [--planted]

FOLDER holds public repositories as they were downloaded, at any depth; nothing of them belongs to this project. A model is a folder with a
config.pbtxt, and its siblings with one make its repository. Their weights are rarely in version control, so that what a repository lacks is
counted apart: those findings are right and say nothing of the rules. `--show` prints each finding of a rule, to be looked at one by one.

`--planted` breaks one thing in copies of models that have no finding, in 15 ways drawn by seed, and counts the ways that are found.
"""

import argparse
import collections
import contextlib
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from optkit.serving.triton.lint import Finding, lint

ABSENT = {
    "T101",
    "T111",
    "T113",
    "T114",
    "T115",
    "T116",
    "T117",
    "T308",
    "T402",
    "T403",
    "T315",
}  # files that were not published
SEED = 15


def repositories(folder: Path) -> Iterator[Path]:
    """Yield the folders that hold at least one model."""
    yield from sorted({config.parent.parent for config in folder.rglob("config.pbtxt")})


def copies(repository: Path, models: Path) -> Path:
    """Copy the models of a repository, and only them: folders beside them are no models of it."""
    for config in repository.glob("*/config.pbtxt"):
        shutil.copytree(config.parent, models / config.parent.name, symlinks=True)
    return models


def _cut(field: str) -> Callable[[str], str]:
    return lambda text: re.sub(rf"\b{field}\s*:\s*\[?[^\]\n]*\]?", "", text, count=1)


def _put(old: str, new: str) -> Callable[[str], str]:
    return lambda text: re.sub(old, new, text, count=1)


PLANTED: dict[str, Callable[[str], str]] = {
    "another name": _put(r'\A', 'name: "another-name"\n'),
    "negative batch": _put(r"\bmax_batch_size\s*:\s*\d+", "max_batch_size: -1"),
    "type without TYPE_": _put(r"\bdata_type\s*:\s*TYPE_", "data_type: "),
    "no data_type": _cut("data_type"),
    "no dims": _cut("dims"),
    "dimension of 0": _put(r"\bdims\s*:\s*\[[^\]]*\]", "dims: [ 0 ]"),
    "misspelt field": _put(r"\bmax_batch_size\b", "max_batchsize"),
    "number as text": _put(r"\bmax_batch_size\s*:\s*(\d+)", r'max_batch_size: "\1"'),
    "brace left open": _put(r"\}\s*\Z", ""),
    "unknown kind": _put(r"\bKIND_(GPU|CPU|AUTO)", "KIND_CUDA"),
    "GPUs of a CPU instance": _put(r"\Z", "\ninstance_group { kind: KIND_CPU gpus: [ 0 ] }\n"),
    "preferred above max": _put(r"\Z", "\ndynamic_batching { preferred_batch_size: 100000 }\n"),
    "cache of decoupled": _put(r"\Z", "\nmodel_transaction_policy { decoupled: true } response_cache { enable: true }\n"),
    "batch input without source": _put(r"\Z", '\nbatch_input { target_name: "n" data_type: TYPE_FP32 }\n'),
    "priority outside": _put(r"\Z", "\ndynamic_batching { priority_levels: 2 default_priority_level: 3 }\n"),
}  # fmt: skip


def planted(models: list[Path], draw: random.Random) -> tuple[int, int, list[str]]:
    """Return how many defects were found, how many were planted, and those that were missed."""
    found, tried, missed = 0, 0, []
    for way, change in PLANTED.items():
        for model in draw.sample(models, len(models)):
            text = (model / "config.pbtxt").read_text(encoding="utf-8")
            if (
                change(text) == text
                or "scheduling" in text
                or (way == "preferred above max" and "dynamic_batching" in text)
            ):
                continue
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, "models", model.name)
                shutil.copytree(model, copy, symlinks=True)
                before = {f.message for f in lint(copy.parent).findings}
                (copy / "config.pbtxt").write_text(change(text), encoding="utf-8")
                new = [f for f in lint(copy.parent).findings if f.message not in before]
            tried += 1
            found += bool(new)
            missed += [] if new else [f"{way}: {model}"]
            break
    return found, tried, missed


def main() -> int:
    """Lint, count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", action="append", default=[], metavar="RULE")
    parser.add_argument("--planted", action="store_true")
    arguments = parser.parse_args()
    rules: collections.Counter[str] = collections.Counter()
    models, clean, crashes = 0, [], 0
    for repository in repositories(arguments.folder):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack():
            try:
                record = lint(copies(repository, Path(folder, "models")))
            except Exception as e:  # a crash is what this script looks for
                crashes += 1
                print(f"crash in {repository}: {type(e).__name__}: {e}")
                continue
        models += len(record.models)
        speaks: dict[str, list[Finding]] = collections.defaultdict(list)
        for finding in record.findings:
            rules[f"{finding.rule} {finding.severity}"] += 1
            speaks[finding.model].append(finding)
            if finding.rule in arguments.show or "all" in arguments.show:
                print(
                    f"{repository}/{finding.file}:{finding.line or ''} {finding.rule} {finding.severity}: {finding.message}"
                )
        clean += [repository / name for name in record.models if not {f.rule for f in speaks[name]} - ABSENT]
    print(f"{models} models; {len(clean)} without a finding besides files that were not published; {crashes} crashes")
    for rule, count in sorted(rules.items()):
        print(f"  {rule:12} {count:5}{'  (files that were not published)' if rule.split()[0] in ABSENT else ''}")
    if arguments.planted:
        found, tried, missed = planted(clean, random.Random(SEED))
        print(f"{found} of {tried} planted defects found", *missed, sep="\n  ")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
