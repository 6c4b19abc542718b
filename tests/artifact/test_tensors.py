import re

import numpy as np
import pytest
from pydantic import ValidationError

from optkit.artifact.tensors import (
    DimRange,
    DType,
    TensorSpec,
    batch_dim,
    check_feed,
    corners,
    dimension_faults,
    example_sizes,
)
from optkit.errors import FeedError


def spec(text: str) -> TensorSpec:
    return TensorSpec.parse(text)


@pytest.mark.parametrize(
    ("text", "name", "dtype", "shape"),
    [
        ("image:float32[batch,3,224,224]", "image", DType.FLOAT32, ("batch", 3, 224, 224)),
        ("  ids : int64 [ batch , length ] ", "ids", DType.INT64, ("batch", "length")),
        ("flag:bool[]", "flag", DType.BOOL, ()),
        ("model.input_1:uint8[1]", "model.input_1", DType.UINT8, (1,)),
    ],
)
def test_a_specification_is_read(text: str, name: str, dtype: DType, shape: tuple[int | str, ...]) -> None:
    found = spec(text)
    assert (found.name, found.dtype, found.shape) == (name, dtype, shape)
    assert spec(str(found)) == found


def test_the_name_may_stand_elsewhere() -> None:
    assert TensorSpec.parse("float32[batch,4]", name="x") == spec("x:float32[batch,4]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a tensor specification; expected name:dtype[dim,...]"),
        ("float32[batch,4]", "is not a tensor specification; expected name:dtype[dim,...]"),
        ("x:float32", "is not a tensor specification"),
        ("x:float32[batch,4", "is not a tensor specification"),
        ("x:float32[[4]]", "is not a tensor specification"),
        ("1x:float32[4]", "is not a tensor specification"),
        ("x:fp32[4]", "unknown dtype 'fp32'; expected one of float32, float16"),
        ("x:float32[batch,-1]", "dimension '-1' is neither a number nor a name"),
        ("x:float32[batch,]", "dimension '' is neither a number nor a name"),
        ("x:float32[3.5]", "dimension '3.5' is neither a number nor a name"),
        ("x:float32[0]", "dimension 0: must be 1 or more, or a name such as 'batch' if it varies"),
    ],
)
def test_a_wrong_specification_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        spec(text)


def test_a_second_name_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("expected dtype[dim,...], as in float32[batch,3,224,224]")):
        TensorSpec.parse("x:float32[4]", name="x")


def test_a_shape_at_a_point() -> None:
    assert spec("x:float32[batch,3,length]").shape_at({"batch": 2, "length": 7, "other": 1}) == (2, 3, 7)


def test_a_range_is_read() -> None:
    assert DimRange.parse(" 1: 8 :64 ") == DimRange(min=1, opt=8, max=64)


def test_a_range_may_have_multiples_only() -> None:
    sizes = DimRange.parse("32:224:640:32")
    assert sizes == DimRange(min=32, opt=224, max=640, multiple_of=32)
    assert sizes.odd_point() == 160  # 5 * 32, the odd multiple nearest to the middle between min and opt
    assert [sizes.small(rank) for rank in range(3)] == [32, 64, 96]


def test_sizes_that_are_no_multiples_are_refused() -> None:
    with pytest.raises(ValueError, match="100 is not a multiple of 32; multiple_of requires it of min, opt and max"):
        DimRange(min=32, opt=100, max=640, multiple_of=32)


def test_example_sizes_differ_and_stay_inside() -> None:
    dims = {
        "batch": DimRange(min=1, opt=8, max=64),
        "length": DimRange(min=1, opt=8, max=64),
        "one": DimRange.parse("1:1:1"),
    }
    assert example_sizes(dims) == {"batch": 2, "length": 3, "one": 1}
    assert example_sizes(dims, turn=1) == {"batch": 3, "length": 4, "one": 1}


