"""A Triton backend for ONNX models over the onnxruntime package, for a server that has no libtriton_onnxruntime.so.

Triton looks for `<backend-directory>/onnxruntime/model.py` where there is no library, so unchanged repositories load with it. It
batches as the real backend does: the requests that the scheduler put together run as one call.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.batched = config["max_batch_size"] > 0
        self.inputs, self.outputs = config["input"], config["output"]
        name = config["default_model_filename"] or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], name)
        if path.is_dir():  # with external data
            path = path / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._check("input", self.inputs, self.session.get_inputs())
        self._check("output", self.outputs, self.session.get_outputs())

    def _check(self, kind, declared, own):
        types = {
            "tensor(float)": "TYPE_FP32",
            "tensor(float16)": "TYPE_FP16",
            "tensor(double)": "TYPE_FP64",
            "tensor(int64)": "TYPE_INT64",
            "tensor(int32)": "TYPE_INT32",
            "tensor(int8)": "TYPE_INT8",
            "tensor(uint8)": "TYPE_UINT8",
            "tensor(bool)": "TYPE_BOOL",
            "tensor(string)": "TYPE_STRING",
        }
        known = {value.name: types.get(value.type) for value in own}
        for tensor in declared:
            if tensor["name"] not in known:
                raise pb_utils.TritonModelException(f"the model has no {kind} {tensor['name']!r}, only {sorted(known)}")
            if known[tensor["name"]] != tensor["data_type"]:
                raise pb_utils.TritonModelException(
                    f"{kind} {tensor['name']!r} is {tensor['data_type']}, the model has {known[tensor['name']]}"
                )
        if kind == "input" and len(declared) < len(known):
            raise pb_utils.TritonModelException(f"the model takes {sorted(known)}; the configuration declares fewer")

    def execute(self, requests):
        feeds = [self._feed(request) for request in requests]
        if not self.batched:
            return [self._response(self._run(feed)) for feed in feeds]
        shapes = {tuple(array.shape[1:] for array in feed.values()) for feed in feeds}
        if len(shapes) > 1:  # requests of other sizes cannot be put together
            return [self._response(self._run(feed)) for feed in feeds]
        together = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        ends = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])[:-1]
        outputs = {name: np.split(array, ends) for name, array in self._run(together).items()}
        return [self._response({name: parts[i] for name, parts in outputs.items()}) for i in range(len(feeds))]

    def _feed(self, request):
        feed = {}
        for tensor in self.inputs:
            array = pb_utils.get_input_tensor_by_name(request, tensor["name"]).as_numpy()
            feed[tensor["name"]] = self._reshaped(array, tensor.get("reshape"))
        return feed

    def _reshaped(self, array, reshape):
        """Give the model its own shape where the configuration shows clients another one."""
        if reshape is None:
            return array
        return array.reshape([*(array.shape[:1] if self.batched else ()), *map(int, reshape["shape"])])

    def _run(self, feed):
        names = [tensor["name"] for tensor in self.outputs]
        outputs = dict(zip(names, self.session.run(names, feed), strict=True))
        for tensor in self.outputs:
            if "reshape" in tensor or outputs[tensor["name"]].ndim == 0:
                rows = outputs[tensor["name"]].shape[:1] if self.batched else ()
                dims = [int(dim) for dim in tensor["dims"]]
                outputs[tensor["name"]] = outputs[tensor["name"]].reshape([*rows, *dims])
        return outputs

    def _response(self, outputs):
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])
