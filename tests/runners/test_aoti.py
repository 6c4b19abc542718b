"""Packages of AOTInductor: the traps that their code does not guard, and what is not loaded."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import optkit
from optkit.artifact import Artifact, Passport
from optkit.artifact.tensors import corners
from optkit.errors import ArtifactError, FeedError, RunnerError
from optkit.pytorch.source import open_artifact
from optkit.runners import Device, open_runner
from optkit.stages import CompileAoti
from tests.support import zoo
from tests.support.zoo import Make

SAMPLE = zoo.COMPILED["aliased"]
OPT = {name: r.opt for name, r in SAMPLE.dims.items()}


@pytest.fixture(scope="session")
def package(make: Make) -> Artifact:
    """The package of a model whose outputs are its input, a view of it and a buffer; its two dimensions have equal ranges."""
    return make("aliased", CompileAoti())


@pytest.fixture
def copy(package: Artifact, tmp_path: Path) -> Artifact:
    """A copy of it with a passport, free to be damaged."""
    shutil.copy(package.path, tmp_path / "model.pt2")
    artifact = package.model_copy(update={"path": tmp_path / "model.pt2"})
    Passport(artifact=artifact).save()
    return artifact


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda *_, **__: pytest.fail("it was loaded"))


def test_equal_sizes_of_two_dimensions_do_not_tie_them(package: Artifact) -> None:
    with open_runner(package) as runner:
        for sizes in [
            *corners(SAMPLE.dims),
            {"rows": 2, "columns": 6},
            {"rows": 6, "columns": 2},
            {"rows": 4, "columns": 4},
        ]:
            feed = SAMPLE.feed(sizes)
            found = runner.infer(feed)
            for name, want in SAMPLE.expected(feed).items():
                np.testing.assert_array_equal(found[name], want, err_msg=f"{name} at {sizes}")


def test_outputs_that_alias_inputs_and_buffers_belong_to_the_caller(package: Artifact) -> None:
    feed = SAMPLE.feed(OPT)
    kept = feed["x"].copy()
    with open_runner(package) as runner:
        for array in runner.infer(feed).values():
            array[:] = 0
        np.testing.assert_array_equal(feed["x"], kept)
        for name, want in SAMPLE.expected(feed).items():
            np.testing.assert_array_equal(runner.infer(feed)[name], want)


def test_a_buffer_that_changes_is_noted(package: Artifact) -> None:
    assert "each call changes calls, which the loaded package keeps between calls" in package.notes


@pytest.mark.parametrize("name", SAMPLE.dims)
@pytest.mark.parametrize("end", ["min", "max"])
def test_a_size_outside_the_range_is_refused(name: str, end: str, package: Artifact) -> None:
    """The code itself has no guard: it would compute something."""
    allowed = SAMPLE.dims[name]
    size = allowed.min - 1 if end == "min" else allowed.max + 1
    feed = SAMPLE.feed(OPT | {name: size})
    message = rf"^dimension '{name}': got {size}; model\.pt2 is compiled for 2 to 6, and its code does not check sizes"
    with open_runner(package) as runner:
        for call in (runner.infer, runner.bind):
            with pytest.raises(FeedError, match=message):
                call(feed)
        runner.infer(SAMPLE.feed(OPT | {name: getattr(allowed, end)}))  # and the range itself is taken


def test_other_ranges_given_to_an_open_file_do_not_widen_what_was_compiled(copy: Artifact) -> None:
    widened = open_artifact(copy.path, {"rows": zoo.BATCH["batch"]})
    assert widened.dims["rows"].max == 16
    with open_runner(widened) as runner, pytest.raises(FeedError, match="is compiled for 2 to 6"):
        runner.infer(SAMPLE.feed(OPT | {"rows": 7}))


def test_a_size_between_the_steps_is_refused(package: Artifact) -> None:
    assert package.compiled is not None
    stepped = package.compiled.dims | {"rows": optkit.DimRange(min=2, opt=4, max=6, multiple_of=2)}
    artifact = package.model_copy(update={"compiled": package.compiled.model_copy(update={"dims": stepped})})
    with open_runner(artifact) as runner, pytest.raises(FeedError, match=r"got 3; .* for 2 to 6 in steps of 2"):
        runner.infer(SAMPLE.feed(OPT | {"rows": 3}))


def test_threads_are_given_back_and_are_not_compiled_in(package: Artifact) -> None:
    before = torch.get_num_threads()
    with open_runner(package, threads=1) as runner:
        runner.infer(SAMPLE.feed(OPT))
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with zipfile.ZipFile(package.path) as archive:
        sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".cpp")]
    assert sources
    assert not any("num_threads(" in text for text in sources)


@pytest.mark.usefixtures("never_loaded")
class TestNotLoaded:
    def test_on_another_device(self, package: Artifact) -> None:
        message = r"^device 'cuda': model\.pt2 is compiled for cpu\. Use --device cpu"
        with pytest.raises(RunnerError, match=message), open_runner(package, Device.CUDA):
            pass

    def test_without_facts_in_its_passport(self, package: Artifact) -> None:
        foreign = package.model_copy(update={"compiled": None})
        with (
            pytest.raises(RunnerError, match=r"native code, which is executed when it is loaded.*It was not loaded"),
            open_runner(foreign),
        ):
            pass

    def test_with_another_content(self, copy: Artifact) -> None:
        copy.path.write_bytes(copy.path.read_bytes() + b"x")
        with pytest.raises(ArtifactError, match="its SHA-256 differs"):
            open_artifact(copy.path)
        message = r"is not the package that its passport describes.*It was not loaded"
        with pytest.raises(RunnerError, match=message), open_runner(copy):
            pass

    def test_without_a_passport(self, copy: Artifact) -> None:
        copy.path.with_name("model.pt2.passport.json").unlink()
        for use in (optkit.inspect, lambda path: optkit.bench([path])):
            with pytest.raises(
                ArtifactError, match=r"is a package of AOTInductor without a passport.*It was not loaded"
            ):
                use(copy.path)

    def test_for_another_torch(self, package: Artifact) -> None:
        assert package.compiled is not None
        newer = package.compiled.model_copy(update={"torch": "99.1.0"})
        artifact = package.model_copy(update={"compiled": newer})
        message = (
            r"^model\.pt2: compiled by torch 99\.1\.0, this is the older torch .*: compile it there, with --device cpu$"
        )
        with pytest.raises(RunnerError, match=message), open_runner(artifact):
            pass

    def test_with_a_member_that_leads_outside(self, copy: Artifact) -> None:
        from optkit.hashing import sha256_of

        with zipfile.ZipFile(copy.path, "a") as archive:
            archive.writestr("model/data/aotinductor/model/../../../../evil.so", b"")
        trusted = copy.model_copy(update={"sha256": sha256_of(copy.path)})
        with pytest.raises(ArtifactError, match="leads out of its folder"), open_runner(trusted):
            pass


def test_what_torch_cannot_load_is_a_plain_error(copy: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("undefined symbol: aoti_torch_new\nmore")

    monkeypatch.setattr(torch._inductor, "aoti_load_package", fails)
    message = r"model\.pt2: cannot be loaded as a package of AOTInductor \(undefined symbol: aoti_torch_new\)$"
    with pytest.raises(RunnerError, match=message), open_runner(copy):
        pass
