import pytest
from pydantic import TypeAdapter, ValidationError

from optkit.record import faults
from optkit.serving import AnyServing, Instances, TorchServeServing, TritonServing, VersionPolicy


def refused(error: pytest.ExceptionInfo[ValidationError]) -> str:
    return "\n".join(faults(error.value))


def test_a_recipe_entry_becomes_the_settings_of_its_target():
    adapter = TypeAdapter(AnyServing)
    triton = adapter.validate_python({"target": "triton", "version": 2, "version_policy": {"latest": 2}})
    assert triton == TritonServing(version=2, version_policy=VersionPolicy(latest=2))
    assert adapter.validate_python({"target": "torchserve", "workers": 2}) == TorchServeServing(workers=2)


def test_the_defaults_serve_the_fastest_artifact_in_batches_with_its_newest_version():
    settings = TritonServing()
    assert (settings.artifact, settings.batching, settings.warmup) == ("fastest", True, True)
    assert settings.version_policy == VersionPolicy(latest=1)


@pytest.mark.parametrize("name", ["../up", ".hidden", "", "a b", "a/b", "-x"])
def test_a_name_that_is_no_folder_name_is_refused(name):
    with pytest.raises(ValidationError) as error:
        TritonServing(name=name)
    assert f"name: {name!r} cannot name a model; expected up to 200 letters" in refused(error)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gpus": (0,)}, "gpus [0]: given with kind 'cpu'; set kind: gpu"),
        ({"kind": "gpu", "gpus": (1, 1)}, "gpus [1, 1]: one is named twice"),
        ({"count": 0}, "greater than or equal to 1"),
        ({"kind": "gpu", "gpus": (-1,)}, "greater than or equal to 0"),
    ],
)
def test_instances_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValidationError) as error:
        Instances(**fields)
    assert message in refused(error)


@pytest.mark.parametrize(
    ("fields", "found"),
    [({}, "none of them"), ({"latest": 2, "all": True}, "latest and all"), ({"all": False}, "none")],
)
def test_a_version_policy_says_exactly_one_thing(fields, found):
    with pytest.raises(ValidationError) as error:
        VersionPolicy(**fields)
    assert f"got {found}" in refused(error)
    assert "expected one of latest: 1, all: true, specific: [1, 2]" in refused(error)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batching": False, "max_batch_size": 4}, "max_batch_size: given with batching: false"),
        ({"batching": False, "preferred_batch_sizes": (4,)}, "preferred_batch_sizes: given with batching: false"),
        ({"preferred_batch_sizes": (4, 9), "max_batch_size": 8}, "9 is above max_batch_size 8"),
        ({"version": 3, "version_policy": {"specific": [1, 2]}}, "specific [1, 2]: leaves out version 3"),
        ({"version": 0}, "greater than or equal to 1"),
        ({"max_queue_delay_us": -1}, "greater than or equal to 0"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_triton_settings_that_contradict_themselves_are_refused(fields, message):
    with pytest.raises(ValidationError) as error:
        TritonServing(**fields)
    assert message in refused(error)


def test_class_names_are_refused_for_a_handler_of_the_user():
    with pytest.raises(ValidationError) as error:
        TorchServeServing(handler="mine.py", class_names=("a",))
    assert "class_names: only the generated handler reads this" in refused(error)


def test_paths_of_a_recipe_start_at_its_folder(tmp_path):
    settings = TorchServeServing(handler="mine.py", extra_files=("a.txt", "/b.txt"), requirements="needs.txt")
    found = settings.with_absolute_paths(tmp_path)
    assert (found.handler, found.requirements) == (str(tmp_path / "mine.py"), str(tmp_path / "needs.txt"))
    assert found.extra_files == (str(tmp_path / "a.txt"), "/b.txt")
    assert TorchServeServing().with_absolute_paths(tmp_path) == TorchServeServing()
    assert TritonServing().with_absolute_paths(tmp_path) == TritonServing()
