"""A model repository for Triton, looked over without a server, before and after somebody makes a mistake in it."""

# %%
from pathlib import Path

from digits import DIMS, INPUTS, train

import optkit

optkit.export_onnx(train(), "digits.onnx", inputs=INPUTS, dims=DIMS, outputs=["logits"], force=True)

# %% Package the file. Triton may join requests, because the export proved that rows do not depend on each other.
print(optkit.package_triton("digits.onnx", "model_repository", name="digits", max_queue_delay_us=500, force=True))

# %% Would Triton load it?
found = optkit.lint("model_repository")
print(found)
assert found.passed

# %% A mistake: the output gets another size than the file has.
config = Path("model_repository/digits/config.pbtxt")
config.write_text(config.read_text().replace("dims: 10\n", "dims: 12\n"))
print(optkit.lint("model_repository"))
