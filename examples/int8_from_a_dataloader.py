"""INT8, calibrated with the training's torch DataLoader, with a limit on the accuracy that it may lose."""

# %%
from digits import DIMS, INPUTS, accuracy, train, train_set
from torch.utils.data import DataLoader

import optkit

optkit.export_onnx(train(), "digits.onnx", inputs=INPUTS, dims=DIMS, outputs=["logits"], force=True)

# %% A batch of this loader is images and labels; `to_feed` takes the images.
loader = DataLoader(train_set, batch_size=64)
made = optkit.quantize(
    "digits.onnx",
    "digits.int8.onnx",
    calibration=loader,
    to_feed=lambda batch: batch[0],
    evaluate=accuracy,
    max_drop=0.01,
    force=True,
)
print(made)

# %% A file that exceeds a limit is not written, and the record contains the reason.
assert made.passed, made.failures
