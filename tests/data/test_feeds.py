import itertools
import operator
import os
from pathlib import Path

import numpy as np
import pytest

from optkit import user_code
from optkit.artifact.tensors import DimRange, TensorSpec, check_feed, corners
from optkit.data import Feeds, Samples, absolute_data, data_fault, random_feed
from optkit.errors import FeedError
from tests.support.hostile import within

INPUTS = (TensorSpec.parse("x:float32[batch,2]"),)
DIMS = {"batch": DimRange(min=1, opt=4, max=8)}


def rows(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[v, -v] for v in values], np.float32)}


def code(tmp_path: Path, body: str) -> str:
    file = tmp_path / "data.py"
    file.write_text("import numpy as np\n" + body)
    return f"{file}:feeds"


FEEDS = "def feeds():\n    return [{'x': np.full((3, 2), i, np.float32)} for i in range(4)]\n"


def test_a_function_gives_feeds_more_than_once(tmp_path: Path) -> None:
    feeds = Feeds(code(tmp_path, FEEDS), INPUTS)
    assert operator.length_hint(feeds) == 4
    assert [float(feed["x"][0, 0]) for feed in feeds] == [0, 1, 2, 3]
    assert [float(feed["x"][0, 0]) for feed in feeds] == [0, 1, 2, 3]


def test_a_list_needs_no_function(tmp_path: Path) -> None:
    assert len(list(Feeds(code(tmp_path, "feeds = [{'x': np.zeros((1, 2), np.float32)}]"), INPUTS))) == 1


def test_an_object_that_starts_anew_has_no_length(tmp_path: Path) -> None:
    body = "class Data:\n    def __iter__(self):\n        yield {'x': np.zeros((1, 2), np.float32)}\n\nfeeds = Data()\n"
    feeds = Feeds(code(tmp_path, body), INPUTS)
    assert len(list(feeds)) == len(list(feeds)) == 1
    assert operator.length_hint(feeds) == 0  # not known


SHRINKING = """
class Shrinking:
    left = 6  # one reading is there to see whether there can be two
    def __iter__(self):
        self.left -= 1
        return iter([{'x': np.zeros((1, 2), np.float32)}] * self.left)

feeds = Shrinking()
"""


def test_data_that_is_less_when_read_again_is_refused(tmp_path: Path) -> None:
    feeds = Feeds(code(tmp_path, SHRINKING), INPUTS)
    assert len(list(feeds)) == 4
    with pytest.raises(
        FeedError, match=r"yielded 3 feeds; expected 4, its length or the number at the previous reading"
    ):
        list(feeds)


def test_data_that_is_less_than_its_length_is_refused(tmp_path: Path) -> None:
    body = FEEDS + "class Short(list):\n    def __len__(self):\n        return 9\n\nshort = Short(feeds())\n"
    target = code(tmp_path, body).replace(":feeds", ":short")
    with pytest.raises(FeedError, match=r"yielded 4 feeds; expected 9"):
        list(Feeds(target, INPUTS))


def test_a_part_of_the_data_may_be_read(tmp_path: Path) -> None:
    feeds = Feeds(code(tmp_path, FEEDS), INPUTS)
    next(iter(feeds))
    assert len(list(feeds)) == 4


def test_npz_files_are_read_one_at_a_time(tmp_path: Path) -> None:
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", **rows(1))
    feeds = iter(Feeds(str(tmp_path), INPUTS))
    next(feeds)
    (tmp_path / "b.npz").write_bytes(b"no longer a feed")
    with pytest.raises(FeedError, match=r"b\.npz: "):
        next(feeds)


