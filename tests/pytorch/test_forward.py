import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from optkit.errors import ModelError
from optkit.pytorch.forward import flatten, forward_call, is_plain, returning_tuple, run_forward
from optkit.pytorch.outputs import find_outputs
from optkit.pytorch.tracing import by_position
from tests.support import zoo

A, B = torch.zeros(1), torch.ones(2)


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@dataclasses.dataclass
class Outcome:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (A, ["output"]),
        ((A, B), ["output_0", "output_1"]),
        ([A], ["output_0"]),
        (Pair(A, B), ["left", "right"]),
        ({"logits": A, "box": B}, ["logits", "box"]),
        ({"logits": A, "boxes": (A, B)}, ["logits", "boxes.0", "boxes.1"]),
        ({"a": {"b": A}}, ["a.b"]),
        (Outcome(A), ["logits"]),
        (Outcome(A, B), ["logits", "hidden"]),
    ],
)
def test_outputs_have_names(output: Any, names: list[str]) -> None:
    assert [name for name, _ in flatten(output)] == names


@pytest.mark.parametrize("output", [None, 3, "text", {"a": None}, (A, 1.0)])
def test_an_output_that_is_no_tensor_is_refused(output: Any) -> None:
    with pytest.raises(ModelError, match=r"^forward returned a \w+ in '\w+'; expected tensors, or tuples and dicts of"):
        list(flatten(output))


class TakesTwo(nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image - mask


@pytest.mark.parametrize(
    ("declared", "order"),
    [
        (("image", "mask"), ["image", "mask"]),
        (("mask", "image"), ["image", "mask"]),  # both are parameters of forward, so their names decide
        (("first", "second"), ["first", "second"]),  # neither is, so they are taken by position
        (("image", "other"), ["image", "other"]),
    ],
)
def test_inputs_come_in_the_order_of_forward(declared: tuple[str, ...], order: list[str]) -> None:
    inputs = zoo.specs(*(f"{name}:float32[2]" for name in declared))
    assert [spec.name for spec in forward_call(TakesTwo(), inputs).inputs] == order


def test_inputs_that_would_be_swapped_are_refused() -> None:
    message = (
        "input 'image': declared as number 2, but forward takes image, mask. "
        "Declare the inputs in the order of forward, or use the names of its parameters for all of them."
    )
    with pytest.raises(ModelError, match=re.escape(message)):
        forward_call(TakesTwo(), zoo.specs("other:float32[2]", "image:float32[2]"))


class TakesOptions(nn.Module):
    def forward(self, ids: torch.Tensor, types: torch.Tensor | None = None, *, mask: torch.Tensor, scale: float = 1.0):
        return ids * mask * scale if types is None else ids * mask * scale + types


@pytest.mark.parametrize(
    ("declared", "positional", "keyword"),
    [
        (("mask", "ids"), ["ids"], ["mask"]),  # types is left out, and mask goes by keyword only
        (("mask", "types", "ids"), ["ids", "types"], ["mask"]),
    ],
)
def test_optional_and_keyword_only_inputs(declared: tuple[str, ...], positional: list[str], keyword: list[str]) -> None:
    inputs = zoo.specs(*(f"{name}:float32[2]" for name in declared))
    call = forward_call(TakesOptions(), inputs)
    assert [spec.name for spec in call.positional] == positional
    assert [spec.name for spec in call.keyword] == keyword
    feed = {name: np.array([3, 4], np.float32) for name in declared}
    expected = torch.tensor([9.0, 16.0]) + (torch.tensor([3.0, 4.0]) if "types" in declared else 0)
    assert torch.equal(run_forward(TakesOptions(), call.inputs, feed)["output"], expected)
    by_place = by_position(TakesOptions(), call)
    assert torch.equal(by_place(*(torch.from_numpy(feed[spec.name]) for spec in call.inputs)), expected)


def test_a_required_input_that_is_not_declared_is_named() -> None:
    with pytest.raises(ModelError, match="forward also takes 'mask' without a default; expected an input for each"):
        forward_call(TakesOptions(), zoo.specs("ids:float32[2]"))


def test_too_many_inputs_are_refused() -> None:
    with pytest.raises(ModelError, match=r"3 inputs are declared \(a, b, c\), but forward takes image, mask"):
        forward_call(TakesTwo(), zoo.specs("a:float32[2]", "b:float32[2]", "c:float32[2]"))


def test_an_error_in_forward_names_the_line_and_the_shapes() -> None:
    with pytest.raises(
        ModelError, match=r"^forward raised .*test_forward\.py:\d+: RuntimeError: .*image float32\[2\], mask"
    ):
        run_forward(
            TakesTwo(),
            zoo.specs("image:float32[2]", "mask:float32[3]"),
            {"image": np.zeros(2, np.float32), "mask": np.zeros(3, np.float32)},
        )


@pytest.mark.parametrize("name", zoo.SAMPLES)
def test_the_outputs_of_the_zoo_are_found(name: str) -> None:
    sample = zoo.SAMPLES[name]
    found = find_outputs(getattr(zoo, name)(), sample.inputs, sample.dims).specs
    sizes = {dim: r.max for dim, r in sample.dims.items()}
    expected = sample.expected(sample.feed(sizes))
    assert [spec.name for spec in found] == list(expected)
    for spec in found:
        assert spec.shape_at(sizes) == expected[spec.name].shape
        assert spec.dtype.numpy == expected[spec.name].dtype


def test_a_dimension_that_is_computed_gets_a_name_of_its_own() -> None:
    sample = zoo.bad("folds_batch")
    assert [str(s) for s in find_outputs(zoo.folds_batch(), sample.inputs, sample.dims).specs] == [
        "output:float32[1,output_dim_1]"
    ]


def test_names_for_the_outputs_must_be_as_many() -> None:
    sample = zoo.SAMPLES["two"]
    found = find_outputs(zoo.two(), sample.inputs, sample.dims, ("sum", "rest")).specs
    assert [spec.name for spec in found] == ["sum", "rest"]
    with pytest.raises(ModelError, match=r"outputs: 1 names given \(sum\), but forward returns output_0, output_1"):
        find_outputs(zoo.two(), sample.inputs, sample.dims, ("sum",))


class Unsteady(nn.Module):
    def __init__(self, give: Any) -> None:
        super().__init__()
        self.give = give

    def forward(self, x: torch.Tensor) -> Any:
        return self.give(x)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda x: {f"at_{len(x)}": x}, "forward returns at_1 at one size and at_2 at another"),
        (lambda x: x if len(x) == 2 else x[0], "output 'output': has 1 dimensions at one size and 2 at another"),
        (lambda x: x.to(torch.bfloat16), "output 'output': is bfloat16; optkit handles float32, .* Cast it in forward"),
        (lambda x: x.sum(dim=5), "forward raised .*IndexError"),
    ],
)
def test_outputs_that_cannot_be_described_are_refused(give: Any, message: str) -> None:
    sample = zoo.bad("")
    with pytest.raises(ModelError, match=message):
        find_outputs(Unsteady(give), sample.inputs, sample.dims)


