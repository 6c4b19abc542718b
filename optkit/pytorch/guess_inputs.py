"""A guess of the inputs of a model without declared inputs, from its first layer; a person must correct it."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optkit.artifact.tensors import Dim, DType, TensorSpec, dim_option
from optkit.pytorch.forward import required_names

if TYPE_CHECKING:
    import torch

_IDS = re.compile(r"(^|_)(ids?|tokens?|index|indices)($|_)|mask")
_RANGES = {"batch": "1:8:64", "sequence": "8:64:256", "length": "256:1024:4096"}


def guessed_options(module: "torch.nn.Module") -> str:
    """Return the command line options that declare the guessed inputs."""
    specs = guess_inputs(module)
    inputs = [f'--input "{spec}"' for spec in specs]
    return " ".join([*inputs, range_options({dim for spec in specs for dim in spec.shape if isinstance(dim, str)})])


def range_options(dims: set[str]) -> str:
    """Return the command line options that declare usual ranges of dimensions."""
    return " ".join(dim_option(dim, _RANGES.get(dim, "1:8:64")) for dim in sorted(dims))


def guess_inputs(module: "torch.nn.Module") -> Sequence[TensorSpec]:
    """Return one input for each parameter of forward without a default: ids and masks by name, the others by the first layer."""
    dtype, shape = _first_layer(module)
    ids = DType.INT64, ("batch", "sequence")
    return [
        TensorSpec(name=name, dtype=kind, shape=dims)
        for name in required_names(module) or ["input"]
        for kind, dims in [ids if _IDS.search(name) else (dtype, shape)]
    ]


def _first_layer(module: "torch.nn.Module") -> tuple[DType, tuple[Dim, ...]]:
    """Return dtype and shape for the first layer with a known input size."""
    from torch import nn

    for layer in module.modules():
        match layer:
            case nn.Embedding():
                return DType.INT64, ("batch", "sequence")
            case nn.Conv1d():
                return DType.FLOAT32, ("batch", layer.in_channels, "length")
            case nn.Conv2d():
                return DType.FLOAT32, ("batch", layer.in_channels, 224, 224)
            case nn.Conv3d():
                return DType.FLOAT32, ("batch", layer.in_channels, 16, 112, 112)
            case nn.RNNBase():
                return DType.FLOAT32, ("batch", "sequence", layer.input_size)
            case nn.TransformerEncoderLayer():
                return DType.FLOAT32, ("batch", "sequence", layer.self_attn.embed_dim)
            case nn.Linear():
                return DType.FLOAT32, ("batch", layer.in_features)
    return DType.FLOAT32, ("batch", 3, 224, 224)
