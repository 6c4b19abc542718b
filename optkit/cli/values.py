"""Parsing of option values.

`optkit.api` is imported only when an option is given, so that --help does not wait for it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optkit.artifact.tensors import DimRange


def pairs(option: str, items: Sequence[str] | None, *, last: bool = False) -> dict[str, str]:
    """Split name=value options; see `optkit.api.arguments.pairs`.

    Raises:
        RecipeError: an option has no `=`, or a name is given twice.
    """
    from optkit.api.arguments import pairs as split

    return split(option, items, last=last)


def parse_dims(items: Sequence[str] | None) -> "dict[str, DimRange]":
    """Parse --dim options.

    Raises:
        RecipeError: a range has invalid syntax, or its numbers are not in ascending order.
    """
    from optkit.api.arguments import as_dims

    return as_dims(pairs("--dim", items, last=True))


def parse_sizes(option: str, text: str | None) -> tuple[int, ...]:
    """Parse integers separated by commas.

    Raises:
        RecipeError: a part is not an integer.
    """
    from optkit.errors import RecipeError

    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as e:
        raise RecipeError(f"{option} {text}: expected numbers separated by commas, for example 1,8,64") from e


def parse_args(items: Sequence[str] | None) -> "dict[str, str | int | float | bool | None]":
    """Parse --set options as arguments of a factory function; values are YAML, so 3 is a number and true is a bool.

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
                f"--set {name}={text}: is a {type(value).__name__}; expected a number, text, true or false"
            )
        found[name] = value
    return found


def parse_yaml_options(option: str, items: Sequence[str] | None) -> dict[str, object]:
    """Parse name=value options with YAML values, for example resize=256 or mean=[0.5,0.5,0.5].

    Raises:
        RecipeError: a value is not valid YAML.
    """
    from optkit.errors import RecipeError
    from optkit.untrusted.documents import parse_yaml

    return {name: parse_yaml(text, f"{option} {name}", RecipeError) for name, text in pairs(option, items).items()}
