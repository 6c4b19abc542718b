"""The start of a chain: the artifact of an nn.Module, or a model file that is an artifact by itself."""

import copy
import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import Field

from optkit import onnx_file, user_code
from optkit.artifact import Artifact, Format, Passport, Precision, files_beside, read_passport
from optkit.artifact.tensors import DimRange, TensorSpec, dimension_faults
from optkit.data import Feeds
from optkit.errors import ArtifactError, ModelError
from optkit.hashing import hash_of, sha256_of
from optkit.pt2_file import native_code_fault, read_package
from optkit.pytorch.forward import forward_call, nested_names, parameter_names, returning_tuple, taking_flat
from optkit.pytorch.guess_inputs import guessed_options, range_options
from optkit.pytorch.infer_inputs import InputContract, infer_contract
from optkit.pytorch.origins import Arguments, ModuleOrigin, call_example, forget_modules_in_memory, open_origin
from optkit.pytorch.outputs import find_outputs
from optkit.pytorch.weights import load_weights, state_sha256, weights_fault
from optkit.record import Document
from optkit.system.space import check_space
from optkit.untrusted.paths import path_fault

if TYPE_CHECKING:
    import torch

SOURCE_SUFFIX = ".source.json"


class _Built(NamedTuple):
    """A module, the notes on its weights, and what its code read while it was built."""

    module: "torch.nn.Module"
    notes: tuple[str, ...]
    reads: user_code.Reads


class ModelSource(Document):
    """A factory of an nn.Module with its weights and arguments; paths are relative to the folder of this file."""

    schema_id: ClassVar[str] = "optkit/source/1"

    target: str
    weights: str | None = None
    weights_key: str | None = None  # of the state dict in the file of weights
    args: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    outputs: tuple[str, ...] | None = None  # names for the outputs, in order
    nested: tuple[str, ...] = ()  # the inputs, where some are parts of a nested parameter
    flatten: bool = False  # forward returns its own types, so exporters get its tensors as one tuple
    content_sha256: str  # of its code or file, and of the weights
    reads: dict[str, str] = Field(default_factory=dict)  # what the code read while it built the model: name -> state
    state_sha256: str  # of the built parameters and buffers: a factory must build the same ones each time


def open_artifact(path: Path, dims: Mapping[str, DimRange] | None = None) -> Artifact:
    """Return the artifact of a file, by `open_passport`."""
    return open_passport(path, dims).artifact


