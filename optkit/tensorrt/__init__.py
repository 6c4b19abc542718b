"""TensorRT: the process that alone imports it, what it needs of an ONNX file with Q/DQ nodes, and the operators that it does not have."""
