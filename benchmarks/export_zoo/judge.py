"""Check the exported files of one model, without information about the tools that made them.

    python -m export_zoo.judge own/mlp 20 dynamo=a.onnx optkit=b.onnx > verdicts.json

A verdict has one entry for each check: null if the file passes, otherwise the fault.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch.utils import _pytree as pytree

from export_zoo.catalog import CASES, Case
from export_zoo.factories import build
from export_zoo.feeds import feed, points, shapes, usual_sizes

ATOL, RTOL = 1e-4, 1e-3
SEEDS = (11, 12)

Outputs = dict[str, np.ndarray]
Verdict = dict[str, str | None]


def main() -> None:
    """Judge each file and print the verdicts as one JSON document."""
    name, opset, *files = sys.argv[1:]
    torch.set_num_threads(1)
    case = CASES[name]
    reference = Reference(case)
    verdicts = {}
    for text in files:
        tool, _, path = text.partition("=")
        verdicts[tool] = judge(case, reference, Path(path), int(opset))
    json.dump(verdicts, sys.stdout)


class Reference:
    """Eager PyTorch on every point, with each set of values, computed once."""

    def __init__(self, case: Case) -> None:
        model = build(case.name)
        self.answers: list[tuple[dict[str, int], dict[str, np.ndarray], Outputs]] = []
        for sizes in points(case):
            for seed in SEEDS:
                values = feed(case, sizes, seed)
                with torch.inference_mode():
                    found = model(*(torch.from_numpy(array) for array in values.values()))
                leaves = pytree.tree_leaves_with_path(found)
                outputs = {"".join(str(key).strip("[].'") for key in path): leaf.numpy() for path, leaf in leaves}
                self.answers.append((sizes, values, outputs))


def judge(case: Case, reference: Reference, path: Path, opset: int) -> Verdict:
    """Run every check on one file; a file that cannot be opened fails at its corners."""
    verdict: Verdict = dict.fromkeys(("checker", "opset", "dynamic", "corners", "batched"))
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as e:  # the checker and shape inference raise several unrelated types
        verdict["checker"] = _first_line(e)
    model = onnx.load(str(path), load_external_data=False)
    found = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if found != opset:
        verdict["opset"] = f"opset {found} for {opset}"
    verdict["dynamic"] = _lost_dimensions(case, model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:
        verdict["corners"] = verdict["batched"] = f"ONNX Runtime cannot load it: {_first_line(e)}"
        return verdict
    verdict["corners"] = _wrong_corner(session, reference)
    verdict["batched"] = _wrong_batch(case, session) if case.batch else None
    return verdict


def _lost_dimensions(case: Case, model: onnx.ModelProto) -> str | None:
    inputs = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    for name, (_, dims) in shapes(case).items():
        if name not in inputs:
            return f"input {name} is not in the file, which has {', '.join(inputs)}"
        for axis, dim in enumerate(dims):
            if isinstance(dim, str) and inputs[name][axis].HasField("dim_value"):
                return f"{dim} of {name} is fixed to {inputs[name][axis].dim_value}"
    return None


def _wrong_corner(session: onnxruntime.InferenceSession, reference: Reference) -> str | None:
    for sizes, values, expected in reference.answers:
        where = f"at {', '.join(f'{dim}={size}' for dim, size in sizes.items())}"
        try:
            got = _infer(session, values)
        except Exception as e:
            return f"{where}: ONNX Runtime refuses: {_first_line(e)}"
        fault = _difference(expected, _matched(expected, got))
        if fault:
            return f"{where}: {fault}"
    return None


def _wrong_batch(case: Case, session: onnxruntime.InferenceSession) -> str | None:
    """Compare f([a, b]) with [f(a), f(b)], using only the file."""
    low, usual, _ = case.dims["batch"]
    a = feed(case, usual_sizes(case) | {"batch": low}, SEEDS[0])
    b = feed(case, usual_sizes(case) | {"batch": usual - low}, SEEDS[1])
    try:
        together = _infer(session, {name: np.concatenate([a[name], b[name]]) for name in a})
        alone_a, alone_b = _infer(session, a), _infer(session, b)
    except Exception as e:
        return f"ONNX Runtime refuses: {_first_line(e)}"
    for name, array in together.items():
        if array.ndim == 0 or len(array) != usual:
            return f"{name} has shape {list(array.shape)} for a batch of {usual}"
    parts = {name: np.concatenate([alone_a[name], alone_b[name]]) for name in together}
    return _difference(parts, together)


def _infer(session: onnxruntime.InferenceSession, values: Mapping[str, np.ndarray]) -> Outputs:
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    feeds = {name: array for name, array in values.items() if name in wanted}  # _lost_dimensions reports a lost input
    ids = values.get("input_ids")
    if ids is not None:  # inputs that optimum adds, with the model's default values
        own = {
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
        }
        feeds |= {name: array for name, array in own.items() if name in wanted - set(feeds)}
    return dict(zip(names, session.run(None, feeds), strict=True))


def _matched(expected: Outputs, got: Outputs) -> Outputs:
    """Return the outputs under the reference's names: by name if the file has them all, otherwise by position."""
    if set(expected) <= set(got):
        return {name: got[name] for name in expected}
    if len(expected) != len(got):
        return got
    return dict(zip(expected, got.values(), strict=True))


def _difference(expected: Outputs, got: Outputs) -> str | None:
    if set(expected) != set(got):
        return f"outputs {', '.join(got)} for {', '.join(expected)}"
    for name, right in expected.items():
        found = got[name]
        if right.shape != found.shape or right.dtype != found.dtype:
            return f"{name} is {found.dtype}{list(found.shape)} for {right.dtype}{list(right.shape)}"
        a, b = right.astype(np.float64), found.astype(np.float64)
        if not np.allclose(b, a, atol=ATOL, rtol=RTOL):
            return f"{name} differs by {np.abs(a - b).max():.3g}"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


if __name__ == "__main__":
    main()