def open_passport(path: Path, dims: Mapping[str, DimRange] | None = None) -> Passport:
    """Return the passport of a file; for an ONNX file without one, a passport of the file's own facts, with nothing proven.

    Args:
        path: an artifact made by optkit, or any .onnx file.
        dims: ranges of the named dimensions; they replace those of the passport.

    Raises:
        ArtifactError: no such file, or it has no passport and is not an ONNX file.
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
    if native_code_fault(path):
        facts = read_package(path)
        built_for = " ".join(filter(None, (facts.device, facts.machine, facts.instruction_set))) or "an unknown device"
        raise ArtifactError(
            f"{path}: is a package of AOTInductor without a passport, for {built_for}, with {facts.libraries} shared libraries that need "
            f"{', '.join(facts.needed) or 'nothing'}. A package is native code, which is executed when it is loaded. It was not loaded. "
            f"Compile the model with optkit compile, or copy the passport too."
        )
    raise ArtifactError(
        f"{path}: has no passport beside it; only an .onnx file declares its own inputs. "
        f"Make it with optkit, or export the model to ONNX first."
    )


def _check_files(artifact: Artifact) -> None:
    """Check that a passport and its ONNX file name the same external data.

    Raises:
        ArtifactError: they differ, or name a file outside the folder.
    """
    found = onnx_file.facts(artifact.path).files if artifact.format is Format.ONNX else artifact.files
    if set(found) != set(artifact.files):
        one, other = (", ".join(names) or "none" for names in (found, artifact.files))
        raise ArtifactError(
            f"{artifact.path}: names the external data {one}; its passport names {other}. Make the artifact again."
        )


def is_onnx(target: str) -> bool:
    """Whether a source is an ONNX file; such a chain has no nn.Module."""
    return target.endswith(".onnx")


def absolute_source(target: str, base: Path) -> str:
    """Return a source with its path made absolute; a relative one starts at `base`.

    Raises:
        ModelError: it is not a valid source.
    """
    if is_onnx(target):
        return os.path.abspath(base / os.path.expanduser(target))  # noqa: PTH100, PTH111 - as the targets of code
    return open_origin(target, base).target


def source_fault(target: str) -> str | None:
    """Return the fault of an absolute source that can be found without running it, or None."""
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
    """Copy an ONNX model with its external data into a folder: the start of a chain.

    Raises:
        ArtifactError: it is not an ONNX model, or one of its files is missing.
        ModelError: its named dimensions and the ranges do not fit together.
    """
    found = onnx_file.describe(path, dims)
    if faults := dimension_faults(found.inputs, dims):
        raise ModelError(f"{path}: {'; '.join(faults)}")
    check_space(out_dir, found.size_bytes, "the copy of the model")
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
    weights_key: str | None = None,
    args: Arguments | None = None,
    outputs: tuple[str, ...] | None = None,
    example: str | None = None,
    data: str | None = None,
) -> Artifact:
    """Build the module once, find its outputs, and write the source artifact.

    Args:
        target: a factory, or a model file with a module; see `origins`.
        out_dir: the folder of `model.source.json`.
        inputs: the inputs of the model; None infers them from example inputs, and a note reports them.
        dims: the ranges of the named dimensions; they have priority over inferred ones.
        weights: a state dict to load into the built module.
        weights_key: the key of the state dict, where the file has several.
        args: keyword arguments of the factory.
        outputs: names for the flattened outputs, in order; None uses the model's own.
        example: `file.py:function` that returns example inputs; None uses those of the model.
        data: real samples, which are run in the place of random values; None for none.

    Raises:
        ModelError: the module cannot be built, loaded or run, or the names do not fit its outputs.
    """
    origin = open_origin(target)
    weights = Path(os.path.abspath(os.path.expanduser(weights))) if weights else None  # noqa: PTH100, PTH111 - the same spelling as the target
    if fault := origin.fault() or (weights and weights_fault(weights)):
        raise ModelError(fault)
    if user_code.changed_here(origin.target):
        forget_modules()
    arguments = tuple(sorted((args or {}).items()))
    built = _build(origin.target, weights, weights_key, arguments, _content(origin, weights))
    module = built.module
    notes = [*([chosen] if (chosen := origin.choice()) else []), *built.notes]
    if not inputs:
        found = _inferred(origin, module, example)
        inputs, dims = found.inputs, found.dims | dict(dims or {})
        notes.append(
            f"inferred from example inputs; for a recipe:\n{InputContract(inputs=inputs, dims=dims).as_recipe()}"
        )
    dims = dict(dims or {})
    if faults := dimension_faults(inputs, dims):
        unknown = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)} - set(dims)
        raise ModelError(f"{target}: {'; '.join(faults)}", add=range_options(unknown))
    nested = nested_names(module, inputs)
    module = taking_flat(module, nested) if nested else module
    inputs = forward_call(module, inputs).inputs  # the positional order, for files without names such as TorchScript
    found_outputs = find_outputs(module, inputs, dims, outputs, Feeds(data, inputs) if data else None)
    if found_outputs.random:
        notes.append(f"the model does not accept the usual random values; used instead: {found_outputs.random}")
    source = ModelSource(
        target=origin.relative_to(out_dir),
        weights=os.path.relpath(weights, out_dir) if weights else None,
        weights_key=weights_key,
        args=dict(args or {}),
        outputs=outputs,
        nested=nested,
        flatten=not found_outputs.plain,
        content_sha256=_content(origin, weights),
        reads=built.reads,
        state_sha256=state_sha256(built.module),
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
        random=found_outputs.random,
    )


def _inferred(origin: ModuleOrigin, module: "torch.nn.Module", example: str | None) -> InputContract:
    given = call_example(example) if example else origin.example(module)
    if given is None:
        names = parameter_names(module)
        takes = f", and forward takes {', '.join(names)}" if names else ""
        guess = guessed_options(module)
        raise ModelError(
            f"{origin.target}: its inputs are not declared{takes}. Declare each with its type and dimensions, as in {guess} (the sizes "
            f"are a guess from the first layer); or define example_inputs() beside the factory.",
            add=guess,
        )
    return infer_contract(given, module)


def in_memory_notes(source: Artifact) -> tuple[str, ...]:
    """Return the note on a module that was in memory, which has no other source; empty for other sources."""
    if source.format is not Format.PYTORCH or not user_code.is_in_memory(ModelSource.read(source.path).target):
        return ()
    return source.notes[:1]


def load_module(artifact: Artifact) -> "torch.nn.Module":
    """Return the module of a source artifact, in evaluation mode, on the CPU. It is shared in this process: do not change it.

    Raises:
        ModelError: it cannot be built, or its code or weights have changed.
    """
    return _load(artifact.path, artifact.sha256)


@functools.lru_cache(maxsize=1)
def _load(path: Path, _sha256: str) -> "torch.nn.Module":
    """Load and verify, once for each content of the artifact: hashing gigabytes of weights takes seconds."""
    source = ModelSource.read(path)
    origin = open_origin(source.target, path.parent)
    weights = _weights(source, path)
    content = _content(origin, weights)
    if content != source.content_sha256:
        raise ModelError(
            f"{origin.target}: its code or weights have changed since its outputs were found. Run it again."
        )
    if read := user_code.changed((source.reads,), (origin.target,)):
        raise ModelError(
            f"{origin.target}: {read}, which its code reads, has changed since its outputs were found. Run it again."
        )
    arguments = tuple(sorted(source.args.items()))
    module = _build(origin.target, weights, source.weights_key, arguments, content).module
    if state_sha256(module) != source.state_sha256:
        raise ModelError(
            f"{origin.target}: built different weights than last time, so results cannot be compared. "
            f"Set its random seed, or save the weights and give them with --weights; then run with --fresh."
        )
    module = taking_flat(module, source.nested) if source.nested else module
    return returning_tuple(module) if source.flatten else module


def content_of(source: ModelSource, path: Path) -> str:
    """Return the present hash of the code or file and the weights that a source file at `path` names.

    Raises:
        ModelError: one of them cannot be read.
    """
    return _content(open_origin(source.target, path.parent), _weights(source, path))


def _weights(source: ModelSource, path: Path) -> Path | None:
    return Path(os.path.normpath(path.parent / source.weights)) if source.weights else None


def forget_modules() -> None:
    """Clear the cached modules; modules in memory stay, because the caller owns them."""
    _load.cache_clear()
    _build.cache_clear()
    forget_modules_in_memory()


def _content(origin: ModuleOrigin, weights: Path | None) -> str:
    return hash_of({"origin": origin.sha256(), "weights": sha256_of(weights) if weights else None})


@functools.lru_cache(maxsize=1)
def _build(
    target: str, weights: Path | None, weights_key: str | None, args: tuple[tuple[str, Any], ...], _content: str
) -> "_Built":
    """Build the module, load its weights and set evaluation mode; `_content` makes a changed file another cache entry."""
    import torch

    with user_code.recording() as seen:
        module, notes = open_origin(target).build(dict(args)), list[str]()
    reads = user_code.reads_in(seen, target)
    if weights:
        # A module in memory shares its weights with the caller's.
        module = copy.deepcopy(module) if user_code.is_in_memory(target) else module
        notes = load_weights(module, weights, weights_key)
    module = module.cpu()
    # A captured program has no modes: it keeps the mode of its capture.
    return _Built(module if isinstance(module, torch.fx.GraphModule) else module.eval(), tuple(notes), reads)
