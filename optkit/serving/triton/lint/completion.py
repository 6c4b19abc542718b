"""Models that complete their configuration when they load (T102)."""

from optkit.errors import ArtifactError
from optkit.serving.triton.lint.python_code import read_python
from optkit.serving.triton.lint.repository import Model
from optkit.untrusted.paths import is_file, name_fault

_READ_THEIR_FILE = {"onnxruntime", "tensorrt", "tensorflow", "openvino"}


def completes(model: Model) -> bool:
    """Return whether the code of a Python model has auto_complete_config."""
    if model.backend != "python" or model.filename is None or name_fault(model.filename):
        return False
    for folder in model.loaded.values():
        try:
            if is_file(folder / model.filename) and read_python(folder / model.filename).completes:
                return True
        except ArtifactError:
            continue  # T310 reports it
    return False


def without_configuration(model: Model) -> str | None:
    """Return what completes a model that has no configuration, or None if nothing does."""
    if model.backend in _READ_THEIR_FILE:
        return "the server loads it only by auto-completion"
    if completes(model):
        return "its model.py has auto_complete_config: completed when the model loads, not checked"
    if model.backend and model.backend == model.backend_of_folder:
        return f"the folder names the backend {model.backend!r}: completed when the model loads, not checked"
    return None
