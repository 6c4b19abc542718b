"""A job of CI: make INT8 from the network, hold it against gates, and exit with 1 when one of them fails.

python ci_gates.py --max-size-mb 0.2
"""

# %%
import argparse
import sys

from digits import DIMS, INPUTS, accuracy, calibration, train

import optkit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--max-accuracy-drop", type=float, default=0.01, help="what INT8 may lose")
parser.add_argument("--max-size-mb", type=float, default=1.0, help="what a file may take")
options = parser.parse_args()

# %% The keys are those of a recipe in YAML, with objects in the place of names.
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

# %% What was made stays in the folder, with run.json and report.html: keep it as an artifact of the job.
record = optkit.run(recipe, "build")
print(record)
sys.exit(record.exit_code)  # 1: a gate failed; 2: a step could not run
