"""One export with only an exporter, as an engineer writes it after reading its documentation; a separate process.

python -m export_zoo.attempt dynamo own/mlp mlp.onnx --opset 20
python -m export_zoo.attempt save transformers/bert folder

`save` writes the folder that optimum-cli reads.
"""

import argparse
from pathlib import Path

import torch

from export_zoo.catalog import CASES, Case
from export_zoo.factories import build
from export_zoo.feeds import feed, shapes, usual_sizes


def main() -> None:
    """Export one model; the traceback is the message when that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=["dynamo", "torchscript", "save"])
    parser.add_argument("model", choices=sorted(CASES), metavar="MODEL")
    parser.add_argument("output", type=Path)
    parser.add_argument("--opset", type=int, default=20)
    options = parser.parse_args()
    case = CASES[options.model]
    if options.tool == "save":
        build(case.name).model.save_pretrained(options.output)
    else:
        export(case, options.output, options.tool == "dynamo", options.opset)


def export(case: Case, output: Path, dynamo: bool, opset: int) -> None:
    """Export with every declared dynamic dimension, at the sizes in the middle of the ranges."""
    model = build(case.name)
    args = tuple(torch.from_numpy(array) for array in feed(case, usual_sizes(case), seed=0).values())
    axes = {
        name: {axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)}
        for name, (_, dims) in shapes(case).items()
    }
    if dynamo:
        torch.onnx.export(
            model,
            args,
            str(output),
            dynamo=True,
            opset_version=opset,
            input_names=list(axes),
            dynamic_shapes=tuple(axes.values()),
        )
    else:
        torch.onnx.export(
            model,
            args,
            str(output),
            dynamo=False,
            opset_version=opset,
            input_names=list(axes),
            dynamic_axes={name: dims for name, dims in axes.items() if dims},
        )


if __name__ == "__main__":
    main()
