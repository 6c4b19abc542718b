"""A Python function as a Triton model. It runs inside the server's Python backend, where optkit is not installed.

`optkit_model.json` beside this file names a function in `code/` with its inputs and outputs; the function takes `{input name: array}`. If
the check for batch independence passed, one call computes all requests of an execution. If the function fails, the request gets the error;
other requests are not affected.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Arrays = dict[str, np.ndarray]


class TritonPythonModel:
    """The class that Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Import the function."""
        here = Path(args["model_repository"], args["model_version"])
        self.settings = json.loads((here / "optkit_model.json").read_text(encoding="utf-8"))
        sys.path.insert(0, str(here / "code"))
        self.function = getattr(importlib.import_module(self.settings["module"]), self.settings["function"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response for each request. One call computes all requests that may be batched."""
        feeds = [{spec["name"]: self._input(request, spec) for spec in self.settings["inputs"]} for request in requests]
        answers: list[Any] = [None] * len(feeds)
        for group in self._groups(feeds):
            for i, answer in zip(group, self._answers([feeds[i] for i in group]), strict=True):
                answers[i] = answer
        return answers

    def _groups(self, feeds: list[Arrays]) -> list[list[int]]:
        """Group the requests into calls: requests with equal row shapes together, or each request alone."""
        if not self.settings["together"]:
            return [[i] for i in range(len(feeds))]
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for i, feed in enumerate(feeds):
            groups.setdefault(tuple(array.shape[1:] for array in feed.values()), []).append(i)
        return list(groups.values())

    def _answers(self, feeds: list[Arrays]) -> list[Any]:
        if len(feeds) > 1:
            try:
                outputs = self._call({name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})
                ends = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])[:-1]
                parts = {name: np.split(array, ends) for name, array in outputs.items()}
                return [self._response({name: rows[i] for name, rows in parts.items()}) for i in range(len(feeds))]
            except Exception as e:
                pb_utils.Logger.log_warn(
                    f"one call for {len(feeds)} requests failed; the function is called for each request: {e}"
                )
        return [self._answer(feed) for feed in feeds]

    def _answer(self, feed: Arrays) -> Any:
        try:
            return self._response(self._call(feed))
        except Exception as e:
            text = f"{self.settings['function']}: {type(e).__name__}: {e}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(text))

    def _input(self, request: Any, spec: dict[str, Any]) -> np.ndarray:
        array = pb_utils.get_input_tensor_by_name(request, spec["name"]).as_numpy()
        return np.asarray(array).reshape(array.shape[: spec["rank"]])  # Triton represents a scalar as [1]

    def _call(self, feed: Arrays) -> Arrays:
        given = self.function(feed)
        return {spec["name"]: self._checked(given, spec, feed) for spec in self.settings["outputs"]}

    def _checked(self, given: Any, spec: dict[str, Any], feed: Arrays) -> np.ndarray:
        array = np.asarray(given[spec["name"]])
        if array.dtype != spec["dtype"] or array.ndim != spec["rank"]:
            raise ValueError(
                f"output {spec['name']!r} is {array.dtype} of rank {array.ndim}; expected {spec['dtype']} of rank {spec['rank']}"
            )
        rows = len(next(iter(feed.values()))) if self.settings["batched"] else 0
        if self.settings["batched"] and len(array) != rows:
            raise ValueError(f"output {spec['name']!r} has {len(array)} rows; expected {rows}")
        return array

    def _response(self, outputs: Arrays) -> Any:
        tensors = []
        for spec in self.settings["outputs"]:
            single = spec["rank"] == (1 if self.settings["batched"] else 0)
            array = outputs[spec["name"]][..., None] if single else outputs[spec["name"]]
            tensors.append(pb_utils.Tensor(spec["name"], np.ascontiguousarray(array)))
        return pb_utils.InferenceResponse(tensors)
