"""From the text of options to values of the API."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from optkit.errors import RecipeError

if TYPE_CHECKING:
    from optkit.artifact import Artifact
    from optkit.artifact.findings import Tolerance
    from optkit.artifact.tensors import DimRange, TensorSpec
    from optkit.check import Requirements
    from optkit.data import Samples
    from optkit.data.preprocessing import ImagePreprocessing
    from optkit.record import Record
    from optkit.runners import Device

R = TypeVar("R", bound="Record")


def pairs(option: str, items: Sequence[str] | None, *, last: bool = False) -> dict[str, str]:
    """Split name=value options, at the first =, or at the last one where a name may hold some and no value does.

    Raises:
        RecipeError: there is no =, or a name is given twice.
    """
    found: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.rpartition("=") if last else item.partition("=")
        if not equals or not name:
            raise RecipeError(f"{option} {item}: expected name=value")
        if name in found:
            raise RecipeError(f"{option} {item}: {name!r} is given twice")
        found[name] = value
    return found


def settings(cls: "type[R]", **given: object) -> "R":
    """Build a record from options.

    Raises:
        RecipeError: a value does not fit; names every option at fault.
    """
    from pydantic import ValidationError

    from optkit.record import faults

    try:
        return cls.model_validate(given)
    except ValidationError as e:
        lines = [line.removeprefix("document: ") for line in faults(e)]
        raise RecipeError("; ".join(_as_option(line) for line in lines)) from e


def _as_option(fault: str) -> str:
    """Return a fault of a key as one of the option that gave it."""
    key, colon, what = fault.partition(":")
    if colon:
        return f"--{key.replace('_', '-')}{colon}{what}"
    first, *words = fault.split(" ")  # a fault of several keys, which begins with one and may name others
    return " ".join([f"--{first.replace('_', '-')}", *(f"--{w.replace('_', '-')}" if "_" in w else w for w in words)])


def parse_sizes(option: str, text: str | None) -> tuple[int, ...]:
    """Read numbers that are separated by commas.

    Raises:
        RecipeError: something else is there.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as e:
        raise RecipeError(f"{option} {text}: expected numbers separated by commas, as in 1,8,64") from e


def parse_args(items: Sequence[str] | None) -> "dict[str, str | int | float | bool | None]":
    """Read --set options as arguments of a factory; values are YAML, so 3 is a number and true a bool.

    Raises:
        RecipeError: a value is a list or a mapping.
    """
    import yaml

    found: dict[str, str | int | float | bool | None] = {}
    for name, text in pairs("--set", items).items():
        value = yaml.safe_load(text)
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise RecipeError(
                f"--set {name}={text}: is a {type(value).__name__}; expected a number, a text, true or false"
            )
        found[name] = value
    return found


def parse_image(items: Sequence[str] | None) -> "ImagePreprocessing | None":
    """Read --image options, whose values are YAML, as in resize=256 or mean=[0.5,0.5,0.5]; None without any.

    Raises:
        RecipeError: there is no such key, or a value does not fit.
    """
    import yaml
    from pydantic import ValidationError

    from optkit.data.preprocessing import ImagePreprocessing
    from optkit.record import faults

    if not items:
        return None
    try:
        return ImagePreprocessing.model_validate(
            {name: yaml.safe_load(text) for name, text in pairs("--image", items).items()}
        )
    except ValidationError as e:
        raise RecipeError("; ".join(f"--image {line.removeprefix('document: ')}" for line in faults(e))) from e
    except yaml.YAMLError as e:
        raise RecipeError(
            f"--image {' '.join(items)}: a value cannot be read; expected as in mean=[0.5,0.5,0.5]"
        ) from e


def parse_inputs(items: Sequence[str] | None, option: str = "--input") -> "tuple[TensorSpec, ...]":
    """Read --input options, or others of their form; none means that they are read off example inputs.

    Raises:
        RecipeError: one does not follow the grammar.
    """
    from optkit.artifact.tensors import TensorSpec

    try:
        return tuple(TensorSpec.parse(item) for item in items or ())
    except ValueError as e:
        raise RecipeError(f"{option}: {e}") from e


