"""The weights of a module: reading them from a file without running pickled code, and their hash."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.deps import require
from optkit.errors import ModelError, OptkitError, first_line
from optkit.untrusted.archives import zip_fault
from optkit.untrusted.paths import path_fault

if TYPE_CHECKING:
    import torch

# The keys under which checkpoints store the state dict, beside the optimizer's state.
_WRAPPING_KEYS = ("state_dict", "model_state_dict", "model", "module")


def load_weights(module: "torch.nn.Module", path: Path) -> None:
    """Load a state dict into a module, strictly.

    Args:
        module: gets the weights.
        path: a file from `torch.save(model.state_dict(), path)`, a checkpoint with a state dict, or a .safetensors file.

    Raises:
        ModelError: it cannot be read, is not a state dict, or belongs to another model; the message lists the keys in groups.
        MissingDependency: safetensors is not installed, and the file is a .safetensors file.
    """
    fault = weights_fault(path)
    if fault:
        raise ModelError(fault)
    state = _read_state(path)
    expected = module.state_dict()
    faults = []
    for title, keys in (
        ("missing in the file", set(expected) - set(state)),
        ("not in the model", set(state) - set(expected)),
    ):
        if keys:
            faults.append(f"{len(keys)} {title}: {_some(sorted(keys))}")
    shapes = [
        f"{key} {list(state[key].shape)} for {list(expected[key].shape)}"
        for key in sorted(set(expected) & set(state))
        if state[key].shape != expected[key].shape
    ]
    faults += [
        f"{key} has complex numbers"
        for key in set(expected) & set(state)
        if state[key].is_complex() and not expected[key].is_complex()
    ]
    if shapes:
        faults.append(f"{len(shapes)} with another shape: {_some(shapes)}")
    if faults:
        raise ModelError(f"{path}: the weights belong to another model: {'; '.join(faults)}")
    try:
        module.load_state_dict(state, strict=True)
    except (RuntimeError, NotImplementedError, TypeError) as e:  # a sparse, quantized or meta tensor
        raise ModelError(f"{path}: the weights cannot be copied into the model ({' '.join(str(e).split())})") from e


def weights_fault(path: Path) -> str | None:
    """Return the fault of a file of weights that can be found without reading it, or None."""
    fault = path_fault(path)
    if fault:
        return f"{path}: {fault}; expected the weights of the model"
    return f"{path}: {fault}" if (fault := zip_fault(path)) else None


def _some(items: Sequence[str], count: int = 4) -> str:
    return ", ".join(items[:count]) + (f" and {len(items) - count} more" if len(items) > count else "")


def _read_state(path: Path) -> dict[str, "torch.Tensor"]:
    import torch

    try:
        if path.suffix == ".safetensors":
            loaded = require("safetensors.torch").load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OptkitError:
        raise
    except Exception as e:  # pickle, zip and torch each raise their own here
        raise ModelError(
            f"{path}: cannot be read as a state dict ({first_line(e)}); expected what torch.save(model.state_dict()) "
            f"writes. If it is a pickled module that you trust, load it in Python and save its state_dict(). Only tensors are loaded, never pickled code."
        ) from e
    for key in _WRAPPING_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, torch.Tensor) for v in loaded.values()) or not loaded:
        raise ModelError(
            f"{path}: contains a {type(loaded).__name__}, which is not a state dict; expected name -> tensor, as "
            f"torch.save(model.state_dict()) writes"
        )
    return dict(loaded)


def state_sha256(module: "torch.nn.Module") -> str:
    """Return the hash of all parameters and buffers: names, dtypes, shapes and values."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())  # read in place, not copied
    return digest.hexdigest()