def test_the_hash_of_a_function_is_that_of_its_code(tmp_path: Path) -> None:
    before = Feeds(code(tmp_path, FEEDS), INPUTS).sha256()
    assert Feeds(code(tmp_path, FEEDS), INPUTS).sha256() == before
    assert Feeds(code(tmp_path, FEEDS.replace("4", "5")), INPUTS).sha256() != before


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "feeds = iter([])",
            "the data is a list_iterator, which can be read only once; .* a function that yields them",
        ),
        (
            "def feeds():\n    yield from []",
            "yielded no feeds; expected at least one mapping of input name to array",
        ),
        (
            "def feeds():\n    yield 3",
            "feed 0: is a int; expected a mapping of input name to array, or a tuple of arrays",
        ),
        ("def feeds():\n    yield from None", r"feed 0: raised .*data\.py:3: TypeError"),
        ("feeds = []", "yielded no feeds; expected at least one mapping of input name to array"),
        ("feeds = 3", "the data is a int; expected an iterable of feeds, such as a list"),
        ("def feeds():\n    raise OSError('disk gone')", r"raised .*data\.py:3: OSError: disk gone"),
        ("feeds = [(np.zeros((1, 2), np.float32),) * 2]", "feed 0: has 2 arrays; expected 1: x"),
        ("feeds = [{'y': np.zeros((1, 2), np.float32)}]", "feed 0: got inputs y; the model takes x"),
        ("feeds = [{'x': np.zeros((1, 3), np.float32)}]", r"feed 0: input 'x': got float32\[1,3\]; the model takes"),
        ("feeds = [{'x': np.zeros((1, 2))}]", r"feed 0: input 'x': got float64\[1,2\]; .* Cast the feed to float32"),
        (
            "feeds = [{'x': np.zeros((1, 2), np.float32)}, {'x': np.full((1, 2), np.nan, np.float32)}]",
            "feed 1: input 'x': contains NaN or infinity; expected finite numbers",
        ),
        ("feeds = [{'x': np.full((1, 2), np.inf, np.float32)}]", "feed 0: input 'x': contains NaN or infinity"),
    ],
)
def test_a_wrong_function_is_refused(tmp_path: Path, body: str, message: str) -> None:
    target = code(tmp_path, body)
    with pytest.raises(FeedError, match=message) as caught:
        list(Feeds(target, INPUTS))
    assert str(caught.value).startswith(target)


def test_a_function_that_yields_is_called_at_each_reading(tmp_path: Path) -> None:
    """Data that is larger than memory is given so."""
    body = "def feeds():\n    for n in range(3):\n        yield {'x': np.full((1, 2), n, np.float32)}"
    feeds = Feeds(code(tmp_path, body), INPUTS)
    for _ in range(2):
        assert [float(feed["x"][0, 0]) for feed in feeds] == [0, 1, 2]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("left = iter(ROWS)\ndef feeds():\n    return left", id="the-same-iterator-again"),
        pytest.param("def feeds():\n    while ROWS:\n        yield ROWS.pop()", id="consumes-its-source"),
    ],
)
def test_a_function_that_yields_less_the_next_time_is_refused(tmp_path: Path, body: str) -> None:
    feeds = Feeds(code(tmp_path, f"ROWS = [{{'x': np.zeros((1, 2), np.float32)}}] * 3\n{body}"), INPUTS)
    with pytest.raises(
        FeedError, match=r"yielded 0 feeds; expected 3, .* a function that yields the same feeds at each call"
    ):
        list(itertools.chain(feeds, feeds))


def test_a_folder_gives_one_feed_a_file_in_the_order_of_names(tmp_path: Path) -> None:
    for name, value in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        np.savez(tmp_path / f"{name}.npz", **rows(value))
    feeds = Feeds(str(tmp_path), INPUTS)
    assert operator.length_hint(feeds) == 3
    assert [float(feed["x"][0, 0]) for feed in feeds] == [1, 2, 3]
    before = feeds.sha256()
    np.savez(tmp_path / "c.npz", **rows(4))
    assert feeds.sha256() != before


