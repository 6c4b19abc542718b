"""The weights of a module: reading them from a file without running pickled code, and their hash."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.deps import require
from optkit.errors import ModelError, OptkitError, first_line
from optkit.untrusted.archives import zip_fault
from optkit.untrusted.paths import path_fault

if TYPE_CHECKING:
    import torch

# The keys under which checkpoints store the state dict, the first that is there first.
_WRAPPING_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "weights")
_COUNTERS = frozenset({"n_averaged"})  # of torch.optim.swa_utils.AveragedModel, beside the weights
_COMPILED = "_orig_mod."  # of torch.compile, also of a submodule
_COLORS = re.compile(r"\x1b\[[0-9;]*m")

_DEEPEST = 3  # levels of keys above a state dict


def load_weights(module: "torch.nn.Module", path: Path, key: str | None = None) -> list[str]:
    """Load a state dict into a module, strictly, and return notes on what was chosen, renamed or cast.

    Args:
        module: gets the weights.
        path: a file from `torch.save(model.state_dict(), path)`, a checkpoint with a state dict, or a .safetensors file.
        key: of the state dict in the checkpoint, with dots between nested keys; None chooses the one that fits the module.

    Raises:
        ModelError: it cannot be read, is not a state dict, or belongs to another model; the message lists the keys in groups.
        MissingDependency: safetensors is not installed, and the file is a .safetensors file.
    """
    state, notes = matching_state(module, path, key)
    expected = module.state_dict()
    complex_ = [name for name in state if state[name].is_complex() and not expected[name].is_complex()]
    if complex_:
        raise ModelError(f"{path}: the weights belong to another model: {complex_[0]} has complex numbers")
    try:
        module.load_state_dict(state, strict=True)
    except (RuntimeError, NotImplementedError, TypeError) as e:  # a sparse, quantized or meta tensor
        raise ModelError(f"{path}: the weights cannot be copied into the model ({' '.join(str(e).split())})") from e
    return notes


def matching_state(
    module: "torch.nn.Module", path: Path, key: str | None = None
) -> "tuple[dict[str, torch.Tensor], list[str]]":
    """Return the state dict of a file under the names of a module, and notes; the arguments and errors are those of `load_weights`."""
    if fault := weights_fault(path):
        raise ModelError(fault)
    found = _state_dicts(_read(path), path)
    expected = module.state_dict()
    if key is not None and key not in found:
        raise ModelError(
            f"{path}: has no state dict {key!r}; it has {_named(found)}. Give one of them with --weights-key."
        )
    names = [key] if key is not None else list(found)
    fitting = {name: fit for name in names if (fit := _fit(found[name], expected)) is not None}
    if not fitting:
        raise ModelError(f"{path}: the weights belong to another model: {_differences(found[names[0]], expected)}")
    chosen = next(iter(fitting))
    state, notes = fitting[chosen]
    if key is None and len(found) > 1:
        notes = [f"the state dict {chosen!r} of {_named(found)}; choose another one with --weights-key", *notes]
    cast = sorted({str(state[n].dtype).removeprefix("torch.") for n in state if state[n].dtype != expected[n].dtype})
    if cast:
        count = sum(state[n].dtype != expected[n].dtype for n in state)
        notes = [
            *notes,
            f"{count} of {len(state)} tensors of the file are {' and '.join(cast)}, and were cast to the types of the model",
        ]
    return state, [f"weights: {note}" for note in notes]


def _differences(state: "dict[str, torch.Tensor]", expected: "dict[str, torch.Tensor]") -> str:
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
    return "; ".join(faults)


def _fit(
    state: "dict[str, torch.Tensor]", expected: "dict[str, torch.Tensor]"
) -> "tuple[dict[str, torch.Tensor], list[str]] | None":
    """Return a state dict under the names of the module, and notes; None where its names or shapes are others."""
    for named, note in _renamed(state, expected):
        if set(named) == set(expected) and all(named[k].shape == expected[k].shape for k in named):
            return named, [note] if note else []
    return None


def _renamed(
    state: "dict[str, torch.Tensor]", expected: "dict[str, torch.Tensor]"
) -> "Iterator[tuple[dict[str, torch.Tensor], str]]":
    """Yield the state dict under the names that wrappers of training leave: as it is, without a prefix, with one."""
    yield state, ""
    known = set(expected)
    weights = {k: v for k, v in state.items() if k not in _COUNTERS or k in known}
    compiled = {k.replace(_COMPILED, ""): v for k, v in weights.items()}
    for names in (weights, compiled):
        dropped = (
            f"{_COMPILED!r} was removed from names" if names is compiled and compiled.keys() != weights.keys() else ""
        )
        yield names, dropped
        for prefix in _prefixes(names):
            note = f"the prefix {prefix!r} of every name was removed"
            yield {k.removeprefix(prefix): v for k, v in names.items()}, f"{dropped}; {note}" if dropped else note
        for prefix in _prefixes(expected):
            yield {f"{prefix}{k}": v for k, v in names.items()}, f"the prefix {prefix!r} was added to every name"


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return the prefixes that all names share, each ending with a dot, the shortest first."""
    parts = [name.split(".")[:-1] for name in names]
    shared = [same[0] for same in itertools.takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False))]
    return [".".join(shared[: i + 1]) + "." for i in range(len(shared))]


