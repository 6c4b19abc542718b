"""The artifacts that are packaged and served here."""

from tests.support.artifacts import digits, external, int8, load, onnx, sample, torchscript, two, zoo

__all__ = ["digits", "external", "int8", "load", "onnx", "sample", "torchscript", "two", "zoo"]
