"""Write a script that repeats an export without optkit, with its inputs, for a bug report to another project."""

import json
import shutil
from pathlib import Path

from optkit import deps
from optkit.artifact import Artifact
from optkit.artifact.tensors import corners, example_sizes
from optkit.data import random_feed, write_npz
from optkit.errors import OutputError
from optkit.pytorch.forward import Call, dynamic_axes, forward_call
from optkit.pytorch.origins import open_origin
from optkit.pytorch.source import ModelSource, load_module
from optkit.pytorch.weights import matching_state
from optkit.serving.clients.generate import parameters
from optkit.stages import ExportOnnx, ExportTorchScript
from optkit.system.temporary import temporary_folder
from optkit.untrusted.paths import exists, is_folder

SCRIPT = "repro.py"

_HEAD = '''"""Repeats an export. Run it in this folder: python {script}

Written by optkit {optkit}, with {versions}.
"""

import numpy as np
import torch
'''

_FLATTEN = '''

def flatten(outputs):
    """Return the tensors of a nested output as a flat list."""
    if outputs is None or isinstance(outputs, torch.Tensor):
        return [] if outputs is None else [outputs]
    if hasattr(outputs, "__dataclass_fields__") and not isinstance(outputs, dict):
        outputs = {{name: getattr(outputs, name) for name in outputs.__dataclass_fields__}}
    values = outputs.values() if hasattr(outputs, "values") else outputs
    return [tensor for value in values for tensor in flatten(value)]

'''

_RETURNING_TUPLE = '''
class ReturningTuple(torch.nn.Module):
    """Returns the model's outputs as one flat tuple, because torch cannot export the types that the model returns."""

    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, {parameters}):
        return tuple(flatten(self.model({arguments})))


model = ReturningTuple().eval()

'''

_COMPARE = """

for name in {feeds}:
    feed = dict(np.load(name))
    tensors = {{key: torch.from_numpy(array) for key, array in feed.items()}}
    with torch.no_grad():
        expected = [tensor.numpy() for tensor in flatten({call})]
    found = {found}
    for i, (a, b) in enumerate(zip(expected, found, strict=True)):
        print(name, "output", i, a.shape, b.shape, "max abs", np.abs(a - b).max() if a.shape == b.shape else "shapes differ")
"""


def write_repro(source: Artifact, stage: ExportOnnx | ExportTorchScript, folder: Path) -> Path:
    """Write `repro.py`, the model's code or file, its weights, and feeds as .npz; return the path of the script.

    Args:
        source: source artifact of an nn.Module.
        stage: export stage to repeat; for a choice of exporters, the script uses the first one.
        folder: new or empty folder.

    Raises:
        OutputError: the folder is not empty or cannot be written.
    """
    if exists(folder) and (not is_folder(folder) or any(folder.iterdir())):
        raise OutputError(f"{folder}: is not empty; expected a new or empty folder for the reproduction")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent, folder.name) as partial:
            (partial / SCRIPT).write_text(_script(source, stage, partial), encoding="utf-8")
            partial.replace(folder)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be written ({e.strerror or e})") from e
    return folder / SCRIPT


def _script(source: Artifact, stage: ExportOnnx | ExportTorchScript, folder: Path) -> str:
    """Write the files that the script reads to a folder, and return the script."""
    feeds = _write_feeds(source, folder)
    call = forward_call(load_module(source), source.inputs)
    if isinstance(stage, ExportOnnx):
        lines = _onnx_lines(stage, call, source)
        found = "session.run(None, feed)"
    else:
        lines = _torchscript_lines(stage, call)
        positional = _call(Call(call.inputs), "tensors")
        found = f"[tensor.detach().numpy() for tensor in flatten(exported({positional}))]"
    head = _HEAD.format(script=SCRIPT, optkit=deps.built_with()["optkit"], versions=_versions())
    model = "\n".join(_model_lines(source, folder)) + "\n" + _FLATTEN.format() + _returning_tuple(source, call)
    compare = _COMPARE.format(feeds=json.dumps(feeds), call=f"model({_call(call, 'tensors')})", found=found)
    return head + model + "\n".join(lines) + "\n" + compare


def _versions() -> str:
    return ", ".join(f"{name} {version}" for name, version in deps.built_with().items() if name != "optkit")


