"""Where a chain starts: the artifact of an nn.Module, or a model file that is an artifact by itself."""

import copy
import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from optkit import onnx_file, user_code
from optkit.artifact import Artifact, Format, Passport, Precision, files_beside, read_passport
from optkit.artifact.tensors import DimRange, TensorSpec, dimension_faults
from optkit.errors import ArtifactError, ModelError
from optkit.hashing import hash_of, sha256_of
from optkit.pytorch.forward import forward_call, parameter_names, returning_tuple
from optkit.pytorch.guess_inputs import guessed_options, range_options
from optkit.pytorch.infer_inputs import Contract, infer_contract
from optkit.pytorch.origins import Arguments, Origin, call_example, forget_modules_in_memory, open_origin
from optkit.pytorch.outputs import find_outputs
from optkit.pytorch.weights import load_weights, state_sha256, weights_fault
from optkit.record import Document
from optkit.untrusted.paths import path_fault

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
    flatten: bool = False  # forward returns types of its own, so exporters are given its tensors as one tuple
    content_sha256: str  # of its code or file, and of the weights
    state_sha256: str  # of the parameters and buffers as built: a factory must build the same ones each time


def open_artifact(path: Path, dims: Mapping[str, DimRange] | None = None) -> Artifact:
    """Open the artifact that a file is, as `open_passport` does."""
    return open_passport(path, dims).artifact


def open_passport(path: Path, dims: Mapping[str, DimRange] | None = None) -> Passport:
    """Read the passport of a file; that of an ONNX file which has none is what the file itself says, with nothing proven.

    Args:
        path: an artifact made by optkit, or any .onnx file.
        dims: ranges of the named dimensions; they replace those of the passport.

    Raises:
        ArtifactError: no such file, or it says too little of itself.
    """
    if fault := path_fault(path):
        raise ArtifactError(f"{path}: {fault}; expected a model file")
    passport = read_passport(path)
    if passport:
        _check_files(passport.artifact)
        artifact = passport.artifact.model_copy(update={"dims": passport.artifact.dims | dict(dims or {})})
        return passport.model_copy(update={"artifact": artifact})
    if path.suffix == ".onnx":
        return Passport(artifact=onnx_file.describe(path, dims or {}))
    raise ArtifactError(
        f"{path}: has no passport beside it, and only an .onnx file states its own inputs. "
        f"Make it with optkit, or export the model to ONNX first."
    )


def _check_files(artifact: Artifact) -> None:
    """Check that a passport names the files that its ONNX file names: what reads the file would read these.

    Raises:
        ArtifactError: it names others, or a file outside the folder.
    """
    found = onnx_file.facts(artifact.path).files if artifact.format is Format.ONNX else artifact.files
    if set(found) != set(artifact.files):
        one, other = (", ".join(names) or "none" for names in (found, artifact.files))
        raise ArtifactError(
            f"{artifact.path}: names the external data {one}; its passport names {other}. Make the artifact again."
        )


def is_onnx(target: str) -> bool:
    """Whether a source is an ONNX file, which starts a chain as it is, without an nn.Module."""
    return target.endswith(".onnx")


def absolute_source(target: str, base: Path) -> str:
    """Return a source with its path made absolute; a relative one starts at `base`.

    Raises:
        ModelError: it names nothing that a model can come from.
    """
    if is_onnx(target):
        return os.path.abspath(base / os.path.expanduser(target))  # noqa: PTH100, PTH111 - as the targets of code
    return open_origin(target, base).target


def source_fault(target: str) -> str | None:
    """Return what is wrong with an absolute source as far as can be told without running it; None when nothing is."""
    if is_onnx(target):
        fault = path_fault(Path(target))
        return f"{target}: {fault}; expected an ONNX model" if fault else None
    return open_origin(target).fault()


def source_sha256(target: str) -> str:
    """Return the hash of the code or files behind an absolute source.

    Raises:
        ModelError: they cannot be read.
    """
    if is_onnx(target):
        path = Path(target)
        return sha256_of(path, *files_beside(path, onnx_file.facts(path).files))
    return open_origin(target).sha256()


def copy_onnx_source(path: Path, out_dir: Path, dims: Mapping[str, DimRange]) -> Artifact:
    """Copy an ONNX model with its external data into a folder, as the start of a chain.

    Raises:
        ArtifactError: it is no ONNX model, or a file of it is missing.
        ModelError: its named dimensions and the ranges do not fit together.
    """
    found = onnx_file.describe(path, dims)
    if faults := dimension_faults(found.inputs, dims):
        raise ModelError(f"{path}: {'; '.join(faults)}")
    out_dir.mkdir(parents=True, exist_ok=True)
    for file, name in zip(found.all_files, (path.name, *found.files), strict=True):
        (out_dir / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out_dir / name)
    return found.model_copy(update={"path": out_dir.absolute() / path.name})


