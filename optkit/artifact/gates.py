"""The limits on an artifact: the `gates` key of a recipe, and the limits of a single command."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field

from optkit.record import Record
from optkit.untrusted.paths import is_file


def _share(value: Any) -> Any:
    """Read a share that is written as 5%."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100  # a ValueError is a fault of validation
    return value


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Gates(Record):
    """The limits that an artifact needs to win and to be packaged, besides parity.

    Accuracy and batch independence are requirements: an artifact that fails one of them fails the run. Latency, throughput, speed-up and
    size are a budget: an artifact over it cannot win, and the run fails when none can. The regression is against an earlier run.
    """

    max_accuracy_drop: float | None = Field(default=None, ge=0)  # of the source model's accuracy, in its own unit
    batch_independence: bool = True
    max_latency_ms: Positive | dict[int, Positive] | None = None  # median, at every batch size or at the given ones
    min_samples_per_s: Positive | dict[int, Positive] | None = None  # of one caller, likewise
    min_speedup: Positive | None = None  # over the source, at every batch size
    max_size_mb: Positive | None = None
    max_regression: Share | None = None  # as 0.05 or 5%, of latency, throughput and size, against `baseline`
    baseline: str | None = None  # the run.json of an earlier run, relative to the recipe

    def faults(self, evaluation: str | None, batches: Sequence[int]) -> Iterator[str]:
        """Yield gates that nothing in the recipe could decide, each with its key.

        Args:
            evaluation: the target of the recipe's evaluation function.
            batches: those that the recipe names to be measured; none where it leaves that open.
        """
        if self.max_accuracy_drop is not None and not evaluation:
            yield "max_accuracy_drop: nothing measures accuracy; name a function as data.evaluation: file.py:evaluate"
        if self.max_regression is not None and self.baseline is None:
            yield "max_regression: there is nothing to compare with; name the run.json of an earlier run as gates.baseline"
        if self.baseline is not None and self.max_regression is None:
            yield "baseline: no gate uses it; say how much slower is allowed as gates.max_regression: 5%"
        if self.baseline is not None and not is_file(Path(self.baseline)):
            yield f"baseline: {self.baseline}: no such file. Keep the run.json of a good run there."
        for key in ("max_latency_ms", "min_samples_per_s"):
            limits = getattr(self, key)
            missing = sorted(set(limits) - set(batches)) if isinstance(limits, dict) and batches else []
            if missing:
                yield f"{key}: batch {', '.join(map(str, missing))} is not among bench.batches, so it is not measured"

    def with_absolute_paths(self, base: Path) -> Self:
        """Return the gates with the path of the baseline made absolute."""
        return self.model_copy(update={"baseline": str((base / self.baseline).absolute())}) if self.baseline else self
