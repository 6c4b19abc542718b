"""Quantization: calibration, the two quantizers, SmoothQuant."""
