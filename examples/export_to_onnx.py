"""Export a network trained in this process to an ONNX file, checked to be equal at every corner of its dimensions."""

# %%
from digits import DIMS, INPUTS, accuracy, train

import optkit

model = train()

# %% Export. Print the record, or put it on the last line of a notebook cell.
made = optkit.export_onnx(model, "digits.onnx", inputs=INPUTS, dims=DIMS, outputs=["logits"], force=True)
print(made)

# %% The same findings as values
print("opset", optkit.inspect(made).onnx.opset)
print("largest difference from the model", made.parity.max_abs)

# %% Run the file.
with optkit.open(made) as runner:
    print("accuracy of the file", accuracy(runner.infer))
