import re
from pathlib import Path

import pytest

from optkit.errors import RecipeError
from optkit.recipe import Recipe, load_recipe

GOOD = """\
name: tiny
model:
  source: model.py:build
inputs:
  x: float32[batch, 4]
dims:
  batch: {min: 1, opt: 4, max: 8}
data:
  calibration: data.py:feeds
steps:
  - stage: export-onnx
    opset: 17
  - stage: quantize-static
    after: export-onnx
gates:
  max_accuracy_drop: 0.01
bench:
  batches: [1, 8]
serve:
  - target: triton
    artifact: fastest
  - target: torchserve
    handler: handler.py
"""


def read(folder: Path, text: str, **overrides: str) -> Recipe:
    (folder / "recipe.yaml").write_text(text)
    return load_recipe(folder / "recipe.yaml", {key.replace("__", "."): value for key, value in overrides.items()})


def test_a_recipe_is_read_and_its_paths_are_absolute(tmp_path: Path) -> None:
    recipe = read(tmp_path, GOOD)
    assert recipe.model.source == f"{tmp_path}/model.py:build"
    assert recipe.data.calibration == f"{tmp_path}/data.py:feeds"
    assert recipe.steps[1].data == recipe.data.calibration
    assert [str(spec) for spec in recipe.inputs] == ["x:float32[batch,4]"]
    assert recipe.dims["batch"].max == 8
    assert recipe.serve[1].model_dump()["handler"] == f"{tmp_path}/handler.py"


def test_a_range_may_be_written_as_on_the_command_line(tmp_path: Path) -> None:
    text = GOOD.replace("{min: 1, opt: 4, max: 8}", '"1:4:8"')
    assert read(tmp_path, text) == read(tmp_path, GOOD)
    assert read(tmp_path, GOOD.replace("{min: 1, opt: 4, max: 8}", "2:4:8")).dims["batch"].min == 2


def line_of(text: str, part: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("gates:", "gate:", "gate: unknown key. Did you mean 'gates'?"),
        ("gates:", "zebra:", r"zebra: unknown key; expected one of bench, choose, data, dims, ensembles, gates, inputs, model, name, outputs, serve, steps, tensorrt, tolerances"),
        ("  source: model.py:build", "  source: model.py:build\n  weight: w.pt", "model.weight: unknown key. Did you mean 'weights'?"),
        ("    opset: 17", "    ospet: 17", "steps.0.ospet: unknown key. Did you mean 'opset'?"),
        ("    opset: 17", "    opset: 17\n    qqq: 1", "steps.0.qqq: unknown key; expected one of after, dynamo_limit_s, exporter, ir_version, name, opset, optional, stage, strict"),
        ("opt: 4", "opt: 4, op: 4", "dims.batch.op: unknown key. Did you mean 'opt'?"),
        ("  batches: [1, 8]", "  batch: [1, 8]", "bench.batch: unknown key. Did you mean 'batches'?"),
        ("  max_accuracy_drop: 0.01", "  max_acuracy_drop: 0.01", "gates.max_acuracy_drop: unknown key. Did you mean 'max_accuracy_drop'?"),
        ("  calibration: data.py:feeds", "  calibrate: data.py:feeds", "data.calibrate: unknown key. Did you mean 'calibration'?"),
        ("    artifact: fastest", "    artefact: fastest", "serve.0.artefact: unknown key. Did you mean 'artifact'?"),
        ("    artifact: fastest", "    instances: {cont: 2}", "serve.0.instances.cont: unknown key. Did you mean 'count'?"),
        ("    handler: handler.py", "    handlers: handler.py", "serve.1.handlers: unknown key. Did you mean 'handler'?"),
        ("stage: quantize-static", "stage: quantise-static", "steps.1: unknown 'quantise-static'. Did you mean 'quantize-static'?"),
        ("stage: quantize-static", "stage: prune", "steps.1: unknown 'prune'; expected one of export-torchscript, "),
        ("target: torchserve", "target: torchserv", "serve.1: unknown 'torchserv'. Did you mean 'torchserve'?"),
        ("- stage: quantize-static\n    after", "- after", "steps.1: has no key 'stage'; expected one of export-torchscript, "),
        ("  source: model.py:build", "  args: {}", "model.source: is missing"),
        ("name: tiny\n", "", "name: is missing"),
        ("name: tiny", "name: my model", "name: String should match pattern '^[A-Za-z0-9][\\w.-]*$' (found 'my model')"),
        ("{min: 1, opt: 4, max: 8}", "{min: 8, opt: 4, max: 8}", "dims.batch: min 8, opt 4, max 8; expected 1 <= min <= opt <= max"),
        ("{min: 1, opt: 4, max: 8}", '"8:4:8"', "dims.batch: min 8, opt 4, max 8; expected 1 <= min <= opt <= max"),
        ("{min: 1, opt: 4, max: 8}", "1-8", "dims.batch: '1-8' is not a range; expected min:opt:max, as in 1:8:64 (found '1-8')"),
        ("{min: 1, opt: 4, max: 8}", "{min: 0, opt: 4, max: 8}", "dims.batch: min 0, opt 4, max 8; expected 1 <= min <= opt <= max"),
        ("float32[batch, 4]", "f32[batch, 4]", "inputs: 'f32[batch, 4]': unknown dtype 'f32'; expected one of float32, float16, float64, int64, int32, int16, int8, uint8, bool"),
        ("float32[batch, 4]", "float32(batch, 4)", "inputs: 'float32(batch, 4)' is not a tensor specification; expected dtype[dim,...], as in float32[batch,3,224,224]"),
        ("  x: float32[batch, 4]", "  - float32[batch, 4]", "inputs: expected name: dtype[dim,...] pairs, as in image: float32[batch,3,224,224]"),
        ("opset: 17", "opset: seventeen", "steps.0.opset: Input should be a valid integer, unable to parse string as an integer (found 'seventeen')"),
        ("after: export-onnx", "method: mean", "steps.1.method: Input should be 'minmax', 'moving-average', 'percentile', 'entropy' or 'mse' (found 'mean')"),
        ("batches: [1, 8]", "max_blocks: 0", "bench.max_blocks: Input should be greater than or equal to 1 (found 0)"),
        ("max_accuracy_drop: 0.01", "max_accuracy_drop: -1", "gates.max_accuracy_drop: Input should be greater than or equal to 0 (found -1)"),
        ("name: tiny", "name: tiny\noutputs: [a, a]", "outputs: a, a; output names must be unique"),
    ],
)  # fmt: skip
def test_a_fault_of_form_is_told_with_its_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text)
    found = re.fullmatch(rf"{re.escape(str(tmp_path))}/recipe\.yaml:(\d+): (.*)", str(caught.value))
    assert found, caught.value
    assert found[2].startswith(says) if says.endswith(", ") else found[2] == says


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("gates:", "gate:", "gate:"),
        ("    opset: 17", "    ospet: 17", "ospet"),
        ("  - stage: quantize-static", "  - stage: prune", "prune"),
        ("{min: 1, opt: 4, max: 8}", "{min: 8, opt: 4, max: 8}", "min: 8"),
        ("    handler: handler.py", "    handlers: handler.py", "handlers"),
        ("  source: model.py:build", "  args: {}", "model:"),
    ],
)
def test_the_line_is_that_of_the_fault(tmp_path: Path, old: str, new: str, where: str) -> None:
    text = GOOD.replace(old, new, 1)
    with pytest.raises(RecipeError, match=rf"recipe\.yaml:{line_of(text, where)}: "):
        read(tmp_path, text)