def weights_fault(path: Path) -> str | None:
    """Return the fault of a file of weights that can be found without reading it, or None."""
    fault = path_fault(path)
    if fault:
        return f"{path}: {fault}; expected the weights of the model"
    return f"{path}: {fault}" if (fault := zip_fault(path)) else None


def _some(items: Sequence[str], count: int = 4) -> str:
    return ", ".join(items[:count]) + (f" and {len(items) - count} more" if len(items) > count else "")


def _read(path: Path) -> object:
    import torch

    try:
        if path.suffix == ".safetensors":
            return require("safetensors.torch").load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OptkitError:
        raise
    except Exception as e:  # pickle, zip and torch each raise their own here
        raise ModelError(
            f"{path}: cannot be read as a state dict ({_why_not_read(e)}); expected what torch.save(model.state_dict()) "
            f"writes. If it is a pickled module that you trust, load it in Python and save its state_dict(). Only tensors are loaded, never pickled code."
        ) from e


def _why_not_read(error: Exception) -> str:
    """Return the reason without torch's advice to run pickled code."""
    text = _COLORS.sub("", str(error))
    found = re.search(r"GLOBAL `?([\w.]+)", text)
    if not found:
        return _COLORS.sub("", first_line(error))
    name = found[1]
    if name.startswith("numpy"):
        return f"it has numpy values ({name}), such as an accuracy beside the weights; save them as Python numbers with float()"
    return f"it has a pickled object of class {name}, as torch.save(model) writes; save model.state_dict() in the place of the model"


def _state_dicts(loaded: object, path: Path) -> "dict[str | None, dict[str, torch.Tensor]]":
    """Return the state dicts in a file by their keys; None is the key of a file that is one itself."""
    found = dict(_walk(loaded, ""))
    if not found:
        raise ModelError(
            f"{path}: contains a {type(loaded).__name__}, which is not a state dict; expected name -> tensor, as "
            f"torch.save(model.state_dict()) writes"
        )
    order = {name: i for i, name in enumerate(_WRAPPING_KEYS)}
    return dict(sorted(found.items(), key=lambda item: order.get((item[0] or "").rpartition(".")[2], len(order))))


def _walk(value: object, key: str, depth: int = 0) -> "Iterator[tuple[str | None, dict[str, torch.Tensor]]]":
    import torch

    if not isinstance(value, Mapping) or not value or depth > _DEEPEST or not all(isinstance(k, str) for k in value):
        return
    if all(isinstance(v, torch.Tensor) for v in value.values()):
        yield key or None, dict(value)
        return
    for name, inner in value.items():
        yield from _walk(inner, f"{key}.{name}" if key else name, depth + 1)


def _named(found: "Mapping[str | None, object]") -> str:
    return ", ".join(str(name) if name else "the file itself" for name in found)


def state_sha256(module: "torch.nn.Module") -> str:
    """Return the hash of all parameters and buffers: names, dtypes, shapes and values."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())  # read in place, not copied
    return digest.hexdigest()


def weights_bytes(module: "torch.nn.Module") -> int:
    """Return the size of the parameters and buffers of a module; shared ones count once."""
    return sum(
        {
            tensor.data_ptr(): tensor.nbytes for tensor in module.state_dict().values() if hasattr(tensor, "nbytes")
        }.values()
    )
