"""Quantization.

calibration/    ranges of activations, from streamed data
ort_quantizer   how a graph is prepared for ONNX Runtime's quantizer
torch_quantizer how PyTorch makes INT8 layers
smoothquant     SmoothQuant for transformers
"""
