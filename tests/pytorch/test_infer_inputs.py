"""What example inputs show of a contract."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from optkit.errors import ModelError
from optkit.pytorch.infer_inputs import infer_contract
from optkit.pytorch.source import make_source


class Text(nn.Module):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return ids * mask


def shown(example: object) -> list[str]:
    contract = infer_contract(example, Text())
    dims = [f"{name}={r.min}:{r.opt}:{r.max}" for name, r in contract.dims.items()]
    return [*map(str, contract.inputs), *dims]


def test_one_example_shows_the_batch() -> None:
    example = {"ids": torch.zeros(2, 7, dtype=torch.int64), "mask": np.zeros((2, 7), np.int64)}
    assert shown(example) == ["ids:int64[batch,7]", "mask:int64[batch,7]", "batch=1:8:64"]


def test_a_tuple_goes_by_the_order_of_forward() -> None:
    assert shown((torch.zeros(2, 7), torch.zeros(2, 1)))[:2] == ["ids:float32[batch,7]", "mask:float32[batch,1]"]


def test_two_examples_show_what_varies_and_what_varies_together() -> None:
    examples = [{name: torch.zeros(n, length) for name in ("ids", "mask")} for n, length in ((2, 7), (3, 12), (2, 9))]
    assert shown(examples) == ["ids:float32[batch,ids_1]", "mask:float32[batch,ids_1]", "batch=1:8:64", "ids_1=7:9:12"]


def test_inputs_of_different_length_share_no_batch() -> None:
    assert shown({"ids": torch.zeros(2, 7), "mask": torch.zeros(3)}) == ["ids:float32[2,7]", "mask:float32[3]"]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("text", "are a str; expected a mapping of input name to tensor, or a tuple of tensors"),
        ({"ids": [1, 2]}, "'ids.0': is a int; expected a tensor or an array"),
        ({}, "none given"),
        ([], "none given"),
        ((torch.zeros(1), torch.zeros(1), torch.zeros(1)), "are 3, but forward takes ids, mask"),
        ({"ids": torch.zeros(1, dtype=torch.complex64)}, "'ids': is complex64; optkit handles"),
        ([{"ids": torch.zeros(1)}, {"mask": torch.zeros(1)}], "differ in names, dtypes or numbers of dimensions"),
    ],
)
def test_what_is_no_example_is_refused(example: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        infer_contract(example, Text())


CODE = """
    import torch
    from torch import nn
    def build(): return nn.Linear(4, 2)
    def example_inputs(): return torch.zeros(2, 4)
    def other(): return {"input": torch.zeros(5, 3, 4)}
    def broken(): raise ValueError("no data")
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "m.py"
    path.write_text(textwrap.dedent(CODE))
    return path


def test_a_factory_brings_its_example_inputs(code: Path, tmp_path: Path) -> None:
    source = make_source(f"{code}:build", tmp_path)
    assert [str(spec) for spec in (*source.inputs, *source.outputs)] == [
        "input:float32[batch,4]",
        "output:float32[batch,2]",
    ]


def test_another_example_may_be_named(code: Path, tmp_path: Path) -> None:
    source = make_source(f"{code}:build", tmp_path, example=f"{code}:other")
    assert [str(spec) for spec in source.inputs] == ["input:float32[batch,3,4]"]


def test_an_example_that_raises_names_the_line(code: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"broken: raised .*m\.py:7: ValueError: no data"):
        make_source(f"{code}:build", tmp_path, example=f"{code}:broken")


def test_neither_inputs_nor_example_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("import torch\ndef build(): return torch.nn.Linear(4, 2)\n")
    with pytest.raises(
        ModelError, match=r"its inputs are not declared.*--input .* or define example_inputs\(\) beside"
    ):
        make_source(f"{tmp_path / 'm.py'}:build", tmp_path)