def _model_lines(source: Artifact, folder: Path) -> list[str]:
    import torch

    model = ModelSource.read(source.path)
    if model.nested:
        raise OutputError(
            f"--repro: the inputs {', '.join(model.nested[-2:])} are parts of a nested parameter, which the script cannot call. Omit --repro."
        )
    origin = open_origin(model.target, source.path.parent)
    lines = origin.reproduce(folder, model.args)
    if model.weights:
        weights = source.path.parent / model.weights
        shutil.copyfile(weights, folder / weights.name)
        built = load_module(source)
        state, renamed = matching_state(
            built.get_submodule("module") if model.flatten else built, weights, model.weights_key
        )
        if renamed:  # the script loads names as they are
            weights = weights.with_suffix(".pt")
            torch.save(state, folder / weights.name)
        if weights.suffix == ".safetensors":
            lines += ["from safetensors.torch import load_file", f"model.load_state_dict(load_file({weights.name!r}))"]
        else:
            lines.append(f"model.load_state_dict(torch.load({weights.name!r}, weights_only=True))")
    if ".module()" not in lines[-1]:
        lines.append("model.eval()")
    return lines


def _returning_tuple(source: Artifact, call: Call) -> str:
    """Return the code that wraps the model, if the source artifact wraps it; else an empty string."""
    if not ModelSource.read(source.path).flatten:
        return ""
    names = parameters(spec.name for spec in call.positional).values()  # positional parameters may have any name
    keywords = [spec.name for spec in call.keyword]  # parameters of forward
    signature = ", ".join([*names, *(["*", *keywords] if keywords else [])])
    return _RETURNING_TUPLE.format(
        parameters=signature, arguments=", ".join([*names, *(f"{name}={name}" for name in keywords)])
    )


def _write_feeds(source: Artifact, folder: Path) -> list[str]:
    """Write the example feed of the exporter, and one feed for each corner of the dimensions."""
    feeds = {"example.npz": example_sizes(source.dims)}
    feeds |= {f"corner_{i}.npz": sizes for i, sizes in enumerate(corners(source.dims))}
    for name, sizes in feeds.items():
        with (folder / name).open("wb") as stream:
            write_npz(stream, random_feed(source.inputs, sizes, values=source.random))
    return list(feeds)


def _call(call: Call, tensors: str) -> str:
    positional = [f"{tensors}[{spec.name!r}]" for spec in call.positional]
    return ", ".join([*positional, *(f"{spec.name}={tensors}[{spec.name!r}]" for spec in call.keyword)])


def _example(call: Call) -> list[str]:
    return [
        "example = {key: torch.from_numpy(array) for key, array in np.load('example.npz').items()}",
        f"args = ({''.join(f'example[{spec.name!r}], ' for spec in call.positional)})",
        f"kwargs = {{{', '.join(f'{spec.name!r}: example[{spec.name!r}]' for spec in call.keyword)}}}",
    ]


def _by_position(call: Call) -> list[str]:
    """Return the lines that define `called`, a model with positional arguments only, and its `args`; tracing needs this form."""
    if not call.keyword:
        return [*_example(call), "called = model"]
    named = ", ".join(f"{spec.name!r}: tensors[{i}]" for i, spec in enumerate(call.inputs))
    return [
        "",
        "",
        "class ByPosition(torch.nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        "        self.model = model",
        "",
        "    def forward(self, *tensors):",
        f"        named = {{{named}}}",
        f"        return self.model({_call(call, 'named')})",
        "",
        "",
        *_example(Call(call.inputs)),
        "called = ByPosition().eval()",
    ]


def _onnx_lines(stage: ExportOnnx, call: Call, source: Artifact) -> list[str]:
    dynamo = stage.exporter not in ("torchscript", "script")
    if dynamo:
        shapes = {spec.name: dynamic_axes(spec) for spec in call.inputs}
        dynamic = f"dynamic_shapes={shapes if call.keyword else tuple(shapes.values())!r}"
    else:
        dynamic = f"dynamic_axes={ ({s.name: dynamic_axes(s) for s in (*call.inputs, *source.outputs)})!r}"
    return [
        "import onnx",
        "import onnxruntime",
        "",
        *([*_example(call), "called = model"] if dynamo else _by_position(call)),
        *(["called = torch.jit.script(model)"] if stage.exporter == "script" else []),
        "torch.onnx.export(",
        "    called,",
        "    args,",
        '    "model.onnx",',
        "    kwargs=kwargs,",
        f"    dynamo={dynamo},",
        f"    opset_version={stage.opset},",
        f"    input_names={[s.name for s in call.inputs]!r},",
        f"    output_names={[s.name for s in source.outputs]!r},",
        f"    {dynamic},",
        ")",
        'onnx.checker.check_model("model.onnx", full_check=True)',
        'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])',
    ]


def _torchscript_lines(stage: ExportTorchScript, call: Call) -> list[str]:
    if stage.method == "trace":
        return [*_by_position(call), "exported = torch.jit.trace(called, args, strict=False)"]
    return ["exported = torch.jit.script(model)"]
