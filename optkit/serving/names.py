"""The name that a model has on a server."""

import re

from optkit.errors import StageError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")  # with what is put behind it, a file's name has at most 255


def name_fault(name: str) -> str | None:
    """Return why a text cannot name a model on a server, where it is a folder or a file; None when it can."""
    if _NAME.fullmatch(name):
        return None
    return f"{name!r} cannot name a model; expected up to 200 letters, digits, '_', '.' and '-', and neither '.' nor '-' first"


def model_name(given: str | None, default: str) -> str:
    """Return the name of the model on the server.

    Raises:
        StageError: the default, which comes from elsewhere, cannot be one.
    """
    fault = name_fault(given or default)
    if fault:
        raise StageError(f"{fault}. Set the name in the serve entry, or use --name.")
    return given or default
