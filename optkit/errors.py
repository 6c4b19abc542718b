"""Exceptions for errors that the user can fix.

    OptkitError
    ├── RecipeError          the recipe or the options of a command are invalid
    ├── MissingDependency    a required package is not installed
    ├── ModelError           the model source cannot be loaded, built or run
    ├── FeedError            an array does not match the declared inputs, or a data source cannot be read
    ├── ArtifactError        a file is missing, damaged or in an unexpected format
    ├── OutputError          a result cannot be written to its path
    ├── StageError           a stage cannot make its artifact
    └── RunnerError          an artifact cannot be loaded or run on the requested device

A message has the form *where: what was found; what was expected. What to do.* A negative verdict (parity, accuracy, a gate) is a
result, not an exception. A bug in optkit raises another exception and keeps its traceback.
"""


class OptkitError(Exception):
    """Base class: an error in the input, the environment or a library, with a message for the user.

    `add` has the options to add to the command so that it succeeds; empty if they are unknown.
    """

    def __init__(self, message: str = "", *, add: str = "") -> None:
        super().__init__(message)
        self.add = add


class RecipeError(OptkitError):
    """The recipe or the options of a command are invalid; the message lists every fault."""


class MissingDependency(OptkitError):
    """A required package is not installed."""


class ModelError(OptkitError):
    """The model source cannot be loaded, built or run."""


class FeedError(OptkitError):
    """An array does not match the declared inputs, or a data source cannot be read."""


class ArtifactError(OptkitError):
    """A file is missing, damaged or in an unexpected format."""


class OutputError(OptkitError):
    """A result cannot be written to its path; nothing was changed at that path."""


class StageError(OptkitError):
    """A stage cannot make its artifact; no incomplete file is left."""


class RunnerError(OptkitError):
    """An artifact cannot be loaded or run on the requested device."""


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an error message, or the name of the error type if the message is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def out_of_memory(error: MemoryError) -> str:
    """Return what to say when memory ran out."""
    text = first_line(error) if str(error) else "no more could be allocated"
    return f"memory ran out: {text}. Free memory, or use smaller batches."


def raise_if_interrupted(error: BaseException) -> None:
    """Go on with Ctrl-C where it caused an error that would otherwise be recorded, and the next step begun."""
    if interrupted(error):
        raise KeyboardInterrupt from error


def interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C caused an error. Python 3.11 wraps KeyboardInterrupt in a RuntimeError during the creation of a class."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, KeyboardInterrupt):
        found = found.__cause__ or found.__context__
    return found is not None
