"""From the text of options to the values that the functions of `optkit` take.

`optkit.api` is imported when an option was given: it loads what --help must not wait for.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optkit.artifact.tensors import DimRange


def pairs(option: str, items: Sequence[str] | None, *, last: bool = False) -> dict[str, str]:
    """Split name=value options, at the first =, or at the last one where a name may hold some and no value does.

    Raises:
        RecipeError: there is no =, or a name is given twice.
    """
    from optkit.api.arguments import pairs as split

    return split(option, items, last=last)


def parse_dims(items: Sequence[str] | None) -> "dict[str, DimRange]":
    """Read --dim options.

    Raises:
        RecipeError: one does not follow the grammar, or its numbers are not ordered.
    """
    from optkit.api.arguments import as_dims

    return as_dims(pairs("--dim", items, last=True))


def parse_sizes(option: str, text: str | None) -> tuple[int, ...]:
    """Read numbers that are separated by commas.

    Raises:
        RecipeError: something else is there.
    """
    from optkit.errors import RecipeError

    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as e:
        raise RecipeError(f"{option} {text}: expected numbers separated by commas, as in 1,8,64") from e


def parse_args(items: Sequence[str] | None) -> "dict[str, str | int | float | bool | None]":
    """Read --set options as arguments of a factory; values are YAML, so 3 is a number and true a bool.

    Raises:
        RecipeError: a value is a list or a mapping.
    """
    from optkit.errors import RecipeError
    from optkit.untrusted.documents import parse_yaml

    found: dict[str, str | int | float | bool | None] = {}
    for name, text in pairs("--set", items).items():
        value = parse_yaml(text, f"--set {name}", RecipeError)
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise RecipeError(
                f"--set {name}={text}: is a {type(value).__name__}; expected a number, a text, true or false"
            )
        found[name] = value
    return found


def parse_yaml_options(option: str, items: Sequence[str] | None) -> dict[str, object]:
    """Read name=value options whose values are YAML, as in resize=256 or mean=[0.5,0.5,0.5].

    Raises:
        RecipeError: a value is no YAML.
    """
    from optkit.errors import RecipeError
    from optkit.untrusted.documents import parse_yaml

    return {name: parse_yaml(text, f"{option} {name}", RecipeError) for name, text in pairs(option, items).items()}