def test_all_faults_of_form_are_listed_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("gates:", "gate:").replace("opset: 17", "ospet: 17").replace("target: triton", "target: tritn")
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "name: again\n", r"recipe\.yaml:24: key 'name' is given twice$"),
        (GOOD.replace("opset: 17", "opset: 17\n    opset: 18"), r"recipe\.yaml:13: key 'opset' is given twice$"),
        ("name: [tiny\nmodel: 3\n", r"recipe\.yaml:\d+: cannot be read as YAML \("),
        ("name: 'tiny\n", r"recipe\.yaml:\d+: cannot be read as YAML \(found unexpected end of stream\)$"),
        ("", r"recipe\.yaml: contains no keys; expected a recipe with name, model, inputs and steps$"),
        ("# only a remark\n", r"recipe\.yaml: contains no keys; expected a recipe"),
        ("- a\n- b\n", r"recipe\.yaml: contains no keys; expected a recipe"),
        ("3\n", r"recipe\.yaml: contains no keys; expected a recipe"),
        ("a: 1\n---\nb: 2\n", r"recipe\.yaml:\d+: cannot be read as YAML \(but found another document\)$"),
        ("? [a, b]\n: 1\n", r"recipe\.yaml:1: cannot be read as YAML \(found unhashable key\)$"),
        ("<<: {a: 1}\n", r"recipe\.yaml:1: name: is missing"),
        ("1: a\n", r"recipe\.yaml:1: "),
        (GOOD.replace("inputs:\n  x: float32[batch, 4]", "inputs: {}"), r":4: inputs: is empty; omit the key to derive the inputs from example inputs"),
        (GOOD.replace("model.py:build", "model.py"), r"recipe\.yaml: .*/model\.py: no such file; expected a Python file, as in model\.py or model\.py:build"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        read(tmp_path, text)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read as YAML \(no such file\)"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match=r": cannot be read as YAML \(is a directory\)$"):
        load_recipe(tmp_path)
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(RecipeError, match=r"image\.yaml: cannot be read as YAML \(it is not UTF-8: .*\)$"):
        load_recipe(tmp_path / "image.yaml")


def test_keys_are_set_from_the_command_line(tmp_path: Path) -> None:
    recipe = read(
        tmp_path, GOOD, name="other", bench__max_blocks="50", model__args__width="2.5", gates__max_accuracy_drop="null"
    )
    assert recipe.name == "other"
    assert recipe.bench.max_blocks == 50
    assert recipe.model.args == {"width": 2.5}
    assert recipe.gates.max_accuracy_drop is None


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("bench.max_block", "5", r"bench\.max_block: unknown key\. Did you mean 'max_blocks'\?$"),
        ("bench.max_blocks", "many", r"bench\.max_blocks: Input should be a valid integer.* \(found 'many'\)$"),
        ("bench.max_blocks", "[1", r"^--set bench\.max_blocks: cannot be read as YAML \("),
        ("name.first", "x", r"^--set name\.first: 'name' is a str; expected a mapping$"),
        ("steps.0.opset", "18", r"^--set steps\.0\.opset: 'steps' is a list; expected a mapping$"),
    ],
)
def test_a_key_that_cannot_be_set_is_refused(tmp_path: Path, key: str, value: str, says: str) -> None:
    (tmp_path / "recipe.yaml").write_text(GOOD)
    with pytest.raises(RecipeError, match=says):
        load_recipe(tmp_path / "recipe.yaml", {key: value})
