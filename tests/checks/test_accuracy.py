from pathlib import Path

import pytest

from optkit.artifact import Artifact
from optkit.artifact.findings import Accuracy
from optkit.checks import evaluate
from optkit.errors import FeedError, ModelError
from optkit.runners import open_runner


def accuracy(artifact: Artifact, folder: Path, body: str) -> Accuracy:
    (folder / "accuracy.py").write_text(f"import numpy as np\ndef evaluate(predict):\n    {body}\nvalue = 3\n")
    with open_runner(artifact) as runner:
        return evaluate(f"{folder}/accuracy.py:evaluate", runner.infer)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("return 1", 1.0),
        ("return np.float32(0.5)", 0.5),
        ("return float(predict({'input': np.zeros((2, 4), np.float32)})['output'][1, 1])", -2.0),
    ],
)
def test_the_users_number_is_kept(onnx_linear: Artifact, tmp_path: Path, body: str, value: float) -> None:
    found = accuracy(onnx_linear, tmp_path, body)
    assert found == Accuracy(value=value, function="accuracy.py:evaluate", inputs=found.inputs)
    assert [moments.input for moments in found.inputs] == (["input"] if "predict" in body else [])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('no data')", r"accuracy\.py:evaluate: raised .*accuracy\.py:3: ValueError: no data$"),
        (
            "return predict({'input': 1})['y'] / 0",
            r"accuracy\.py:evaluate: called predict with an invalid feed: input 'input': got int; ",
        ),
        (
            "return predict({'y': 1})",
            r"accuracy\.py:evaluate: called predict with an invalid feed: got inputs y; the model takes input",
        ),
        ("return float('nan')", r"accuracy\.py:evaluate: returned nan; expected a finite number, larger is better$"),
        ("return float('inf')", r": returned inf; expected a finite number"),
        ("return '0.97'", r": returned '0\.97'; expected a finite number"),
        ("return None", r": returned None; expected a finite number"),
        ("return True", r": returned True; expected a finite number"),
        ("return np.ones(3)", r": returned array\(\[1., 1., 1.\]\); expected a finite number"),
    ],
)
def test_anything_else_than_a_finite_number_is_refused(
    onnx_linear: Artifact, tmp_path: Path, body: str, says: str
) -> None:
    with pytest.raises((ModelError, FeedError), match=says):
        accuracy(onnx_linear, tmp_path, body)


def test_what_cannot_be_called_is_refused(onnx_linear: Artifact, tmp_path: Path) -> None:
    accuracy(onnx_linear, tmp_path, "return 1")
    with open_runner(onnx_linear) as runner:
        with pytest.raises(ModelError, match=r"accuracy\.py:value: is a int; expected a function that takes predict$"):
            evaluate(f"{tmp_path}/accuracy.py:value", runner.infer)
        with pytest.raises(ModelError, match=r"accuracy\.py: has no 'other'; it defines np, evaluate, value$"):
            evaluate(f"{tmp_path}/accuracy.py:other", runner.infer)
