"""The handler of a TorchServe archive written by optkit. It runs inside TorchServe, where optkit is not installed.

A request is JSON: {"input name": nested lists, ...}, or the lists alone where the model has one input. It is one sample,
without the batch dimension, where the model has one. Where the archive says how an image becomes the input, a request is an image:
the bytes of its file, or these in base64, alone or as {"input name": base64}. The answer is {"output name": nested lists, ...}, or the most
probable classes where the archive has class names. A request that does not fit is answered with status 400 and a
reason, and does not disturb the others of its batch.

TorchServe demands that this file has one class and no function called `handle`.
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
# kind of the dtype that the model takes -> kinds of numbers in JSON that may become it
_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}


class ModelHandler:
    """Reads requests, runs the model on them together where it may, and writes the answers."""

    def initialize(self, context: Any) -> None:
        """Load the contract and the model of the archive, which TorchServe has unpacked."""
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
        """Run the samples in one forward; sample for sample the outputs."""
        if self.contract["batch"] is None:
            return [self.run(sample) for sample in samples]
        outputs = self.run({name: np.stack([sample[name] for sample in samples]) for name in samples[0]})
        return [{name: array[i] for name, array in outputs.items()} for i in range(len(samples))]

    def _answer(self, outputs: Arrays, context: Any, index: int) -> Any:
        broken = [name for name, array in outputs.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
        if broken:
            return refused(context, index, 500, f"output {broken[0]!r}: the model gave NaN or infinity")
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
        ValueError: it does not fit the contract; says what was found and what was expected.
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
        raise ValueError(f"got inputs {', '.join(map(str, body)) or 'none'}; the model takes {', '.join(names)}")
    sizes: dict[str, int] = {}
    return {spec["name"]: read_array(body[spec["name"]], spec, contract, sizes) for spec in contract["inputs"]}


def from_json(body: Any) -> Any:
    """Return the value of a body; TorchServe parses it itself where the request says that it is JSON."""
    if not isinstance(body, bytes | bytearray | str):
        return body
    try:
        return json.loads(body)
    except ValueError as e:
        raise ValueError(f"the body is no JSON ({e})") from e


def read_picture(body: Any, contract: Mapping[str, Any]) -> np.ndarray:
    """Return the input that an image becomes.

    Raises:
        ValueError: it is no image, or one that does not fit the model.
    """
    from optkit_images import read_image  # in the archive

    spec = contract["inputs"][0]
    if isinstance(body, bytes | bytearray) and body[:1] in (
        b"{",
        b'"',
    ):  # JSON that was not said to be JSON; no image starts so
        body = from_json(body)
    if isinstance(body, dict):
        if set(body) != {spec["name"]}:
            raise ValueError(f"got inputs {', '.join(map(str, body)) or 'none'}; the model takes {spec['name']}")
        body = body[spec["name"]]
    if isinstance(body, str):
        try:
            body = base64.b64decode(body.partition("base64,")[2] or body, validate=True)
        except binascii.Error as e:
            raise ValueError(
                f"the text is no base64 ({e}); expected an image in base64, or its bytes as they are"
            ) from e
    if not isinstance(body, bytes | bytearray):
        raise ValueError(f"got a {type(body).__name__}; expected the bytes of an image, or these in base64")
    pixels = read_image(bytes(body), **contract["image"]).astype(spec["dtype"])
    return read_array(pixels, spec, contract, {})


def read_array(value: Any, spec: Mapping[str, Any], contract: Mapping[str, Any], sizes: dict[str, int]) -> np.ndarray:
    """Return one input; the sizes of its named dimensions are added to `sizes`.

    Raises:
        ValueError: it does not fit the specification.
    """
    where = f"input {spec['name']!r}"
    shape = spec["shape"][1:] if contract["batch"] else spec["shape"]
    expected = f"{spec['dtype']}[{','.join(map(str, shape))}]"
    try:
        found = np.asarray(value)
    except (ValueError, OverflowError) as e:
        raise ValueError(f"{where}: the nested lists are of unequal lengths; expected {expected}") from e
    dtype = np.dtype(spec["dtype"])
    if found.ndim != len(shape) or 0 in found.shape:
        raise ValueError(f"{where}: got shape {list(found.shape)}; expected {expected}")
    if found.dtype.kind not in _KINDS[dtype.kind]:
        raise ValueError(f"{where}: got values that are no {dtype}; expected {expected}")
    for dim, size in zip(shape, found.shape, strict=True):
        low, high = contract["dims"][dim] if isinstance(dim, str) else (dim, dim)
        if not low <= size <= high or sizes.setdefault(str(dim), size) != size:
            limits = f" with {dim} from {low} to {high} and the same in every input" if isinstance(dim, str) else ""
            raise ValueError(f"{where}: got shape {list(found.shape)}; expected {expected}{limits}")
    return converted(found, dtype, where)


def converted(array: np.ndarray, dtype: np.dtype[Any], where: str) -> np.ndarray:
    """Return the array as `dtype`.

    Raises:
        ValueError: the type cannot hold a value, or one is NaN or infinite.
    """
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= int(array.min()) <= int(array.max()) <= np.iinfo(dtype).max:
        raise ValueError(f"{where}: holds {int(array.min())} to {int(array.max())}, which {dtype} cannot hold")
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(result).all():
        raise ValueError(f"{where}: holds NaN, infinity, or a number that {dtype} cannot hold")
    return result


def groups(samples: Mapping[int, Arrays], largest: int) -> list[list[int]]:
    """Return the requests that go into one forward together: of the same shapes, at most `largest`."""
    by_shape: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for i, sample in samples.items():
        by_shape.setdefault(tuple(array.shape for array in sample.values()), []).append(i)
    return [same[i : i + largest] for same in by_shape.values() for i in range(0, len(same), largest)]


def probabilities(scores: np.ndarray, kind: str) -> np.ndarray:
    """Return the probability of every class of a sample; `kind` says whether the scores are logits or probabilities."""
    values = scores.astype(np.float64)
    if kind == "logits":
        exponents = np.exp(values - values.max())
        values = exponents / exponents.sum()
    return values


def top_classes(scores: np.ndarray, names: Sequence[str], kind: str) -> list[dict[str, Any]]:
    """Return the most probable classes first."""
    values = probabilities(scores, kind)
    best = np.argsort(-values, kind="stable")[:TOP]
    return [{"class": names[i], "probability": float(values[i])} for i in best]


def load_torchscript(path: Path, gpu: int | None, contract: Mapping[str, Any]) -> Callable[[Arrays], Arrays]:
    """Return what runs a TorchScript file: on the GPU that TorchServe gives the worker, else on the CPU."""
    import torch

    if contract["engine"]:  # INT8, for which the weights are packed as they are loaded; GPUs have no such kernels
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
    """Return the tensors of an output in order, out of tuples, lists and dicts."""
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in flat(part)]
    return [output]


def load_onnx(path: Path, gpu: int | None, contract: Mapping[str, Any]) -> Callable[[Arrays], Arrays]:
    """Return what runs an ONNX file: on the GPU that TorchServe gives the worker, else on the CPU."""
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
