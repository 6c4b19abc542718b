"""Choices that need a check or a measurement, one file a choice.

Its modules are imported by their own names: a single stage needs `stage`, and not the measurements behind `winner`.
"""
