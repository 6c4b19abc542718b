"""A model file, open to be run."""

from typing import Literal

from optkit.api.arguments import Dims, ModelFile, as_device, as_dims, model_path
from optkit.pytorch.source import open_artifact
from optkit.runners import Runner, open_runner


def open(
    model: ModelFile, *, device: Literal["cpu", "cuda"] = "cpu", threads: int | None = None, dims: Dims | None = None
) -> Runner:
    """Return the runner of a model file; use it in `with`, which loads the model and frees it.

    `runner.infer({"image": x})` takes input name -> array and returns output name -> array, owned by the caller.

    Args:
        model: a path, or the passport that a function returned.
        device: where it runs; never another one in its place.
        threads: of one inference on a CPU; None takes the runtime's default.
        dims: the range of each named dimension, where no passport has it.

    Raises:
        ArtifactError: it is no model file.
        RunnerError: when it is entered: it cannot be loaded on the device.
    """
    return open_runner(open_artifact(model_path(model), as_dims(dims)), as_device(device), threads)
