"""The exceptions that optkit raises for faults that its user can mend.

    OptkitError
    ├── RecipeError          the recipe, or the options in its place, cannot be carried out
    ├── MissingDependency    a package that this step needs is not installed
    ├── ModelError           the model source cannot be loaded, built or run
    ├── FeedError            an array does not fit the declared inputs, or data cannot be read
    ├── ArtifactError        a file is not the artifact that it should be
    ├── OutputError          a result cannot be written where it was asked for
    ├── StageError           a stage could not make its artifact
    └── RunnerError          an artifact could not be loaded or run on the device asked for

A message reads *where: what was found; what was expected. What to do.* A negative verdict (parity, accuracy, a gate) is a
result and no exception; a bug in optkit raises anything else and keeps its traceback.
"""


class OptkitError(Exception):
    """The base: a fault of the input, the environment or a library, told in words for the person at the terminal.

    `add` are options that would let the same command go on, where they can be told.
    """

    def __init__(self, message: str = "", *, add: str = "") -> None:
        super().__init__(message)
        self.add = add


class RecipeError(OptkitError):
    """The recipe cannot be carried out; lists every fault that was found in it."""


class MissingDependency(OptkitError):
    """A package that the asked step needs is not installed."""


class ModelError(OptkitError):
    """The model source cannot be loaded, built or run."""


class FeedError(OptkitError):
    """An array does not fit the declared inputs, or a data source cannot be read."""


class ArtifactError(OptkitError):
    """A file is missing, damaged, or not of the format that was expected."""


class OutputError(OptkitError):
    """A result cannot be written where it was asked for; nothing was changed there."""


class StageError(OptkitError):
    """A stage could not make its artifact; nothing was left behind."""


class RunnerError(OptkitError):
    """An artifact could not be loaded, or run on the device that was asked for."""


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an error, or its type's name where it has no text."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is what an error comes from: Python 3.11 wraps it in a RuntimeError where a class is being made."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, KeyboardInterrupt):
        found = found.__cause__ or found.__context__
    return found is not None
