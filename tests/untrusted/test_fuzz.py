"""Files of others, changed at random: read, or refused with an error of optkit; no fault of optkit, no waiting, nothing outside the folder.

A part of them runs always, the whole 20,000 with `--slow`. A number in a failure gives the same input again.
"""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from optkit.api.arguments import as_dims, as_inputs, pairs
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.cli.values import parse_args, parse_dims, parse_sizes, parse_yaml_options
from optkit.errors import OptkitError
from optkit.pipeline.plan import make_plan
from optkit.recipe import load_recipe
from tests.support import fuzz
from tests.support.fuzz import Target, run
from tests.support.fuzz_targets import TARGETS, recipes
from tests.support.hostile import within
from tests.support.project import RECIPE

SOON, ALL = 60, 1_450  # inputs of each target: 780, and 18,850
GRAMMAR, RECIPES = 100, 1_000  # and of each of two properties, by hypothesis: 20,850 in all
MOST_MEMORY_KIB = 2 * 2**20

names = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def small(run: Callable[[], None]) -> None:
    """Call, and compare the memory with that before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY_KIB


@names
@pytest.mark.filterwarnings("ignore")
def test_changed_files(target: Target, tmp_path: Path) -> None:
    small(lambda: run(target, tmp_path, range(SOON)))


@pytest.mark.slow
@names
@pytest.mark.filterwarnings("ignore")
def test_many_changed_files(target: Target, tmp_path: Path) -> None:
    small(lambda: run(target, tmp_path, range(SOON, SOON + ALL)))


@pytest.fixture(autouse=True)
def _home_of_hypothesis(tmp_path_factory: pytest.TempPathFactory) -> None:
    set_hypothesis_home_dir(tmp_path_factory.getbasetemp())


def examples(count: int, slow: bool) -> settings:
    return settings(
        max_examples=count if slow else count // 10, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )  # fmt: skip


TEXTS = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"[a-z:]{0,5}:?(float32|int8|bool|x)?\[[a-z0-9, \[\]]{0,12}\]?", fullmatch=True),
    st.from_regex(r"-?[0-9]{0,30}(:[0-9]{0,6}){0,4}", fullmatch=True),
    st.sampled_from(["x:float32[batch,4]", "float32[]", "1:2:3", "1:2:4:2", "a=b", "=", "a=", "9" * 5000, "a=[1", "a=&a [*a]", "a=2001-99-99", "x:float32[" + "9" * 5000 + "]"]),
)  # fmt: skip


def read_grammar(text: str) -> None:
    """Read a text in all the ways in which the command line and the library read one; each may refuse it."""
    for read in (
        lambda: as_inputs([text]), lambda: as_inputs({"x": text}), lambda: as_inputs({text: "float32[1]"}), lambda: as_dims({"batch": text}), lambda: as_dims({text: "1:2:3"}),
        lambda: parse_dims([text]), lambda: parse_sizes("--batch", text), lambda: parse_args([text, f"x={text}"]), lambda: parse_yaml_options("--image", [f"x={text}"]),
        lambda: pairs("--set", [text]),
    ):  # fmt: skip
        try:
            with within(10):
                read()
        except OptkitError as e:
            text_of_error = str(e)
            assert text_of_error


def test_the_grammar_of_options(request: pytest.FixtureRequest) -> None:
    slow = request.config.getoption("--slow")
    examples(GRAMMAR * 10, slow)(given(TEXTS)(read_grammar))()


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(["auto", "model.py:build", "export-onnx", "1:2:3"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(sorted(RECIPE)), st.text(max_size=8)), inner, max_size=4)),
    max_leaves=8,
)  # fmt: skip
KEYS = [
    "name",
    "model",
    "inputs",
    "outputs",
    "dims",
    "data",
    "steps",
    "tolerances",
    "gates",
    "tensorrt",
    "bench",
    "choose",
    "serve",
    "ensembles",
    "other",
]


@pytest.mark.filterwarnings("ignore")
def test_the_keys_of_recipes(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    recipes(tmp_path)
    path = tmp_path / "recipe.yaml"

    def read(changes: dict[str, object], override: tuple[str, str]) -> None:
        path.write_text(yaml.safe_dump(RECIPE | changes, allow_unicode=False))
        key, value = override
        try:
            with within(10):
                make_plan(load_recipe(path, {key: value} if key else {}), tmp_path / "out").to_json()
        except OptkitError:
            return

    overrides = st.tuples(
        st.one_of(
            st.just(""),
            st.sampled_from(KEYS),
            st.sampled_from(["model.weights", "bench.batches", "dims.batch", "..", "a.b.c"]),
        ),
        TEXTS,
    )
    changes = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3)
    examples(RECIPES, request.config.getoption("--slow"))(given(changes, overrides)(read))()


def test_the_watch_sees_what_is_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that writes beside its folder, starts a process, fails or waits is found."""
    import subprocess
    import time

    monkeypatch.setattr(fuzz, "LIMIT_S", 1)
    (tmp_path / "in").mkdir()
    calls: dict[str, Callable[[Path, bytes], object]] = {
        "open ": lambda folder, _: (folder.parent / "out").write_text(""),
        "subprocess.Popen": lambda *_: subprocess.run(["true"], check=True),
        "ended with ZeroDivisionError": lambda *_: 1 / 0,
        "took more than": lambda *_: time.sleep(3),
    }
    for says, call in calls.items():
        with pytest.raises(AssertionError, match=says):
            run(Target("x", lambda _: [b"x"], _after_the_first(call)), tmp_path / "in", range(1))


def _after_the_first(call: Callable[[Path, bytes], object]) -> Callable[[Path, bytes], object]:
    """Return a function that calls from its second call on: the first one gets what is valid."""
    calls = iter(range(100))
    return lambda folder, content: call(folder, content) if next(calls) else None


@pytest.mark.parametrize(
    ("text", "read"),
    [("float32[" + "9" * 5000 + "]", lambda text: TensorSpec.parse(text, "x")), ("9" * 5000 + ":1:1", DimRange.parse)],
)
def test_found_numbers_of_many_digits(text: str, read: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(text)