def parse_dims(items: Sequence[str] | None) -> "dict[str, DimRange]":
    """Read --dim options.

    Raises:
        RecipeError: one does not follow the grammar, or its numbers are not ordered.
    """
    from pydantic import ValidationError

    from optkit.artifact.tensors import DimRange
    from optkit.record import faults
    from optkit.untrusted.names import name_text_fault

    found: dict[str, DimRange] = {}
    for name, text in pairs("--dim", items, last=True).items():
        if fault := name_text_fault(name):
            raise RecipeError(f"--dim: {fault}")
        try:
            found[name] = DimRange.parse(text)
        except ValidationError as e:
            raise RecipeError(f"--dim {name}={text}: {'; '.join(faults(e)).removeprefix('document: ')}") from e
        except ValueError as e:
            raise RecipeError(f"--dim {name}={text}: {e}") from e
    return found


def parse_share(option: str, text: str | None) -> float | None:
    """Read a share, as 5% or 0.05.

    Raises:
        RecipeError: it is no number.
    """
    if text is None:
        return None
    number, percent, rest = text.strip().partition("%")
    try:
        return float(number) / (100 if percent else 1) if not rest else float(text)
    except ValueError as e:
        raise RecipeError(f"{option} {text}: expected a share, as in 5% or 0.05") from e


def parse_device(text: str) -> "Device":
    """Read --device.

    Raises:
        RecipeError: it is no device.
    """
    from optkit.runners import Device

    try:
        return Device(text)
    except ValueError as e:
        raise RecipeError(f"--device {text}: expected {' or '.join(Device)}") from e


def open_file(path: Path, dims: Sequence[str] | None) -> "Artifact":
    """Open a model file whose named dimensions all have a range.

    Raises:
        ArtifactError: it is no model file.
        RecipeError: a dimension has no range; says what to add.
    """
    from optkit.artifact.tensors import dim_option
    from optkit.pytorch.source import open_artifact

    artifact = open_artifact(path, parse_dims(dims))
    used = {dim for spec in artifact.inputs for dim in spec.shape if isinstance(dim, str)}
    missing, unknown = sorted(used - set(artifact.dims)), sorted(set(artifact.dims) - used)
    if missing:
        add = " ".join(map(dim_option, missing))
        raise RecipeError(f"{path}: no range is known for {', '.join(missing)}. Add {add} with your own numbers.")
    if unknown:
        raise RecipeError(
            f"--dim {unknown[0]}: no input of {path} uses it; they use {', '.join(sorted(used)) or 'none'}"
        )
    return artifact


def samples_of(artifact: "Artifact", data: str | None) -> "Samples":
    """Return where values for an artifact come from."""
    from optkit.data import Feeds, Samples, absolute_data

    real = Feeds(absolute_data(data, Path()), artifact.inputs) if data else None
    return Samples(artifact.inputs, artifact.dims, real)


def requirements(
    artifact_evaluation: str | None, atol: float | None, rtol: float | None, device: str
) -> "Requirements":
    """Return what a proof asks."""
    from optkit.artifact import Precision
    from optkit.check import Requirements
    from optkit.user_code import absolute_target

    given = tolerance(atol, rtol)
    return Requirements(
        tolerances=dict.fromkeys(Precision, given) if given else {},
        evaluation=absolute_target(artifact_evaluation, Path()) if artifact_evaluation else None,
        device=parse_device(device),
    )


def tolerance(atol: float | None, rtol: float | None) -> "Tolerance | None":
    """Return the tolerance that was asked for; None for that of the precision."""
    from optkit.artifact.findings import Tolerance

    return None if atol is None and rtol is None else settings(Tolerance, atol=atol or 0.0, rtol=rtol or 0.0)
