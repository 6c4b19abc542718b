"""Ranges of activations from calibration data that is streamed through a model; no graph is rewritten here.

settings        what a user may set
collect         streams data through a model: `batches` cuts it, `activations` runs it, `histogram` counts, `inputs` describes samples
channels        the largest value of each channel, for SmoothQuant
ranges, search  the methods: min-max, moving average, percentile, entropy, mean squared error
doctor          checks the data
reuse           keeps ranges while nothing that they depend on has changed
"""