def test_one_file_is_one_feed(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", **rows(1, 2))
    assert len(list(Feeds(str(tmp_path / "one.npz"), INPUTS))) == 1


def test_a_folder_without_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(FeedError, match=r"no \.npz file found; expected a folder of \.npz files, one feed per file"):
        list(Feeds(str(tmp_path), INPUTS))
    with pytest.raises(FeedError, match=r"no \.npz file found"):
        list(Feeds(str(tmp_path / "a.bin"), INPUTS))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FeedError, match=r"none: no such file or folder; expected \.npz files, images\.yaml or file\.py:function"
    ):
        list(Feeds(str(tmp_path / "none"), INPUTS))


def test_a_damaged_npz_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **rows(1))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[:-30])
    with pytest.raises(FeedError, match=r"b\.npz: (damaged|cannot be read as) \.npz"):
        list(Feeds(str(tmp_path), INPUTS))
    (tmp_path / "b.npz").write_bytes(b"")
    with pytest.raises(FeedError, match=r"b\.npz: cannot be read as \.npz"):
        list(Feeds(str(tmp_path), INPUTS))


def test_a_pickle_in_an_npz_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (ran,))

    np.savez(tmp_path / "a.npz", x=np.array([Bomb()], dtype=object))
    with pytest.raises(FeedError, match=r"cannot be read as \.npz"):
        list(Feeds(str(tmp_path), INPUTS))
    assert not ran.exists()


def test_faults_are_told_without_running_code(tmp_path: Path) -> None:
    target = code(tmp_path, "raise RuntimeError")
    assert data_fault(target) is None
    assert "no such file" in str(data_fault(f"{tmp_path}/none.py:feeds"))
    assert "no such file or folder" in str(data_fault(str(tmp_path / "none")))


def test_a_relative_source_starts_at_its_base(tmp_path: Path) -> None:
    (tmp_path / "calibration").mkdir()
    assert absolute_data("calibration", tmp_path) == str(tmp_path / "calibration")
    assert absolute_data("data.py:feeds", tmp_path) == f"{tmp_path / 'data.py'}:feeds"
    assert absolute_data("package.module:feeds", tmp_path) == "package.module:feeds"


def test_random_feeds_are_the_same_for_the_same_seed() -> None:
    inputs = tuple(TensorSpec.parse(t) for t in ("a:float16[batch,3]", "b:int64[batch]", "c:bool[batch]"))
    first, again, other = (random_feed(inputs, {"batch": 32}, seed) for seed in (1, 1, 2))
    for spec in inputs:
        assert first[spec.name].dtype == spec.dtype.numpy
        assert first[spec.name].flags.c_contiguous
        np.testing.assert_array_equal(first[spec.name], again[spec.name])
        assert (first[spec.name] != other[spec.name]).any()
    assert set(first["b"]) == {0, 1}  # valid ids and masks anywhere


COUNTED = """
class Data:
    read = 0

    def __iter__(self):
        while True:
            Data.read += 1
            yield {"x": np.full((3, 2), Data.read, np.float32)}

feeds = Data()
"""


def test_samples_are_cut_and_repeated_from_real_data(tmp_path: Path) -> None:
    for name, feed in (("a", rows(1, 2)), ("b", rows(3))):
        np.savez(tmp_path / f"{name}.npz", **feed)
    samples = Samples(INPUTS, DIMS, Feeds(str(tmp_path), INPUTS))
    assert samples.origin == "real samples"
    assert samples.at({"batch": 5})["x"][:, 0].tolist() == [1, 2, 3, 1, 2]
    assert samples.at({"batch": 2}, seed=2)["x"][:, 0].tolist() == [3, 1]


def test_real_data_is_read_at_first_use_and_no_more_than_the_largest_batch_needs(tmp_path: Path) -> None:
    feeds = Feeds(code(tmp_path, COUNTED), INPUTS)
    samples = Samples(INPUTS, DIMS, feeds)
    data = user_code.load(feeds.target)
    assert samples.origin == "real samples"
    assert data.read == 0
    assert samples.at({"batch": 8})["x"][:, 0].tolist() == [1, 1, 1, 2, 2, 2, 3, 3]
    samples.at({"batch": 4})
    assert data.read == 3


