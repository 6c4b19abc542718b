"""The client of an archive in a TorchServe model store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optkit.artifact.tensors import Feed, TensorSpec
from optkit.serving.clients.folder import write_package
from optkit.serving.clients.samples import json_bytes, png_bytes
from optkit.serving.clients.source import (
    Method,
    ModelClass,
    field,
    identifier,
    in_words,
    names_text,
    parameters,
    quoted,
    sizes_text,
    tensors_text,
    told,
)

_TENSORS, _TEXTS, _SIZES = "tuple[Tensor, ...]", "tuple[str, ...]", "Mapping[str, range]"


def write_torchserve_client(
    store: Path, model: str, contract: Mapping[str, Any] | None, sample: Feed | None
) -> tuple[Path | None, str | None]:
    """Write the client of an archive in a TorchServe model store.

    Args:
        store: where the archive lies.
        model: its name there.
        contract: what the generated handler reads; None for a handler of the user's own, whose requests are not known.
        sample: a feed of the artifact, whose first row is the sample; None for zeros.

    Returns:
        the folder, None where no client of the model is there, and why nothing was written.

    Raises:
        OutputError: the folder cannot be written.
    """
    if contract is None:
        described, stored = _own_handler(model), {"sample.json": b"{}\n"}
    else:
        inputs = [_one(TensorSpec.model_validate(spec), contract) for spec in contract["inputs"]]
        if contract["image"]:
            described, stored = (
                _image(model, inputs[0], contract),
                {"sample.png": png_bytes(inputs[0], contract["image"])},
            )
        else:
            described = _tensors(model, inputs, contract)
            stored = {"sample.json": json_bytes(_first_row(inputs, contract, sample))}
    return write_package(store, described, stored)


def _one(spec: TensorSpec, contract: Mapping[str, Any]) -> TensorSpec:
    """Return an input of one sample, without the batch dimension, where the handler adds it."""
    return spec.model_copy(update={"shape": spec.shape[1:]}) if contract["batch"] else spec


def _handler_sizes(inputs: Sequence[TensorSpec], contract: Mapping[str, Any]) -> dict[str, range]:
    used = dict.fromkeys(dim for spec in inputs for dim in spec.shape if isinstance(dim, str))
    return {dim: range(contract["dims"][dim][0], contract["dims"][dim][1] + 1) for dim in used}


def _answer(contract: Mapping[str, Any]) -> tuple[str, ...]:
    return ("classes",) if contract["classes"] else tuple(spec["name"] for spec in contract["outputs"])


def _tensors(model: str, inputs: Sequence[TensorSpec], contract: Mapping[str, Any]) -> ModelClass:
    names = parameters(spec.name for spec in inputs)
    feed = ", ".join(f"{quoted(name)}: {parameter}" for name, parameter in names.items())
    return _torchserve(
        model,
        f" one sample: {told(inputs, _handler_sizes(inputs, contract))}",
        inputs,
        contract,
        "sample.json",
        "application/json",
        Method(
            parameters=", ".join(f"{parameter}: Nested" for parameter in names.values()),
            returns="Any",
            what="answer's JSON",
            call=f"self.ask(self.body({{{feed}}}), self.content_type)",
        ),
    )


def _image(model: str, spec: TensorSpec, contract: Mapping[str, Any]) -> ModelClass:
    name = identifier(spec.name)
    method = Method(f"{name}: bytes", "Any", "answer's JSON", f"self.ask({name}, self.content_type)")
    takes = " the bytes of an image file, such as PNG or JPEG"
    return _torchserve(model, takes, (), contract, "sample.png", "application/octet-stream", method)


def _own_handler(model: str) -> ModelClass:
    method = Method(
        'body: bytes, content_type: str = "application/json"', "Any", "answer's JSON", "self.ask(body, content_type)"
    )
    takes = " what the archive's own handler takes, which optkit does not know: sample.json is empty"
    return _torchserve(model, takes, (), None, "sample.json", "application/json", method)


def _torchserve(
    model: str,
    takes: str,
    inputs: Sequence[TensorSpec],
    contract: Mapping[str, Any] | None,
    sample: str,
    content_type: str,
    method: Method,
) -> ModelClass:
    answer = _answer(contract) if contract else ()
    kind = [field("content_type", "str", quoted(content_type))] if content_type != "application/json" else []
    return ModelClass(
        module="torchserve",
        base="TorchServeModel",
        model=model,
        takes=takes,
        gives=f": {', '.join(map(in_words, answer))}" if answer else " what that handler answers, as JSON",
        fields=(
            field("inputs", _TENSORS, tensors_text(inputs)),
            field("outputs", _TEXTS, names_text(answer)),
            field("sizes", _SIZES, sizes_text(_handler_sizes(inputs, contract) if contract else {})),
            field("sample", "str", quoted(sample)),
            *kind,
        ),
        method=method,
    )


def _first_row(inputs: Sequence[TensorSpec], contract: Mapping[str, Any], sample: Feed | None) -> dict[str, np.ndarray]:
    if sample is not None:
        return {spec.name: sample[spec.name][0] if contract["batch"] else sample[spec.name] for spec in inputs}
    smallest = {dim: low for dim, (low, _) in contract["dims"].items()}
    return {spec.name: np.zeros(spec.shape_at(smallest), spec.dtype.numpy) for spec in inputs}
