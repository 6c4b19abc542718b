"""Choices that need a check or a measurement, one file for each choice.

    exporter        which ONNX exporter gives a right file, or the faster one
    int8/           the INT8 types, and the layers that stay in float
    engine          the precision of the ONNX file that an engine is built from
    winner          the artifact that a run recommends
    stage           runs a stage, with its choice if it has one

Import its modules by their own names: a single stage needs `stage`, and not the measurements behind `winner`.
"""
