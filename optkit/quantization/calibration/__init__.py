"""Ranges of activations, found by streaming calibration data through a model; no graph is rewritten here."""
