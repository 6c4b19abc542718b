import re
from pathlib import Path

import pytest

from optkit.errors import ModelError
from optkit.user_code import the_model

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, size=4):
        super().__init__()
        self.fc = nn.Linear(size, 2)

    def forward(self, features):
        return self.fc(features)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.py"


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("", "Net"),
        (
            "\nclass Whole(Net):\n    def __init__(self):\n        super().__init__()\n        self.part = Net()\n",
            "Whole",
        ),
        ("\ndef create(size=8):\n    return Net(size)\n", "create"),
        ("\ndef create():\n    net = Net()\n    return net\n", "create"),
        ("\ndef create() -> nn.Module:\n    return other()\n\nclass _Hidden(nn.Module):\n    pass\n\nx = Net\n", None),
        ("\nmodel = Net(12).eval()\n", "model"),
        (
            "\ndef train(model):\n    model(1)\n\nif __name__ == '__main__':\n    model = Net()\n    train(model)\n",
            "Net",
        ),
        ("\nloss = nn.CrossEntropyLoss()\n\ndef evaluate():\n    return Net()(1).mean()\n", "Net"),
        ("\nclass Other(torch.nn.Module):\n    pass\n", None),
    ],
)
def test_the_one_model_of_a_file_is_found_and_of_several_none_is_taken(file: Path, more: str, name: str | None) -> None:
    file.write_text(NET + more)
    if name:
        assert the_model(file) == name
    else:
        with pytest.raises(
            ModelError, match=rf"model\.py: defines several models; expected one.*\n  {re.escape(str(file))}:"
        ):
            the_model(file)


def test_what_defines_no_model_says_what_is_looked_for(file: Path) -> None:
    file.write_text("def train():\n    return 1\n")
    with pytest.raises(
        ModelError,
        match=r"defines no subclass of nn\.Module and no function that returns a module; name the .*model\.py:build",
    ):
        the_model(file)
    file.write_text("def train(:\n")
    with pytest.raises(ModelError, match=r"model\.py:1: invalid syntax"):
        the_model(file)
    file.unlink()
    with pytest.raises(ModelError, match=r"model\.py: no such file; expected a Python file"):
        the_model(file)