@pytest.mark.parametrize("text", ["1:8", "1:8:64:1:1", "a:b:c", "-1:8:64", "", "1,8,64"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not a range; expected min:opt:max, as in 1:8:64")):
        DimRange.parse(text)


@pytest.mark.parametrize("text", ["0:8:64", "8:4:64", "1:65:64", "64:8:1"])
def test_a_range_out_of_order_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="expected 1 <= min <= opt <= max"):
        DimRange.parse(text)


@pytest.mark.parametrize(
    ("text", "odd"),
    [
        ("1:8:64", 5),
        ("1:1:64", 3),
        ("7:8:64", 9),
        ("1:1:1", None),
        ("1:1:2", None),
        ("1:2:4", 3),
        ("3:3:5", None),
        ("1:3:5", None),
    ],
)
def test_the_odd_point_is_odd_and_none_of_the_three(text: str, odd: int | None) -> None:
    assert DimRange.parse(text).odd_point() == odd


def test_corners_of_no_dimension_is_one_point() -> None:
    assert corners({}) == [{}]


def test_corners_take_each_dimension_together_and_alone() -> None:
    points = corners({"batch": DimRange.parse("1:8:64"), "length": DimRange.parse("16:128:512")})
    assert points[0] == {"batch": 8, "length": 128}  # opt comes first
    assert {"batch": 1, "length": 16} in points
    assert {"batch": 64, "length": 512} in points
    assert {"batch": 5, "length": 73} in points
    assert {"batch": 1, "length": 128} in points
    assert {"batch": 8, "length": 512} in points
    assert len(points) == len({tuple(p.items()) for p in points}) == 8


def test_a_fixed_range_gives_one_corner() -> None:
    assert corners({"batch": DimRange.parse("1:1:1")}) == [{"batch": 1}]


def test_dimension_faults_are_listed_together() -> None:
    inputs = [spec("a:float32[batch,length]"), spec("a:float32[batch]")]
    faults = dimension_faults(inputs, {"batch": DimRange.parse("1:8:64"), "lenght": DimRange.parse("1:8:64")})
    assert faults == [
        "dimension 'length': used by an input but has no range; declare it, with --dim length=1:8:64, or as length: {min: 1, opt: 8, max: 64} in a recipe",
        "dimension 'lenght': has a range but no input uses it; the inputs use batch, length",
        "input 'a': declared twice",
    ]
    assert dimension_faults([spec("a:float32[4]")], {}) == []


@pytest.mark.parametrize(
    ("texts", "batch"),
    [
        (["a:float32[batch,3]", "b:int64[batch]"], "batch"),
        (["a:float32[batch,3]", "b:int64[length]"], None),
        (["a:float32[4,3]"], None),
        (["a:float32[]"], None),
        (["a:float32[batch]", "b:float32[]"], None),
    ],
)
def test_the_batch_dimension_comes_first_in_every_input(texts: list[str], batch: str | None) -> None:
    assert batch_dim([spec(text) for text in texts]) == batch


INPUTS = (spec("ids:int64[batch,length]"), spec("mask:float32[batch,length,1]"))


def feed(ids: tuple[int, ...], mask: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {"ids": np.zeros(ids, np.int64), "mask": np.zeros(mask, np.float32)}


def test_a_feed_that_fits_gives_its_sizes() -> None:
    assert check_feed(feed((2, 5), (2, 5, 1)), INPUTS) == {"batch": 2, "length": 5}
    assert check_feed({}, ()) == {}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "feed: got inputs none; the model takes ids, mask"),
        ({"ids": np.zeros((2, 5), np.int64)}, "feed: got inputs ids; the model takes ids, mask"),
        (
            feed((2, 5), (2, 4, 1)),
            "input 'mask': got float32[2,4,1]; the model takes float32[batch,length,1] with batch=2, length=5",
        ),
        (
            feed((2, 5), (3, 5, 1)),
            "input 'mask': got float32[3,5,1]; the model takes float32[batch,length,1] with batch",
        ),
        (feed((2, 5), (2, 5, 2)), "input 'mask': got float32[2,5,2]; the model takes float32[batch,length,1]"),
        (feed((2, 5), (2, 5)), "input 'mask': got float32[2,5]; the model takes float32[batch,length,1]"),
        (feed((0, 5), (0, 5, 1)), "input 'ids': got int64[0,5]; the model takes int64[batch,length]"),
        (
            feed((2, 5), (2, 5, 1)) | {"ids": np.zeros((2, 5), np.int32)},
            "input 'ids': got int32[2,5]; the model takes int64[batch,length]. Cast the feed to int64.",
        ),
        (feed((2, 5), (2, 5, 1)) | {"ids": [[1]]}, "input 'ids': got list; expected a numpy array int64[batch,length]"),
    ],
)
def test_a_feed_that_does_not_fit_is_refused(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(FeedError, match=re.escape(message)):
        check_feed(arrays, INPUTS)


def test_sizes_must_lie_in_their_ranges_where_ranges_are_given() -> None:
    dims = {"batch": DimRange.parse("1:2:4"), "length": DimRange.parse("2:5:8")}
    assert check_feed(feed((4, 2), (4, 2, 1)), INPUTS, dims) == {"batch": 4, "length": 2}
    with pytest.raises(FeedError, match=r"^dimension 'batch': got 5; declared 1 to 4$"):
        check_feed(feed((5, 2), (5, 2, 1)), INPUTS, dims)
    with pytest.raises(FeedError, match=r"^dimension 'length': got 1; declared 2 to 8$"):
        check_feed(feed((4, 1), (4, 1, 1)), INPUTS, dims)


@pytest.mark.parametrize("dtype", DType)
def test_every_dtype_is_a_numpy_dtype(dtype: DType) -> None:
    assert dtype.numpy.name == dtype
    assert dtype.is_float == (dtype.numpy.kind == "f")
