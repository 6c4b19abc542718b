"""TensorRT: nothing but the worker imports it.

worker/         the program that imports tensorrt, tensorrt_rtx or pycuda: it builds, inspects and runs engines in a process of its own
process         the parent's side of that process
installed       which TensorRT an interpreter has, and for which GPU
qdq_rules       what TensorRT requires of a graph with Q/DQ nodes
unsupported_ops which operators TensorRT refused, and what to do
"""
