"""A network that was trained in this process becomes an ONNX file, proven equal to it at every corner of its dimensions."""

# %%
from digits import DIMS, INPUTS, accuracy, train

import optkit

model = train()

# %% Export. The record shows itself: print it here, or leave it as the last line of a notebook's cell.
made = optkit.export_onnx(model, "digits.onnx", inputs=INPUTS, dims=DIMS, outputs=["logits"], force=True)
print(made)

# %% The same findings as values
print("opset", optkit.inspect(made).onnx.opset)
print("largest difference to the model", made.parity.max_abs)

# %% Run the file.
with optkit.open(made) as runner:
    print("accuracy of the file", accuracy(runner.infer))