def make_source(
    target: str,
    out_dir: Path,
    inputs: Sequence[TensorSpec] | None = None,
    dims: Mapping[str, DimRange] | None = None,
    *,
    weights: Path | None = None,
    args: Arguments | None = None,
    outputs: tuple[str, ...] | None = None,
    example: str | None = None,
) -> Artifact:
    """Build the module once, find its outputs, and write the source artifact.

    Args:
        target: a factory, or a model file that holds a module; see `origins`.
        out_dir: where `model.source.json` goes.
        inputs: what the model takes; None reads them off example inputs, and a note says what was found.
        dims: the ranges of the named dimensions; they go before what examples show.
        weights: a state dict to load over what the factory built.
        args: keyword arguments of the factory.
        outputs: names for the flattened outputs, in order; None takes those that the model gives.
        example: `file.py:function` that gives example inputs; None takes those that come with the model.

    Raises:
        ModelError: it cannot be built, loaded or run, or the names do not fit what it returns.
    """
    origin = open_origin(target)
    weights = Path(os.path.abspath(os.path.expanduser(weights))) if weights else None  # noqa: PTH100, PTH111 - one spelling, as that of the target
    if fault := origin.fault() or (weights and weights_fault(weights)):
        raise ModelError(fault)
    module = _build(origin.target, weights, tuple(sorted((args or {}).items())), _content(origin, weights))
    notes = [chosen] if (chosen := origin.choice()) else []
    if not inputs:
        found = _inferred(origin, module, example)
        inputs, dims = found.inputs, found.dims | dict(dims or {})
        notes.append(f"inferred from example inputs; for a recipe:\n{Contract(inputs=inputs, dims=dims).as_recipe()}")
    dims = dict(dims or {})
    if faults := dimension_faults(inputs, dims):
        unknown = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)} - set(dims)
        raise ModelError(f"{target}: {'; '.join(faults)}", add=range_options(unknown))
    inputs = forward_call(module, inputs).inputs  # what a file without names, such as TorchScript, is called with
    found_outputs = find_outputs(module, inputs, dims, outputs)
    source = ModelSource(
        target=origin.relative_to(out_dir),
        weights=os.path.relpath(weights, out_dir) if weights else None,
        args=dict(args or {}),
        outputs=outputs,
        flatten=not found_outputs.plain,
        content_sha256=_content(origin, weights),
        state_sha256=state_sha256(module),
    )
    path = out_dir.absolute() / f"model{SOURCE_SUFFIX}"
    source.write(path)
    return Artifact(
        path=path,
        format=Format.PYTORCH,
        precision=Precision.FP32,
        inputs=inputs,
        outputs=found_outputs.specs,
        dims=dims,
        sha256=sha256_of(path),
        notes=tuple(notes),
    )


def _inferred(origin: Origin, module: "torch.nn.Module", example: str | None) -> Contract:
    given = call_example(example) if example else origin.example(module)
    if given is None:
        names = parameter_names(module)
        takes = f", and forward takes {', '.join(names)}" if names else ""
        guess = guessed_options(module)
        raise ModelError(
            f"{origin.target}: its inputs are not declared{takes}. Declare each with its type and dimensions, as in {guess}, where the "
            f"sizes are a guess from the first layer; or define example_inputs() beside the factory.",
            add=guess,
        )
    return infer_contract(given, module)


def in_memory_notes(source: Artifact) -> tuple[str, ...]:
    """Return what a source artifact says of its module where that was in memory, and so cannot be read anywhere else; else nothing."""
    if source.format is not Format.PYTORCH or not user_code.is_in_memory(ModelSource.read(source.path).target):
        return ()
    return source.notes[:1]


def load_module(artifact: Artifact) -> "torch.nn.Module":
    """Return the module of a source artifact, in evaluation mode, on the CPU. It is built once a process: do not change it.

    Raises:
        ModelError: it cannot be built, or its code or weights are no longer those of the artifact.
    """
    return _load(artifact.path, artifact.sha256)


@functools.lru_cache(maxsize=1)
def _load(path: Path, _sha256: str) -> "torch.nn.Module":
    """Load and verify, once for each content of the artifact: hashing gigabytes of weights takes seconds."""
    source = ModelSource.read(path)
    origin = open_origin(source.target, path.parent)
    weights = Path(os.path.normpath(path.parent / source.weights)) if source.weights else None
    content = _content(origin, weights)
    if content != source.content_sha256:
        raise ModelError(
            f"{origin.target}: its code or weights have changed since its outputs were found. Run it again."
        )
    module = _build(origin.target, weights, tuple(sorted(source.args.items())), content)
    if state_sha256(module) != source.state_sha256:
        raise ModelError(
            f"{origin.target}: built other weights than the last time, so results cannot be compared. "
            f"Fix its random seed, or save the weights and name them; then run with --fresh."
        )
    return returning_tuple(module) if source.flatten else module


def forget_modules() -> None:
    """Drop the modules that are kept for the next use; a module in memory is the caller's."""
    _load.cache_clear()
    _build.cache_clear()
    forget_modules_in_memory()


def _content(origin: Origin, weights: Path | None) -> str:
    return hash_of({"origin": origin.sha256(), "weights": sha256_of(weights) if weights else None})


@functools.lru_cache(maxsize=1)
def _build(target: str, weights: Path | None, args: tuple[tuple[str, Any], ...], _content: str) -> "torch.nn.Module":
    """Build the module, load its weights and set it to evaluation; `_content` makes a changed file another entry."""
    import torch

    module = open_origin(target).build(dict(args))
    if weights:
        # A module in memory shares its weights with the caller's.
        module = copy.deepcopy(module) if user_code.is_in_memory(target) else module
        load_weights(module, weights)
    module = module.cpu()
    # A captured program has no modes; it is what it was when it was captured.
    return module if isinstance(module, torch.fx.GraphModule) else module.eval()
