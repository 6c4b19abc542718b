"""A PyTorch module: where it comes from, what it takes and returns, and how it becomes a file.

source          the start of a chain, as an artifact
program         a module captured by torch.export for its declared ranges
origins         what a module can come from: memory, a factory, a TorchScript or .pt2 file, a Hugging Face folder
weights         a state dict: read, checked, loaded, hashed
forward         how a forward is called, and what it returns
outputs         the outputs, found by running the module
infer_inputs, guess_inputs      the inputs, read off examples, or guessed for an error to propose
program_file    what a .pt2 file says of its inputs
script_file     a TorchScript file of somebody else: its contract, and a form that servers take
tracing         what a tracer needs, and a warning where it turned a value into a constant
torchscript, dynamo     the two exporters, with their limits
stable_forms    accurate forms in the place of what the exporters write for some functions
export_failure  why an exporter failed, in words
quantized_engine        the libraries behind PyTorch's INT8 kernels
"""
