"""A CI job: quantize the network to INT8, check it against gates, and exit with 1 if a gate fails.

python ci_gates.py --max-size-mb 0.2
"""

# %%
import argparse
import sys

from digits import DIMS, INPUTS, accuracy, calibration, train

import optkit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--max-accuracy-drop", type=float, default=0.01, help="the accuracy that INT8 may lose")
parser.add_argument("--max-size-mb", type=float, default=1.0, help="the largest allowed file")
options = parser.parse_args()

# %% The keys are those of a recipe in YAML, with objects instead of names.
recipe = optkit.Recipe(
    name="digits",
    model=train(),
    inputs=INPUTS,
    dims=DIMS,
    outputs=["logits"],
    calibration=calibration,
    evaluation=accuracy,
    steps=[{"stage": "export-onnx"}, {"stage": "quantize-static"}],
    gates={"max_accuracy_drop": options.max_accuracy_drop, "max_size_mb": options.max_size_mb},
    bench={"batches": [8], "time_limit_s": 3},
)

# %% The folder contains all files, run.json and report.html: store it as an artifact of the job.
record = optkit.run(recipe, "build")
print(record)
sys.exit(record.exit_code)  # 1: a gate failed; 2: a step could not run
