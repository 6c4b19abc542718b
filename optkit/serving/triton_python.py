"""A Python function as a model of a Triton repository, served by Triton's Python backend."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.serving.mar import as_json
from optkit.serving.triton_config import describe_tensor, instance_group
from optkit.serving.triton_contract import TritonContract
from optkit.serving.triton_settings import Instances
from optkit.tensors import TensorSpec
from optkit.user_code import code_files, split_target

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema


def python_files(
    function: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, batched: bool
) -> dict[str, Path | bytes]:
    """Return the files of a version: model.py, what it must know, and the function's own code with all that it imports beside it.

    Raises:
        ModelError: there is no such code.
    """
    where, name = split_target(function)
    settings = {
        "module": Path(where).stem if where.endswith(".py") else where,
        "function": name,
        "batched": batched,
        "inputs": [_described(spec) for spec in inputs],
        "outputs": [_described(spec) for spec in outputs],
    }
    template = importlib.resources.files("optkit.serving").joinpath("triton_python_model.py").read_bytes()
    code = {f"code/{relative}": path for relative, path in code_files(where).items()}
    return {"model.py": template, "optkit_model.json": as_json(settings), **code}


def python_config(name: str, contract: TritonContract, instances: Instances) -> "schema.ModelConfig":
    """Return the configuration of a Python model. Requests are not put together: nothing proves that a function allows it."""
    from tritonclient.grpc import model_config_pb2 as schema

    config = schema.ModelConfig(
        name=name,
        backend="python",
        max_batch_size=contract.max_batch_size,
        instance_group=[instance_group(instances)],
    )
    for spec in contract.inputs:
        describe_tensor(config.input.add(), spec, contract, reshape=False)
    for spec in contract.outputs:
        describe_tensor(config.output.add(), spec, contract, reshape=False)
    return config


def _described(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "dtype": str(spec.dtype), "rank": len(spec.shape)}
