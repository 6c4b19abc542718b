"""One recipe, once in YAML and once in Python: both make byte-identical files."""

# %%
from pathlib import Path

import digits

import optkit

# %% In YAML
in_yaml = optkit.run(Path(digits.__file__).with_name("digits.yaml"), "build/yaml")

# %% In Python, with objects instead of names
recipe = optkit.Recipe(
    name="digits",
    model=digits.train(),
    inputs=digits.INPUTS,
    outputs=["logits"],
    dims=digits.DIMS,
    calibration=digits.calibration,
    evaluation=digits.accuracy,
    steps=[{"stage": "export-onnx"}, {"stage": "quantize-static", "activation_type": "uint8", "format": "qdq"}],
    bench={"batches": [8], "time_limit_s": 2},
)
in_python = optkit.run(recipe, "build/python")

# %%
for one, other in zip(in_yaml.steps, in_python.steps, strict=True):
    print(one.name, one.sha256, "the same" if one.sha256 == other.sha256 else f"but {other.sha256}")
assert [step.sha256 for step in in_yaml.steps] == [step.sha256 for step in in_python.steps]
