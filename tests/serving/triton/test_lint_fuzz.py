"""Lint answers for any configuration: fields that are dropped, doubled or of another type make findings, never a crash."""

import random

import pytest

from optkit.serving.triton.lint import lint
from optkit.serving.triton.lint.pbtxt import Tree
from tests.support.defects import SUMS, write_script
from tests.support.repositories import Repository, onnx_sums, write_good

VALUES = (
    "0", "-1", "1", "7", "1.5", "99999999999", "-99999999999", '""', '"x"', '"a__b"', '"../up"', "true", "TYPE_FP32", "TYPE_STRING",
    "KIND_GPU", "{ }", "[ ]", "[ 0, -1 ]", '{ key: "k" value: "v" }', '"\\000"', "nan", "inf",
)  # fmt: skip
MORE = (  # fields that the good repository does not have, for the mutations to reach
    ('batch_input { kind: BATCH_ITEM_SHAPE target_name: "t" data_type: TYPE_FP32 source_input: "x" }', "total"),
    ('batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" source_input: "x" }', "total"),
    ('model_warmup { name: "w" batch_size: 1 inputs { key: "x" value: { data_type: TYPE_FP32 dims: 1 zero_data: true } } }', "total"),
    ('cc_model_filenames { key: "8.6" value: "model.onnx" }', "total"),
    ('parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value: { string_value: "no" } }', "pre"),
    ('response_cache { enable: false } model_metrics { metric_control { } }', "pre"),
    ('instance_group { kind: KIND_CPU rate_limiter { resources { name: "R" global: true count: 1 } } }', "stream"),
)  # fmt: skip


def statements(tree, value):
    for statement in value.fields or ():
        yield statement
        for inner in statement.values:
            yield from statements(tree, inner)


def changed(text: str, draw: random.Random) -> str:
    """Return a configuration in which one to three statements are dropped, doubled or given another value."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        try:
            tree = Tree(text)
        except IndexError:
            return text  # the last change broke the syntax; protobuf's parser will say so
        found = list(statements(tree, tree.root))
        if not found:
            return text
        one = draw.choice(found)
        whole = text[one.start : one.end]
        value = draw.choice(one.values) if one.values else None
        ways = {"drop": "", "double": f"{whole} {whole}", "retype": f"{one.name}: {draw.choice(VALUES)}"}
        way = draw.choice(tuple(ways))
        if way == "retype" and value is not None and value.fields is None:
            text = text[: value.start] + draw.choice(VALUES) + text[value.end :]
        else:
            text = text[: one.start] + ways[way] + text[one.end :]
    return text


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = Repository(write_good(tmp_path_factory.mktemp("fuzzed")))
    for text, model in MORE:
        repository.add(model, text)
    repository.write("sums/config.pbtxt", SUMS)
    repository.write("sums/1/model.onnx", onnx_sums())
    write_script(repository)
    return repository


def _try(repository, seeds):
    texts = {path: path.read_text() for path in sorted(repository.folder.glob("*/config.pbtxt"))}
    for seed in seeds:
        draw = random.Random(seed)
        path = draw.choice(list(texts))
        path.write_text(changed(texts[path], draw))
        tried = path.read_text()
        try:
            lint(repository.folder, gpus=draw.choice((None, 0, 2)), strict=draw.random() < 0.5)
            if seed % 4 == 0:
                lint(repository.folder, fix=True)
        except Exception as e:
            raise AssertionError(f"seed {seed}, {path.parent.name}:\n{tried}") from e
        for file, text in texts.items():
            file.write_text(text)
            file.with_name("config.pbtxt.orig").unlink(missing_ok=True)


def test_any_configuration_gets_an_answer(repository):
    _try(repository, range(60))


@pytest.mark.slow
def test_many_configurations_get_an_answer(repository):
    _try(repository, range(1_000, 3_000))
