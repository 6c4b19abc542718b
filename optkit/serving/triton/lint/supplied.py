"""Inputs and outputs of a model that clients neither send nor get: controls and states of sequences, and batch inputs."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema


@dataclasses.dataclass(frozen=True)
class Supplied:
    """A tensor that Triton supplies or keeps. `dims` None: they follow from the request. `path` is its place in the configuration."""

    what: str
    kind: Literal["input", "output"]
    name: str
    data_type: int  # of Triton's schema; 0 if none is given
    dims: tuple[int, ...] | None
    path: tuple[str | int, ...]


def supplied(config: "schema.ModelConfig") -> Iterator[Supplied]:
    """Yield the tensors that Triton supplies to the model or takes from it by itself."""
    batching = config.sequence_batching
    for i, tensor in enumerate(batching.control_input):
        path: tuple[str | int, ...] = ("sequence_batching", "control_input", i)
        for control in tensor.control[:1]:
            yield Supplied("sequence control", "input", tensor.name, _control_type(control), (1,), path)
    for i, state in enumerate(batching.state):
        path = ("sequence_batching", "state", i)
        dims = tuple(state.dims)
        yield Supplied("state", "input", state.input_name, state.data_type, dims, path)
        yield Supplied("state", "output", state.output_name, state.data_type, dims, path)
    for i, batch in enumerate(config.batch_input):
        for name in batch.target_name:
            yield Supplied("batch_input", "input", name, batch.data_type, None, ("batch_input", i))


def _control_type(control: "schema.ModelSequenceBatching.Control") -> int:
    from tritonclient.grpc import model_config_pb2 as schema

    if control.int32_false_true:
        return int(schema.TYPE_INT32)
    if control.fp32_false_true:
        return int(schema.TYPE_FP32)
    return int(schema.TYPE_BOOL if control.bool_false_true else control.data_type)
