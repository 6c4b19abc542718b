"""A model repository for Triton, checked without a server, before and after a mistake."""

# %%
from pathlib import Path

from digits import DIMS, INPUTS, train

import optkit

optkit.export_onnx(train(), "digits.onnx", inputs=INPUTS, dims=DIMS, outputs=["logits"], force=True)

# %% Package the file. Triton may batch requests, because the export checked that rows do not affect each other.
print(optkit.package_triton("digits.onnx", "model_repository", name="digits", max_queue_delay_us=500, force=True))

# %% Would Triton load it?
found = optkit.lint("model_repository")
print(found)
assert found.passed

# %% A mistake: the size of the output differs from the model file.
config = Path("model_repository/digits/config.pbtxt")
config.write_text(config.read_text().replace("dims: 10\n", "dims: 12\n"))
print(optkit.lint("model_repository"))
