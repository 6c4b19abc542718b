"""Model files that are packaged: those of optkit with their passport, and those of others by their own facts or declared inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optkit.api.arguments import Dims, Inputs, ModelFile, as_dims, as_inputs, model_path, open_model_passport
from optkit.artifact import Passport, read_passport
from optkit.artifact.tensors import DimRange, TensorSpec, dimension_faults
from optkit.errors import RecipeError, StageError
from optkit.onnx_file import load_graph, nodes
from optkit.pytorch.program_file import program_contract
from optkit.pytorch.script_file import argument_names, describe_script, load_script, served_form
from optkit.untrusted.paths import path_fault

_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")
SCRIPTS = (".pt", ".pth", ".ts", ".torchscript", ".jit")


@dataclass(frozen=True)
class Packagable:
    """A model to package, and what the user is to know of how it became one."""

    passport: Passport
    notes: tuple[str, ...] = ()


def open_packagable(model: ModelFile, dims: Dims | None, inputs: Inputs | None, folder: Path) -> Packagable:
    """Open a model file to package it.

    Args:
        model: a file of optkit, any .onnx file, or a TorchScript or .pt2 file.
        dims: ranges of the named dimensions.
        inputs: of a TorchScript file without a passport, which does not state them.
        folder: for files that are made of it; they must live until it is packaged.

    Raises:
        OptkitError: it cannot be packaged; says what to add.
    """
    path = model_path(model)
    folder.mkdir()
    own = isinstance(model, Passport) or path.suffix == ".onnx" or path_fault(path) or read_passport(path) is not None
    if own or not (path.suffix in SCRIPTS or path.suffix == ".pt2"):
        if inputs:
            raise RecipeError(
                f"--input: is for a TorchScript file without a passport; {path} states its inputs. Remove it."
            )
        if path.suffix == ".onnx" and not path_fault(path):
            _refuse_custom_operators(path)
        return Packagable(open_model_passport(model, dims))
    if path.suffix == ".pt2":
        return _exported(path, dims, folder)
    return _script(path, as_dims(dims), as_inputs(inputs) if inputs else (), folder)


def _exported(path: Path, dims: Dims | None, folder: Path) -> Packagable:
    """Export a saved program to ONNX, which servers take, with its own inputs and ranges."""
    from optkit.api.export import export_onnx

    says = program_contract(path)
    ranges = {**(says.dims if says else {}), **as_dims(dims)}
    inputs = says.inputs if says else None
    passport = export_onnx(path, folder / f"{path.stem}.onnx", inputs=inputs, dims=ranges)
    if passport.failures:
        raise StageError(f"{path}: its ONNX form gives other answers: {'; '.join(passport.failures)}")
    note = f"{path.name} was exported to ONNX, because servers take no exported program; its answers are equal"
    return Packagable(passport, (note,))


def _script(path: Path, dims: Mapping[str, DimRange], inputs: Sequence[TensorSpec], folder: Path) -> Packagable:
    if not inputs:
        names = argument_names(load_script(path))
        add = " ".join(f'--input "{name}:float32[batch,4]"' for name in names)
        raise RecipeError(
            f"{path}: is TorchScript without a passport, and states the names of its inputs, not their types and shapes. "
            f"Add {add} --dim batch=1:8:64 with your own values."
        )
    if faults := dimension_faults(inputs, dims):
        raise RecipeError(f"{path}: {'; '.join(faults)}")
    artifact = describe_script(path, inputs, dims)
    other = served_form(artifact, folder)
    if other is None:
        return Packagable(Passport(artifact=artifact))
    results = ", ".join(spec.name for spec in other.outputs)
    note = (
        f"{path.name} was wrapped, because servers take only tensors and a flat tuple of tensors: the wrapper returns {results}, "
        f"in this order"
    )
    return Packagable(Passport(artifact=other), (note,))


def _refuse_custom_operators(path: Path) -> None:
    """Refuse an ONNX model whose operators are in a library of the user's: it cannot be run here, so that nothing of it is proven."""
    model = load_graph(path)
    functions = {(function.domain, function.name) for function in model.functions}
    custom = sorted(
        {
            f"{node.op_type} of domain {node.domain!r}"
            for node in nodes(model.graph)
            if node.domain not in _KNOWN_DOMAINS
            and not node.domain.startswith("com.microsoft")
            and (node.domain, node.op_type) not in functions
        }
    )
    if custom:
        raise StageError(
            f"{path}: has {', '.join(custom[:4])}, which ONNX Runtime does not have; expected its own operators. A library of yours must be "
            f"registered: optkit cannot run the model without it, and does not package what it cannot run. For Triton, write config.pbtxt "
            f'with model_operations {{ op_library_filename: "/path/in/the/server/lib.so" }}, and check it with optkit lint.'
        )