class Keeps(nn.Module):
    """Keeps something from one call to the next, in the way that is asked for."""

    def __init__(self, keep: Any) -> None:
        super().__init__()
        self.keep = keep
        self.calls = 0
        self.seen: list[torch.Tensor] = []
        self.hidden: torch.Tensor | None = None
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.keep(self, x)


def _count(model: Keeps, x: torch.Tensor) -> torch.Tensor:
    model.calls += 1
    return x * model.calls


def _collect(model: Keeps, x: torch.Tensor) -> torch.Tensor:
    model.seen.append(x)
    return x * len(model.seen)


def _average(model: Keeps, x: torch.Tensor) -> torch.Tensor:
    mean = model.get_buffer("mean")
    mean += 1
    return x * mean


def _recur(model: Keeps, x: torch.Tensor) -> torch.Tensor:
    model.hidden = x if model.hidden is None else model.hidden + x
    return model.hidden


@pytest.mark.parametrize(
    ("keep", "name", "begin"),
    [
        (
            _count,
            "calls",
            "forward gives different outputs for the same input, so parity cannot be checked. ",
        ),
        (_collect, "seen", "forward gives different outputs"),
        (_average, "mean", "forward gives different outputs"),
        (_recur, "hidden", "the second forward raised "),
    ],
)
def test_a_forward_that_keeps_state_is_told_what_it_keeps(keep: Any, name: str, begin: str) -> None:
    sample = zoo.bad("")
    with pytest.raises(ModelError) as caught:
        find_outputs(Keeps(keep), sample.inputs, {"batch": zoo.DimRange.parse("2:4:16")})
    assert str(caught.value).startswith(begin)
    assert str(caught.value).endswith(
        f"It keeps state between calls in self.{name}: make it an input and an output of forward, or reset it in "
        f"each call."
    )
    assert "dropout" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("seed", range(8))
def test_random_numbers_are_told_apart_from_state(share: float, seed: int) -> None:
    sample = zoo.bad("")
    # Of 8 elements, so that two calls agree by chance in 1 of 5, and in 1 of 256.
    drops_out = Unsteady(lambda x: nn.functional.dropout(x, share, training=True))
    torch.manual_seed(seed)
    with pytest.raises(ModelError, match=r"expected a model in evaluation mode\. Look for dropout with training=True"):
        find_outputs(drops_out, sample.inputs, {"batch": zoo.DimRange.parse("2:2:2")})


def test_random_numbers_that_the_answer_does_not_have_are_no_error() -> None:
    sample = zoo.bad("")

    def forward(x: torch.Tensor) -> torch.Tensor:
        torch.rand(3)
        return x

    assert len(find_outputs(Unsteady(forward), sample.inputs, sample.dims).specs) == 1


def test_an_output_is_not_called_as_an_input_is() -> None:
    sample = zoo.bad("")
    gives = Unsteady(lambda x: {"x": x, "y": x})
    assert [spec.name for spec in find_outputs(gives, sample.inputs, sample.dims).specs] == ["x_output", "y"]
    for names in (("a", "x"), ("a", "a")):
        with pytest.raises(
            ModelError,
            match=rf"^outputs: the name '{names[1]}' is used for two tensors \(inputs included\); expected unique names\. Give",
        ):
            find_outputs(gives, sample.inputs, sample.dims, names)


@pytest.mark.parametrize(
    ("output", "plain"),
    [
        ((A, {"a": [A, None]}, Pair(A, B)), True),
        (Outcome(A), False),
        ({"a": (Outcome(A),)}, False),
        (type("OwnDict", (dict,), {})(a=A), False),
    ],
)
def test_which_outputs_exporters_take_as_they_are(output: Any, plain: bool) -> None:
    assert is_plain(output) == plain


def test_the_module_that_returns_a_tuple_is_called_as_the_other_one() -> None:
    flat = returning_tuple(TakesOptions())
    inputs = zoo.specs("mask:float32[2]", "ids:float32[2]")
    assert forward_call(flat, inputs) == forward_call(TakesOptions(), inputs)
    assert [t.tolist() for t in flat(A, mask=B)] == [[0.0, 0.0]]
