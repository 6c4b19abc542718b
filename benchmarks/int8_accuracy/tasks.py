"""The tasks: a model, its inputs and outputs, calibration data, other data for the evaluation, and the score that its users would look at."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from int8_accuracy import models
from int8_accuracy.models import RECIPES

MODELS = Path(models.__file__).absolute()
sys.path.append(str(RECIPES))

Feed = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Task:
    """One model on one kind of data; `score` takes the outputs of all evaluation rows, larger is better."""

    name: str
    what: str
    source: str
    inputs: tuple[str, ...]
    dims: dict[str, str]
    output: str
    calibration: Callable[[], list[Feed]]
    evaluation: Callable[[], list[Feed]]
    score_name: str = ""
    score: Callable[[np.ndarray], float] | None = None
    same: Callable[[np.ndarray], np.ndarray] | None = (
        None  # rows -> the decision for each, which INT8 should not change
    )
    train: Callable[[Path], None] | None = None

    @property
    def contract(self) -> list[str]:
        """Return the options that every command of optkit on the source takes."""
        options = [part for text in self.inputs for part in ("--input", text)]
        options += [part for name, text in self.dims.items() for part in ("--dim", f"{name}={text}")]
        return [*options, "--output-name", self.output]


def _feeds(name: str, rows: np.ndarray, size: int) -> list[Feed]:
    return [{name: rows[start : start + size]} for start in range(0, len(rows), size)]


def _top1(labels: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda rows: float((rows.argmax(axis=1) == labels).mean())


def _classes(rows: np.ndarray) -> np.ndarray:
    return rows.argmax(axis=1)


def digits() -> Task:
    """Return the recipe's small network on scikit-learn's digits."""
    import digits as recipe

    _, test, _, labels = recipe.digits()
    return Task(
        "digits", "small CNN, 8x8 digits (450 test images)", f"{RECIPES}/digits.py:build",
        ("image:float32[batch,1,8,8]",), {"batch": "1:8:64"}, "logits",
        recipe.calibration, lambda: _feeds("image", test, 64), "top-1", _top1(labels), _classes,
    )  # fmt: skip


def crowded() -> Task:
    """Return the harder task."""
    train, test, _, labels = models.crowded_data()
    return Task(
        "crowded", "depthwise-separable CNN, digits among pieces of others and noise (719 test images)", f"{MODELS}:crowded",
        ("image:float32[batch,1,20,20]",), {"batch": "1:8:64"}, "logits",
        lambda: _feeds("image", train[:512], 64), lambda: _feeds("image", test, 64), "top-1", _top1(labels), _classes,
        models.train_crowded,
    )  # fmt: skip


def diabetes() -> Task:
    """Return the regression."""
    train, test, _, targets = models.diabetes_data()
    rest = float(np.square(targets - targets.mean()).sum())
    return Task(
        "diabetes", "regression, 3 linear layers, scikit-learn's diabetes (133 test rows)", f"{MODELS}:diabetes",
        ("row:float32[batch,10]",), {"batch": "1:8:64"}, "progression",
        lambda: _feeds("row", train, 64), lambda: _feeds("row", test, 64),
        "R²", lambda rows: 1 - float(np.square(rows - targets).sum()) / rest, None, models.train_diabetes,
    )  # fmt: skip


def minilm() -> Task:
    """Return the sentence transformer with its real weights."""
    import minilm as recipe

    def score(rows: np.ndarray) -> float:
        expected = recipe.reference()[1].astype(np.float64)
        return float((rows * expected).sum(axis=1).mean())  # of vectors of length 1

    return Task(
        "minilm", "MiniLM-L6, real weights, 256 sentences of Python's reference", f"{RECIPES}/minilm.py:build",
        ("input_ids:int64[batch,sequence]", "attention_mask:int64[batch,sequence]", "token_type_ids:int64[batch,sequence]"),
        {"batch": "1:4:16", "sequence": "8:32:128"}, "embedding",
        recipe.calibration, lambda: recipe.reference()[0], "cosine", score, recipe._nearest,
    )  # fmt: skip


def resnet18() -> Task:
    """Return ResNet-18 at its usual size with random weights."""
    import digits as recipe

    train, test, _, _ = recipe.digits()

    def pictures(rows: np.ndarray) -> list[Feed]:
        large = rows.repeat(28, axis=2).repeat(28, axis=3).repeat(3, axis=1)  # (n, 3, 224, 224)
        noise = np.random.default_rng(0).normal(0, 0.2, large.shape)
        return _feeds("image", (large + noise).astype(np.float32), 8)

    return Task(
        "resnet18", "ResNet-18 at 224x224, random weights: speed and size of the error alone", f"{MODELS}:resnet18",
        ("image:float32[batch,3,224,224]",), {"batch": "1:4:8"}, "logits",
        lambda: pictures(train[:32]), lambda: pictures(test[:32]), same=_classes,
    )  # fmt: skip


TASKS: dict[str, Callable[[], Task]] = {f.__name__: f for f in (digits, crowded, diabetes, minilm, resnet18)}


def quality(task: Task, expected: np.ndarray, found: np.ndarray) -> dict[str, float | None]:
    """Compare the outputs of all evaluation rows with those of FP32.

    Args:
        task: gives the score and the decisions.
        expected: (rows, ...) of the FP32 model.
        found: the same of a candidate.

    Returns:
        score; agreement, the share of rows with FP32's decision; mean cosine of the rows (of all rows together where a row is one
        number); SQNR in dB. None is what there is none of, or not finite.
    """
    if not np.isfinite(found).all():
        return dict.fromkeys(("score", "agreement", "cosine", "sqnr_db"))
    e, f = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (expected, found))
    error = np.square(e - f).sum()
    if e.shape[1] == 1:
        e, f = e.T, f.T
    lengths = np.linalg.norm(e, axis=1) * np.linalg.norm(f, axis=1)
    return {
        "score": task.score(found) if task.score else None,
        "agreement": float((task.same(expected) == task.same(found)).mean()) if task.same else None,
        "cosine": float(((e * f).sum(axis=1) / np.maximum(lengths, 1e-30)).mean()),
        "sqnr_db": float(10 * np.log10(np.square(e).sum() / error)) if error else None,
    }
