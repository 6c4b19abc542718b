"""An ensemble without a server: run it, and compare it with the pipeline in the source code."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from optkit import user_code
from optkit.artifact import Precision
from optkit.artifact.findings import OutputParity, Parity, Tolerance
from optkit.artifact.tensors import Feed, check_feed, corners
from optkit.checks import TOLERANCES, compare_outputs
from optkit.data import Samples
from optkit.progress import track
from optkit.runners import Runner, open_runner
from optkit.serving.triton.ensemble.package import Ensemble, Node
from optkit.serving.triton.python_backend.functions import called

_LOOSENESS = (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8)


class LocalEnsemble:
    """Runs the nodes in order. It is a context manager that keeps their models open."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self._open = contextlib.ExitStack()
        self._runners: dict[str, Runner] = {}
        self._functions: dict[str, Callable[[Feed], Any]] = {}

    def __enter__(self) -> Self:
        """Open every model and import every function.

        Raises:
            RunnerError: a model cannot be loaded.
            ModelError: a function cannot be imported.
        """
        with contextlib.ExitStack() as opening:
            for node in self.ensemble.nodes:
                if node.artifact is not None:
                    self._runners[node.name] = opening.enter_context(open_runner(node.artifact))
                elif node.function is not None:
                    self._functions[node.name] = user_code.load(node.function)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def infer(self, feed: Feed) -> dict[str, np.ndarray]:
        """Run the pipeline.

        Raises:
            FeedError: the feed does not fit the inputs.
            RunnerError: a part failed, or a function returned outputs that do not fit its declaration.
        """
        check_feed(feed, self.ensemble.inputs)
        tensors: dict[str, np.ndarray] = dict(feed)
        for node in self.ensemble.nodes:
            given = self._run(node, {own: tensors[tensor] for own, tensor in node.takes.items()})
            tensors |= {tensor: given[own] for own, tensor in node.gives.items()}
        return {spec.name: tensors[spec.name] for spec in self.ensemble.outputs}

    def _run(self, node: Node, feed: Feed) -> Mapping[str, np.ndarray]:
        if node.name in self._runners:
            return self._runners[node.name].infer(feed)
        return called(self._functions[node.name], f"part {node.name!r} ({node.function})", feed, node.outputs)


def ensemble_tolerance(ensemble: Ensemble) -> Tolerance:
    """Return the tolerance for the comparison with the reference: the tolerance of the least precise part."""
    precisions = [node.artifact.precision for node in ensemble.nodes if node.artifact is not None]
    return TOLERANCES[max(precisions, key=_LOOSENESS.index, default=Precision.FP32)]


def prove_ensemble(local: LocalEnsemble, reference: str, samples: Samples) -> Parity:
    """Compare the ensemble with the pipeline in the source code at every corner of the dimensions.

    Raises:
        ModelError: the reference cannot be imported.
        RunnerError: the reference or a part fails.
    """
    function = user_code.load(reference)
    tolerance = ensemble_tolerance(local.ensemble)
    points = corners(local.ensemble.dims)
    found: list[OutputParity] = []
    for sizes in track(points, f"prove {local.ensemble.name}", len(points)):
        feed = samples.at(sizes)
        expected = called(function, f"reference ({reference})", feed, local.ensemble.outputs)
        found += compare_outputs(expected, local.infer(feed), sizes, tolerance)
    return Parity(
        reference=reference.rpartition("/")[2],
        candidate=local.ensemble.name,
        tolerance=tolerance,
        values=samples.origin,
        outputs=tuple(found),
    )
