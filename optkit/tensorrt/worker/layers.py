"""The layers of an engine: their types from TensorRT's inspector, their times from its profiler."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .protocol import FaultError, Json
from .tensors import read_feed

if TYPE_CHECKING:
    from .session import Session

# The type in the text of 8.6 and later releases -> optkit's name; the first match counts.
_TYPES = (("int8", "int8"), ("bf16", "bf16"), ("bfloat16", "bf16"), ("fp8", "fp8"), ("fp16", "fp16"), ("half", "fp16"), ("fp32", "fp32"), ("float", "fp32"))  # fmt: skip
_ROUNDS = 10  # inferences whose layers are timed


def list_layers(session: Session, request: Json) -> Json:
    """Return the name, type, tensor types and median time in ms of every layer.

    Raises:
        FaultError: the inspector's answer cannot be read.
    """
    slot = session.slots[0]
    slot.place(read_feed(request))
    slot.copy_in()
    described = _inspect(session)
    times = _profile(session)
    found = []
    for layer in described:
        if not isinstance(layer, dict):  # an engine without details has names only
            layer = {"Name": str(layer)}
        sorted_ms = sorted(times.get(layer["Name"], [0.0]))
        found.append({
            "name": layer["Name"],
            "type": layer.get("LayerType", ""),
            "types": types_of(layer),
            "ms": sorted_ms[len(sorted_ms) // 2],
        })  # fmt: skip
    return {"layers": found}


def _inspect(session: Session) -> list[Any]:
    """Return the inspector's description of each layer."""
    inspector = session.engine.create_engine_inspector()
    # The inspector needs the shapes of a context; without them, types are "N/A due to dynamic shapes".
    inspector.execution_context = session.slots[0].context
    text = inspector.get_engine_information(session.trt.LayerInformationFormat.JSON)
    try:
        # 8.6 writes raw control characters in its metadata, which strict JSON does not allow.
        return list(json.loads(text, strict=False)["Layers"])
    except ValueError as e:
        raise FaultError(f"the inspector's JSON cannot be read ({e})") from e


def _profile(session: Session) -> dict[str, list[float]]:
    """Run a few inferences, and return the times of each layer in ms."""
    trt, slot = session.trt, session.slots[0]
    times: dict[str, list[float]] = {}

    class Profile(trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(ms)

    slot.context.profiler = Profile()
    for _ in range(_ROUNDS):
        slot.enqueue()
        slot.stream.synchronize()
    return times


def types_of(layer: Json) -> list[str]:
    """Return the types of a layer's inputs and outputs; where the inspector does not report them, the type of its weights."""
    tensors = [
        tensor.get("Datatype") or tensor.get("Format/Datatype")
        for name in ("Inputs", "Outputs")
        for tensor in layer.get(name, [])
    ]
    weights = layer.get("Weights")
    found = {_type_in(text) for text in tensors} - {""}
    if not found and isinstance(weights, dict):
        found = {_type_in(weights.get("Type"))} - {""}
    return sorted(found)


def _type_in(text: Any) -> str:
    """Return fp32, fp16, int8 and so on from the inspector's text; empty where it has no type."""
    lower = str(text or "").lower()
    return next((kind for word, kind in _TYPES if word in lower), "")
