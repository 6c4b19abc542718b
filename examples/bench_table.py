"""Which is faster: the network in PyTorch, its ONNX file, or its INT8 file? Measured in alternation, with intervals."""

# %%
from digits import DIMS, INPUTS, calibration, train

import optkit

model = train()
optkit.export_onnx(model, "digits.onnx", inputs=INPUTS, dims=DIMS, force=True)
optkit.quantize("digits.onnx", "digits.int8.onnx", calibration=calibration, force=True)

# %% The first one is the reference of the speed-ups. Files and modules can be mixed.
record = optkit.bench(["digits.onnx", "digits.int8.onnx", model], batches=[1, 8], time_limit_s=3)
print(record)

# %% The numbers
for speed_up in record.speed_ups:
    print(f"{speed_up.candidate} at batch {speed_up.batch}: speed-up {speed_up.ratio:.2f}, {speed_up.verdict}")

# %% As a pandas frame
try:
    print(record.to_frame()[["artifact", "batch", "p50_ms", "samples_per_s", "times_faster"]])
except optkit.MissingDependency as error:
    print(error)
