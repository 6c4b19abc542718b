"""How a model becomes INT8: calibration, the two quantizers, SmoothQuant."""
