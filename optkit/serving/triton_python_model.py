"""A Python function as a Triton model. It runs inside the server's Python backend, where optkit is not installed.

`optkit_model.json` beside it says which function of `code/` is called, with `{input name: array}`, and what it takes and gives. A
request whose function fails is answered with the error, and does not disturb the others.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Called by Triton."""

    def initialize(self, args: dict[str, str]) -> None:
        """Import the function."""
        here = Path(args["model_repository"], args["model_version"])
        self.settings = json.loads((here / "optkit_model.json").read_text(encoding="utf-8"))
        sys.path.insert(0, str(here / "code"))
        self.function = getattr(importlib.import_module(self.settings["module"]), self.settings["function"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            feed = {spec["name"]: self._input(request, spec) for spec in self.settings["inputs"]}
            outputs = self.function(feed)
            tensors = [self._output(outputs, spec) for spec in self.settings["outputs"]]
        except Exception as e:
            text = f"{self.settings['function']}: {type(e).__name__}: {e}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(text))
        return pb_utils.InferenceResponse(tensors)

    def _input(self, request: Any, spec: dict[str, Any]) -> np.ndarray:
        array = pb_utils.get_input_tensor_by_name(request, spec["name"]).as_numpy()
        return np.asarray(array).reshape(array.shape[: spec["rank"]])  # Triton shows a single number as [1]

    def _output(self, outputs: Any, spec: dict[str, Any]) -> Any:
        array = np.asarray(outputs[spec["name"]])
        if array.dtype != spec["dtype"] or array.ndim != spec["rank"]:
            raise ValueError(
                f"output {spec['name']!r} is {array.dtype} of rank {array.ndim}; declared {spec['dtype']} of rank {spec['rank']}"
            )
        single = spec["rank"] == (1 if self.settings["batched"] else 0)
        return pb_utils.Tensor(spec["name"], np.ascontiguousarray(array[..., None] if single else array))
