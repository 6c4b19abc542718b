"""The generated client for an archive in a TorchServe model store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optkit.artifact.tensors import Feed, TensorSpec
from optkit.serving.clients.folder import write_package
from optkit.serving.clients.generate import (
    ClientMethod,
    ModelClass,
    description,
    field,
    identifier,
    in_words,
    names_text,
    parameters,
    quoted,
    sizes_text,
    tensors_text,
)
from optkit.serving.clients.samples import json_bytes, png_bytes

_TENSORS, _TEXTS, _SIZES = "tuple[Tensor, ...]", "tuple[str, ...]", "Mapping[str, range]"


def write_torchserve_client(
    store: Path, model: str, contract: Mapping[str, Any] | None, sample: Feed | None
) -> tuple[Path | None, str | None]:
    """Write the client of an archive in a TorchServe model store.

    Args:
        store: the model store.
        model: the name of the model.
        contract: the contract of the generated handler; None for the user's own handler, because its requests are unknown.
        sample: a feed of the artifact; its first row is the stored sample. None means zeros.

    Returns:
        The folder, or None if it holds no client of this model; and the reason if nothing was written.

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
    """Return the spec of one sample: without the batch dimension if the handler adds it."""
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
        f" one sample: {description(inputs, _handler_sizes(inputs, contract))}",
        inputs,
        contract,
        "sample.json",
        "application/json",
        ClientMethod(
            parameters=", ".join(f"{parameter}: Nested" for parameter in names.values()),
            returns="Any",
            result="answer's JSON",
            call=f"self.ask(self.body({{{feed}}}), self.content_type)",
        ),
    )


def _image(model: str, spec: TensorSpec, contract: Mapping[str, Any]) -> ModelClass:
    name = identifier(spec.name)
    method = ClientMethod(f"{name}: bytes", "Any", "answer's JSON", f"self.ask({name}, self.content_type)")
    takes = " the bytes of an image file, such as PNG or JPEG"
    return _torchserve(model, takes, (), contract, "sample.png", "application/octet-stream", method)


def _own_handler(model: str) -> ModelClass:
    method = ClientMethod(
        'body: bytes, content_type: str = "application/json"', "Any", "answer's JSON", "self.ask(body, content_type)"
    )
    takes = " the requests of your own handler. optkit does not know them, so sample.json is empty"
    return _torchserve(model, takes, (), None, "sample.json", "application/json", method)


def _torchserve(
    model: str,
    takes: str,
    inputs: Sequence[TensorSpec],
    contract: Mapping[str, Any] | None,
    sample: str,
    content_type: str,
    method: ClientMethod,
) -> ModelClass:
    answer = _answer(contract) if contract else ()
    kind = [field("content_type", "str", quoted(content_type))] if content_type != "application/json" else []
    return ModelClass(
        module="torchserve_template",
        base="TorchServeModel",
        model=model,
        takes=takes,
        gives=f": {', '.join(map(in_words, answer))}" if answer else " the JSON answer of that handler",
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
