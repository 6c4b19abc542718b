"""Where a chain starts: the nn.Module that a factory builds, or a model file."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from optkit import onnx_file, user_code
from optkit.artifact import Artifact, Format, Precision, read_passport, sha256_of
from optkit.errors import ArtifactError, ModelError
from optkit.forward import forward_order, output_specs
from optkit.record import Document
from optkit.tensors import DimRange, TensorSpec, dimension_faults
from optkit.weights import load_weights, state_sha256, weights_fault

if TYPE_CHECKING:
    import torch

SOURCE_SUFFIX = ".source.json"


class ModelSource(Document):
    """A factory of an nn.Module with its weights and arguments; paths are relative to the folder of this file."""

    schema_id: ClassVar[str] = "optkit/source/1"

    target: str
    weights: str | None = None
    args: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    outputs: tuple[str, ...] | None = None  # names for the outputs, in order
    code_sha256: str
    weights_sha256: str | None = None
    state_sha256: str  # of the parameters and buffers as built: a factory must build the same ones each time


def open_artifact(path: Path, dims: Mapping[str, DimRange] | None = None) -> Artifact:
    """Return the artifact that a file is: from its passport, or for an ONNX file from the file itself.

    Args:
        path: an artifact made by optkit, or any .onnx file.
        dims: ranges of the named dimensions; they replace those of the passport.

    Raises:
        ArtifactError: no such file, or it says too little of itself.
    """
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "no such file"
        raise ArtifactError(f"{path}: {what}; expected a model file")
    passport = read_passport(path)
    if passport:
        return passport.artifact.model_copy(update={"dims": passport.artifact.dims | dict(dims or {})})
    if path.suffix == ".onnx":
        return onnx_file.describe(path, dims or {})
    raise ArtifactError(
        f"{path}: has no passport beside it, and only an .onnx file states its own inputs. "
        f"Make it with optkit, or export the model to ONNX first."
    )


def make_source(
    target: str,
    out_dir: Path,
    inputs: Sequence[TensorSpec],
    dims: Mapping[str, DimRange],
    *,
    weights: Path | None = None,
    args: Mapping[str, str | int | float | bool | None] | None = None,
    outputs: tuple[str, ...] | None = None,
) -> Artifact:
    """Build the module once, find its outputs, and write the source artifact.

    Args:
        target: `file.py:build` or `package.module:factory`.
        out_dir: where `model.source.json` goes.
        inputs: what the model takes, in the order of its forward.
        dims: the ranges of the named dimensions.
        weights: a state dict to load over what the factory built.
        args: keyword arguments of the factory.
        outputs: names for the flattened outputs, in order; None takes those that the model gives.

    Raises:
        ModelError: it cannot be built, loaded or run, or the names do not fit what it returns.
    """
    faults = dimension_faults(inputs, dims)
    if faults:
        raise ModelError(f"{target}: {'; '.join(faults)}")
    target = user_code.absolute_target(target, Path())
    weights = Path(os.path.abspath(weights)) if weights else None  # noqa: PTH100 - one spelling, as that of the target
    if weights and (fault := weights_fault(weights)):
        raise ModelError(fault)
    module = _build(target, weights, tuple(sorted((args or {}).items())), _code_and_weights(target, weights))
    where, name = user_code.split_target(target)
    source = ModelSource(
        target=f"{_relative(Path(where), out_dir)}:{name}" if where.endswith(".py") else target,
        weights=_relative(weights, out_dir) if weights else None,
        args=dict(args or {}),
        outputs=outputs,
        code_sha256=user_code.code_sha256(target),
        weights_sha256=sha256_of(weights) if weights else None,
        state_sha256=state_sha256(module),
    )
    inputs = forward_order(module, inputs)  # what a file without names, such as TorchScript, is called with
    specs = output_specs(module, inputs, dims, outputs)
    path = out_dir.absolute() / f"model{SOURCE_SUFFIX}"
    source.write(path)
    return Artifact(
        path=path,
        format=Format.PYTORCH,
        precision=Precision.FP32,
        inputs=tuple(inputs),
        outputs=specs,
        dims=dict(dims),
        sha256=sha256_of(path),
    )


def load_module(artifact: Artifact) -> "torch.nn.Module":
    """Return the module of a source artifact, in evaluation mode, on the CPU. It is built once a process: do not change it.

    Raises:
        ModelError: it cannot be built, or its code or weights are no longer those of the artifact.
    """
    source = ModelSource.read(artifact.path)
    target = user_code.absolute_target(source.target, artifact.path.parent)
    weights = Path(os.path.normpath(artifact.path.parent / source.weights)) if source.weights else None
    if user_code.code_sha256(target) != source.code_sha256 or (weights and sha256_of(weights) != source.weights_sha256):
        raise ModelError(
            f"{target}: its code or weights have changed since {artifact.path.name} was made. Run it again."
        )
    module = _build(target, weights, tuple(sorted(source.args.items())), _code_and_weights(target, weights))
    if state_sha256(module) != source.state_sha256:
        raise ModelError(
            f"{target}: built other weights than the last time, so results cannot be compared. "
            f"Fix its random seed, or save the weights and name them; then run with --fresh."
        )
    return module


def _relative(path: Path, folder: Path) -> str:
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # another drive
        return str(path.absolute())


def _code_and_weights(target: str, weights: Path | None) -> str:
    return user_code.code_sha256(target) + (sha256_of(weights) if weights else "")


@functools.lru_cache(maxsize=1)
def _build(target: str, weights: Path | None, args: tuple[tuple[str, Any], ...], _content: str) -> "torch.nn.Module":
    """Build the module, load its weights and set it to evaluation; `_content` makes a changed file another entry."""
    import torch

    factory = user_code.load(target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a factory that draws its weights must draw the same ones next time
        try:
            module = factory if isinstance(factory, torch.nn.Module) else factory(**dict(args))
        except Exception as e:
            raise ModelError(f"{target}: raised {user_code.describe(e)}") from e
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{target}: returned a {type(module).__name__}; expected a torch.nn.Module. Return the model.")
    if weights:
        load_weights(module, weights)
    return module.cpu().eval()
