"""The handler of a TorchServe archive written by optkit. It runs inside TorchServe, where optkit is not installed.

A request is JSON: {"input name": nested lists, ...}, or only the lists if the model has one input. It is one sample, without the batch
dimension of the model. If the archive contains image preprocessing, a request is an image: the bytes of the file, or base64, alone or as
{"input name": base64}. The answer is {"output name": nested lists, ...}, or the most probable classes if the archive has class names. An
invalid request gets status 400 and a reason. It does not affect other requests in the batch.

TorchServe requires one class in this file, and no function with the name `handle`.
"""

import base64
import binascii
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
TOP = 5
# kind of the model's dtype -> accepted kinds of numbers in JSON
_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}


class ModelHandler:
    """Reads requests, runs the model on batches of them if it supports batching, and writes the answers."""

    def initialize(self, context: Any) -> None:
        """Load the contract and the model from the unpacked archive."""
        folder = Path(context.system_properties["model_dir"])
        self.contract = json.loads((folder / "contract.json").read_text(encoding="utf-8"))
        names = folder / "index_to_name.json"
        self.class_names = list(json.loads(names.read_text(encoding="utf-8")).values()) if names.is_file() else []
        model = folder / context.manifest["model"]["serializedFile"]
        load = load_onnx if model.suffix == ".onnx" else load_torchscript
        self.run = load(model, context.system_properties.get("gpu_id"), self.contract)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[Any]:
        """Answer each request of a batch; TorchServe calls this."""
        answers: list[Any] = [None] * len(data)
        samples: dict[int, Arrays] = {}
        for i, row in enumerate(data):
            context.set_response_content_type(i, "application/json")
            try:
                samples[i] = read_request(row, self.contract)
            except ValueError as e:
                answers[i] = refused(context, i, 400, str(e))
        for group in groups(samples, self.contract["max_batch"]):
            outputs = self._infer([samples[i] for i in group])
            for i, output in zip(group, outputs, strict=True):
                answers[i] = self._answer(output, context, i)
        return answers

    def _infer(self, samples: Sequence[Arrays]) -> list[Arrays]:
        """Run the samples in one forward call and return the outputs of each sample."""
        if self.contract["batch"] is None:
            return [self.run(sample) for sample in samples]
        outputs = self.run({name: np.stack([sample[name] for sample in samples]) for name in samples[0]})
        return [{name: array[i] for name, array in outputs.items()} for i in range(len(samples))]

    def _answer(self, outputs: Arrays, context: Any, index: int) -> Any:
        broken = [name for name, array in outputs.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
        if broken:
            return refused(context, index, 500, f"output {broken[0]!r}: contains NaN or infinity")
        classes = self.contract["classes"]
        if classes:
            return {"classes": top_classes(outputs[classes["output"]], self.class_names, classes["scores"])}
        return {name: array.tolist() for name, array in outputs.items()}


def refused(context: Any, index: int, code: int, reason: str) -> dict[str, Any]:
    """Set the status of one request of the batch and return its body."""
    context.set_response_status(code=code, phrase="Bad Request" if code == 400 else "Internal Server Error", idx=index)
    return {"code": code, "error": reason}


def read_request(row: Mapping[str, Any], contract: Mapping[str, Any]) -> Arrays:
    """Return the arrays of one request.

    Raises:
        ValueError: the request does not fit the contract.
    """
    if "body" not in row and "data" not in row:
        raise ValueError("the request has no body")
    body = row["body"] if "body" in row else row["data"]
    if contract.get("image"):
        return {contract["inputs"][0]["name"]: read_picture(body, contract)}
    body = from_json(body)
    names = [spec["name"] for spec in contract["inputs"]]
    if not isinstance(body, dict):
        if len(names) > 1:
            raise ValueError(f"got a {type(body).__name__}; expected an object with {', '.join(names)}")
        body = {names[0]: body}
    if set(body) != set(names):
        raise ValueError(f"got inputs {', '.join(map(str, body)) or 'none'}; expected {', '.join(names)}")
    sizes: dict[str, int] = {}
    return {spec["name"]: read_array(body[spec["name"]], spec, contract, sizes) for spec in contract["inputs"]}


def from_json(body: Any) -> Any:
    """Return the value of a body. TorchServe has parsed it already if the content type is JSON."""
    if not isinstance(body, bytes | bytearray | str):
        return body
    try:
        return json.loads(body)
    except ValueError as e:
        raise ValueError(f"the body is not JSON ({e})") from e


def read_picture(body: Any, contract: Mapping[str, Any]) -> np.ndarray:
    """Return the model's input for an image.

    Raises:
        ValueError: the body is not an image, or the image does not fit the model.
    """
    from optkit_images import read_image  # in the archive

    spec = contract["inputs"][0]
    if isinstance(body, bytes | bytearray) and body[:1] in (b"{", b'"'):  # JSON without its content type; not an image
        body = from_json(body)
    if isinstance(body, dict):
        if set(body) != {spec["name"]}:
            raise ValueError(f"got inputs {', '.join(map(str, body)) or 'none'}; expected {spec['name']}")
        body = body[spec["name"]]
    if isinstance(body, str):
        try:
            body = base64.b64decode(body.partition("base64,")[2] or body, validate=True)
        except binascii.Error as e:
            raise ValueError(f"the text is not base64 ({e}); expected an image as base64 or as bytes") from e
    if not isinstance(body, bytes | bytearray):
        raise ValueError(f"got a {type(body).__name__}; expected an image as base64 or as bytes")
    pixels = read_image(bytes(body), **contract["image"]).astype(spec["dtype"])
    return read_array(pixels, spec, contract, {})


def read_array(value: Any, spec: Mapping[str, Any], contract: Mapping[str, Any], sizes: dict[str, int]) -> np.ndarray:
    """Return one input, and add the sizes of its named dimensions to `sizes`.

    Raises:
        ValueError: the value does not fit the specification.
    """
    where = f"input {spec['name']!r}"
    shape = spec["shape"][1:] if contract["batch"] else spec["shape"]
    expected = f"{spec['dtype']}[{','.join(map(str, shape))}]"
    try:
        found = np.asarray(value)
    except (ValueError, OverflowError) as e:
        raise ValueError(f"{where}: the nested lists have unequal lengths; expected {expected}") from e
    dtype = np.dtype(spec["dtype"])
    if found.ndim != len(shape) or 0 in found.shape:
        raise ValueError(f"{where}: got shape {list(found.shape)}; expected {expected}")
    if found.dtype.kind not in _KINDS[dtype.kind]:
        raise ValueError(f"{where}: got values that are not {dtype}; expected {expected}")
    for dim, size in zip(shape, found.shape, strict=True):
        low, high = contract["dims"][dim] if isinstance(dim, str) else (dim, dim)
        if not low <= size <= high or sizes.setdefault(str(dim), size) != size:
            limits = f" with {dim} from {low} to {high} and the same in every input" if isinstance(dim, str) else ""
            raise ValueError(f"{where}: got shape {list(found.shape)}; expected {expected}{limits}")
    return converted(found, dtype, where)


def converted(array: np.ndarray, dtype: np.dtype[Any], where: str) -> np.ndarray:
    """Return the array as `dtype`.

    Raises:
        ValueError: a value does not fit the type, or is NaN or infinite.
    """
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= int(array.min()) <= int(array.max()) <= np.iinfo(dtype).max:
        raise ValueError(f"{where}: holds {int(array.min())} to {int(array.max())}, which {dtype} cannot hold")
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(result).all():
        raise ValueError(f"{where}: holds NaN, infinity, or a number that {dtype} cannot hold")
    return result


def groups(samples: Mapping[int, Arrays], largest: int) -> list[list[int]]:
    """Group requests into forward calls: equal shapes, and at most `largest` requests."""
    by_shape: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for i, sample in samples.items():
        by_shape.setdefault(tuple(array.shape for array in sample.values()), []).append(i)
    return [same[i : i + largest] for same in by_shape.values() for i in range(0, len(same), largest)]


def probabilities(scores: np.ndarray, kind: str) -> np.ndarray:
    """Return the probability of every class of a sample. `kind` is the kind of the scores: logits or probabilities."""
    values = scores.astype(np.float64)
    if kind == "logits":
        exponents = np.exp(values - values.max())
        values = exponents / exponents.sum()
    return values


def top_classes(scores: np.ndarray, names: Sequence[str], kind: str) -> list[dict[str, Any]]:
    """Return the most probable classes, sorted by probability."""
    values = probabilities(scores, kind)
    best = np.argsort(-values, kind="stable")[:TOP]
    return [{"class": names[i], "probability": float(values[i])} for i in best]


def load_torchscript(path: Path, gpu: int | None, contract: Mapping[str, Any]) -> Callable[[Arrays], Arrays]:
    """Return a function that runs a TorchScript file on the worker's GPU, or on the CPU if it has none."""
    import torch

    if contract["engine"]:  # INT8: the engine packs the weights while loading, and it has no GPU kernels
        torch.backends.quantized.engine, gpu = contract["engine"], None
    device = torch.device("cpu" if gpu is None else f"cuda:{gpu}")
    module = torch.jit.load(str(path), map_location=device).eval()
    logger.info("%s runs on %s", path.name, device)
    inputs = [spec["name"] for spec in contract["inputs"]]
    outputs = [spec["name"] for spec in contract["outputs"]]

    def run(feed: Arrays) -> Arrays:
        with torch.inference_mode():
            found = flat(module(*[torch.from_numpy(feed[name]).to(device) for name in inputs]))
        return {name: tensor.cpu().numpy() for name, tensor in zip(outputs, found, strict=True)}

    return run


def flat(output: Any) -> list[Any]:
    """Return the tensors of an output in order; tuples, lists and dicts may be nested."""
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in flat(part)]
    return [output]


def load_onnx(path: Path, gpu: int | None, contract: Mapping[str, Any]) -> Callable[[Arrays], Arrays]:
    """Return a function that runs an ONNX file on the worker's GPU, or on the CPU if it has none."""
    import onnxruntime

    device = "cpu" if gpu is None else "cuda"
    provider: Any = "CPUExecutionProvider" if gpu is None else ("CUDAExecutionProvider", {"device_id": gpu})
    session = onnxruntime.InferenceSession(str(path), providers=[provider])
    if not session.get_providers()[0].lower().startswith(device):
        raise RuntimeError(
            f"TorchServe gave GPU {gpu}, but ONNX Runtime fell back to {session.get_providers()[0]}. "
            f"Install onnxruntime-gpu with its CUDA libraries, or set number_of_gpu=0 in config.properties."
        )
    logger.info("%s runs on %s", path.name, session.get_providers()[0])
    outputs = [spec["name"] for spec in contract["outputs"]]
    return lambda feed: dict(zip(outputs, session.run(outputs, feed), strict=True))
