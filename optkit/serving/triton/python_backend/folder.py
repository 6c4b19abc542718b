"""The files and the configuration of a Python function as a Triton model."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.artifact.tensors import TensorSpec
from optkit.errors import StageError
from optkit.serving.staging import as_json
from optkit.serving.triton.config import describe_tensor, instance_group
from optkit.serving.triton.contract import TritonContract
from optkit.serving.triton_fields import Instances
from optkit.untrusted.paths import is_file
from optkit.user_code import code_files, module_name, split_target

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema


def python_files(
    function: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    batched: bool,
    together: bool = False,
    extra_files: Sequence[str] = (),
) -> dict[str, Path | bytes]:
    """Return the files of a version: model.py, its settings, and the function's code with everything that it imports from its folder.

    Args:
        function: the target of the function.
        inputs: the inputs of the function.
        outputs: the outputs of the function.
        batched: whether Triton's shapes omit the batch dimension.
        together: whether one call may compute several requests.
        extra_files: other files for the folder of the code.

    Raises:
        ModelError: there is no such code.
        StageError: an extra file is missing, or has the name of another file.
    """
    where, name = split_target(function)
    settings = {
        "module": module_name(where),
        "function": name,
        "batched": batched,
        "together": together,
        "inputs": [_described(spec) for spec in inputs],
        "outputs": [_described(spec) for spec in outputs],
    }
    template = importlib.resources.files("optkit.serving.triton.python_backend").joinpath("model.py").read_bytes()
    code: dict[str, Path | bytes] = {f"code/{relative}": path for relative, path in code_files(where).items()}
    for extra in map(Path, extra_files):
        if not is_file(extra) or f"code/{extra.name}" in code:
            what = "another file has this name" if is_file(extra) else "no such file"
            raise StageError(f"extra_files: {extra}: {what}; expected existing files with different names")
        code[f"code/{extra.name}"] = extra
    return {"model.py": template, "optkit_model.json": as_json(settings), **code}


def python_config(name: str, contract: TritonContract, instances: Instances) -> "schema.ModelConfig":
    """Return the configuration of a Python model without dynamic batching, because there is no check of the function for it."""
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