TEXT = tuple(TensorSpec.parse(t) for t in ("ids:int64[batch,sequence]", "mask:int64[batch,sequence]"))
TEXT_DIMS = DIMS | {"sequence": DimRange(min=2, opt=4, max=8)}


def text_samples(tmp_path: Path) -> Samples:
    """Two texts of three and two tokens, padded to four."""
    ids = np.array([[11, 12, 13, 0], [21, 22, 0, 0]], np.int64)
    np.savez(tmp_path / "text.npz", ids=ids, mask=np.sign(ids))
    return Samples(TEXT, TEXT_DIMS, Feeds(str(tmp_path), TEXT))


def test_samples_are_cut_and_repeated_along_every_named_dimension(tmp_path: Path) -> None:
    samples = text_samples(tmp_path)
    assert samples.at({"batch": 1, "sequence": 2})["ids"].tolist() == [[11, 12]]
    long = samples.at({"batch": 1, "sequence": 7}, seed=1)
    assert long["ids"].tolist() == [[21, 22, 0, 0, 21, 22, 0]]
    assert long["mask"].tolist() == [[1, 1, 0, 0, 1, 1, 0]]


def test_a_mask_made_of_real_samples_has_no_empty_row(tmp_path: Path) -> None:
    """Random masks have some, and a mean over no token proves nothing."""
    samples = text_samples(tmp_path)
    for sizes in corners(TEXT_DIMS):
        for seed in (0, 1):
            feed = samples.at(sizes, seed)
            assert check_feed(feed, TEXT, TEXT_DIMS) == sizes
            assert feed["mask"].any(axis=1).all()
            assert all(array.flags.c_contiguous and array.flags.owndata for array in feed.values())


def test_samples_of_a_dimension_that_comes_twice_are_cut_in_both(tmp_path: Path) -> None:
    inputs = (TensorSpec.parse("x:float32[nodes,nodes]"),)
    np.savez(tmp_path / "x.npz", x=np.arange(9, dtype=np.float32).reshape(3, 3))
    samples = Samples(inputs, {"nodes": DimRange(min=1, opt=2, max=4)}, Feeds(str(tmp_path), inputs))
    assert samples.at({"nodes": 2})["x"].tolist() == [[0, 1], [3, 4]]


def test_a_feed_shares_no_memory_with_the_samples(tmp_path: Path) -> None:
    inputs = (TensorSpec.parse("x:float32[3]"),)
    np.savez(tmp_path / "x.npz", x=np.ones(3, np.float32))
    samples = Samples(inputs, {}, Feeds(str(tmp_path), inputs))
    samples.at({})["x"][:] = 7
    assert samples.at({})["x"].tolist() == [1, 1, 1]


def test_samples_without_real_data_say_so() -> None:
    samples = Samples(INPUTS, DIMS, None)
    assert samples.origin == "seeded random"
    np.testing.assert_array_equal(samples.at({"batch": 3})["x"], random_feed(INPUTS, {"batch": 3})["x"])


def test_a_random_mask_keeps_a_first_part_and_never_nothing() -> None:
    spec = TensorSpec.parse("attention_mask:int64[batch,sequence]")
    mask = random_feed([spec], {"batch": 200, "sequence": 7})["attention_mask"]
    assert set(mask.sum(axis=1)) == set(range(1, 8))
    assert (np.diff(mask, axis=1) <= 0).all()
    assert mask.dtype == np.int64


def test_what_only_bears_the_name_of_a_feed_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 2), np.float32))
    assert len(list(Feeds(str(tmp_path), INPUTS))) == 1
    os.mkfifo(tmp_path / "b.npz")
    for target in (tmp_path, tmp_path / "b.npz"):
        assert data_fault(str(target)) == (
            f"{tmp_path}/b.npz: is a FIFO, a socket or a device; expected a .npz file. Move it out of the folder."
        )
        for read in (list, Feeds.sha256):
            with within(), pytest.raises(FeedError, match=r"b\.npz: is a FIFO"):
                read(Feeds(str(target), INPUTS))
