"""Ranges of activations from calibration data that is streamed through a model; no graph is rewritten here."""
