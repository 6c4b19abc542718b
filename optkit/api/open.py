"""`optkit.open`: open a model file to run it."""

from typing import Literal

from optkit.api.arguments import Dims, ModelFile, as_device, as_dims, model_path
from optkit.pytorch.source import open_artifact
from optkit.runners import Runner, open_runner


def open(
    model: ModelFile, *, device: Literal["cpu", "cuda"] = "cpu", threads: int | None = None, dims: Dims | None = None
) -> Runner:
    """Return the runner of a model file. Use it in a `with` block, which loads the model and frees it.

    `runner.infer({"image": x})` takes input name -> array and returns output name -> array; the caller owns the arrays.

    Args:
        model: path of the file, or a passport returned by another function.
        device: device to run on, without fallback to another device.
        threads: threads of one inference on a CPU; None uses the default of the runtime.
        dims: range of each named dimension as (min, opt, max); needed only if the passport has none.

    Raises:
        ArtifactError: the file is not a model file.
        RunnerError: raised on entering the `with` block: the model cannot be loaded on the device.
    """
    return open_runner(open_artifact(model_path(model), as_dims(dims)), as_device(device), threads)
