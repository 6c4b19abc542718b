"""The facts of an .onnx file, and reading and writing it with its external data.

content         the facts of a file; reading, checking and saving it
reading         a file is checked before anything in it is used: types, names, external data
outline         the structure of a file without its weights, in the time that the structure takes
node_values     the values of all nodes on one feed, for the search of a node at fault
"""

from optkit.onnx_file import content
from optkit.onnx_file.content import (
    DYNAMIC_OPS,
    OnnxFacts,
    check,
    data_name,
    describe,
    facts,
    gather,
    has_float_weights_behind_qdq,
    has_fp16_weights,
    has_half,
    is_weight,
    keep_inputs,
    load,
    load_graph,
    load_lazily,
    nodes,
    release,
    save,
    type_name,
)

__all__ = [
    "DYNAMIC_OPS",
    "OnnxFacts",
    "check",
    "content",
    "data_name",
    "describe",
    "facts",
    "gather",
    "has_float_weights_behind_qdq",
    "has_fp16_weights",
    "has_half",
    "is_weight",
    "keep_inputs",
    "load",
    "load_graph",
    "load_lazily",
    "nodes",
    "release",
    "save",
    "type_name",
]
