"""Where a module can come from besides a factory: TorchScript, ExportedProgram, a Hugging Face folder."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from optkit.errors import ArtifactError, ModelError
from optkit.pytorch.origins import open_origin
from optkit.pytorch.source import load_module, make_source
from optkit.runners import open_runner
from optkit.stages import ExportOnnx, ExportProgram, ExportTorchScript
from tests.support import zoo

SPECS = zoo.specs("input:float32[batch,4]")


def linear_answers(source) -> None:
    """Check that a source made from a file gives the zoo's closed form."""
    sample = zoo.SAMPLES["linear"]
    feed = sample.feed({"batch": 3})
    with open_runner(source) as runner:
        assert np.allclose(runner.infer(feed)["output"], sample.expected(feed)["output"], atol=1e-5)


def test_a_torchscript_file_starts_a_chain(make, tmp_path: Path) -> None:
    file = make("linear", ExportTorchScript()).path
    source = make_source(str(file), tmp_path, SPECS, zoo.BATCH)
    linear_answers(source)
    exported = ExportOnnx(exporter="torchscript", opset=17).run(source, tmp_path / "onnx")
    linear_answers(exported.model_copy(update={"dims": zoo.BATCH}))


def test_an_exported_program_starts_a_chain_and_brings_its_inputs(make, tmp_path: Path) -> None:
    file = make("linear", ExportProgram()).path
    source = make_source(str(file), tmp_path)
    assert [str(spec) for spec in source.inputs] == ["input:float32[batch,4]"]
    assert source.dims["batch"].max == 64
    assert "inputs:\n  input: float32[batch, 4]\ndims:\n  batch: {min: 1, opt: 8, max: 64}" in source.notes[0]
    linear_answers(source)
    linear_answers(ExportOnnx(exporter="dynamo").run(source, tmp_path / "onnx"))


def test_a_state_dict_is_no_torchscript_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(
        ModelError, match=r"weights\.pt: is not a TorchScript file .* name the code that builds the model"
    ):
        make_source(str(path), tmp_path, SPECS, zoo.BATCH)


def test_garbage_is_no_exported_program(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"not a program")
    with pytest.raises(ModelError, match=r"model\.pt2: is not an ExportedProgram"):
        make_source(str(path), tmp_path, SPECS, zoo.BATCH)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.pt: no such file or folder; expected file\.py:function"):
        make_source(str(tmp_path / "none.pt"), tmp_path, SPECS, zoo.BATCH)


def test_a_model_file_takes_no_arguments(make, tmp_path: Path) -> None:
    file = make("linear", ExportTorchScript()).path
    with pytest.raises(ModelError, match=r"takes no arguments \(width given\)"):
        make_source(str(file), tmp_path, SPECS, zoo.BATCH, args={"width": 3})


def test_a_changed_model_file_is_noticed(make, tmp_path: Path) -> None:
    copy = tmp_path / "model.pt"
    copy.write_bytes(make("linear", ExportTorchScript()).path.read_bytes())
    source = make_source(str(copy), tmp_path / "source", SPECS, zoo.BATCH)
    copy.write_bytes(make("identity", ExportTorchScript()).path.read_bytes())
    with pytest.raises(ModelError, match="its code or weights have changed"):
        load_module(source)


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=re.escape("is a directory without config.json; expected file.py:function")):
        open_origin(str(tmp_path))


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50, num_labels=3
    )
    torch.manual_seed(0)
    folder = tmp_path / "bert"
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


TEXT = zoo.specs("input_ids:int64[batch,sequence]", "attention_mask:int64[batch,sequence]")
TEXT_DIMS = zoo.BATCH | {"sequence": zoo.DimRange(min=4, opt=8, max=16)}


def test_a_hugging_face_folder_starts_a_chain(bert: Path, tmp_path: Path) -> None:
    source = make_source(str(bert), tmp_path / "source", TEXT, TEXT_DIMS)
    assert [str(spec) for spec in source.outputs] == ["logits:float32[batch,3]"]
    assert type(load_module(source)).__name__ == "BertForSequenceClassification"


def test_another_class_may_be_asked_for(bert: Path, tmp_path: Path) -> None:
    source = make_source(str(bert), tmp_path / "source", TEXT, TEXT_DIMS, args={"auto_class": "AutoModel"})
    assert [spec.name for spec in source.outputs] == ["last_hidden_state", "pooler_output"]


def test_a_hugging_face_folder_without_weights_is_refused(bert: Path, tmp_path: Path) -> None:
    (bert / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"bert: transformers cannot load it \(.*OSError"):
        make_source(str(bert), tmp_path / "source", TEXT, TEXT_DIMS)


def test_an_unknown_architecture_is_refused(bert: Path, tmp_path: Path) -> None:
    config = json.loads((bert / "config.json").read_text()) | {"architectures": ["NoSuchModel"]}
    (bert / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"transformers cannot load it \(.*NoSuchModel"):
        make_source(str(bert), tmp_path / "source", TEXT, TEXT_DIMS)


def test_an_onnx_file_is_no_module(onnx_copy: Path, tmp_path: Path) -> None:
    with pytest.raises((ModelError, ArtifactError), match="expected"):
        make_source(str(onnx_copy), tmp_path, SPECS, zoo.BATCH)
