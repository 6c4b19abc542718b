"""The exceptions that optkit raises for faults that its user can fix.

    OptkitError
    ├── RecipeError          the recipe, or the command's options, cannot be executed
    ├── MissingDependency    a package that this step needs is not installed
    ├── ModelError           the model source cannot be loaded, built or run
    ├── FeedError            an array does not fit the declared inputs, or data cannot be read
    ├── ArtifactError        a file is missing, damaged, or has another format
    ├── OutputError          a result cannot be written to its path
    ├── StageError           a stage could not make its artifact
    └── RunnerError          an artifact could not be loaded or run on the requested device

A message reads *where: what was found; what was expected. What to do.* A negative verdict (parity, accuracy, a gate) is a
result and not an exception. A bug in optkit raises another exception and keeps its traceback.
"""


class OptkitError(Exception):
    """The base class: a fault of the input, the environment or a library, with a message for the person at the terminal.

    `add` has the options that would let the same command succeed, where they are known.
    """

    def __init__(self, message: str = "", *, add: str = "") -> None:
        super().__init__(message)
        self.add = add


class RecipeError(OptkitError):
    """The recipe cannot be executed; the message lists every fault that was found in it."""


class MissingDependency(OptkitError):
    """A package that this step needs is not installed."""


class ModelError(OptkitError):
    """The model source cannot be loaded, built or run."""


class FeedError(OptkitError):
    """An array does not fit the declared inputs, or a data source cannot be read."""


class ArtifactError(OptkitError):
    """A file is missing, damaged, or has another format than expected."""


class OutputError(OptkitError):
    """A result cannot be written to its path; nothing was changed there."""


class StageError(OptkitError):
    """A stage could not make its artifact; nothing was left behind."""


class RunnerError(OptkitError):
    """An artifact could not be loaded or run on the requested device."""


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an error, or the name of its type where it has no text."""
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
    """Whether Ctrl-C caused an error: Python 3.11 wraps it in a RuntimeError while a class is being created."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, KeyboardInterrupt):
        found = found.__cause__ or found.__context__
    return found is not None
