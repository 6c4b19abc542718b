"""Models that refuse the usual random values: others of the kind are tried, and real samples are used wherever there are some."""

from pathlib import Path

import numpy as np
import pytest

from optkit.artifact import Artifact, RandomValues
from optkit.artifact.tensors import DimRange
from optkit.checks import Prover, Requirements
from optkit.choose.stage import run_stage
from optkit.data import Samples, random_feed
from optkit.data.random_values import is_lengths
from optkit.errors import ModelError
from optkit.pytorch.source import make_source
from optkit.stages import ExportOnnx, ExportProgram, ExportTorchScript, Stage
from tests.support.zoo import specs

DIMS = {"batch": DimRange(min=1, opt=2, max=4), "time": DimRange(min=2, opt=5, max=9)}
MODELS = """
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
    def forward(self, x, src_key_padding_mask):
        return self.encoder(x, src_key_padding_mask=src_key_padding_mask)

class Cross(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
    def forward(self, x, memory_key_padding_mask):
        return self.attention(x, x, x, key_padding_mask=memory_key_padding_mask)[0]

class Divide(nn.Module):
    def forward(self, x, n):
        return x // n

class Modulo(nn.Module):
    def forward(self, x, n):
        return (x % n) + (x // n.clamp(max=7))

class Mean(nn.Module):
    def forward(self, x, lengths):
        if not torch.jit.is_tracing() and not torch.compiler.is_compiling():
            if lengths.min() <= 0:
                raise ValueError("length of all samples has to be greater than 0")
            if lengths.max() > x.shape[1]:
                raise ValueError("longer than the time")
        keep = torch.arange(x.shape[1])[None] < lengths[:, None]
        return (x * keep[..., None]).sum(1) / lengths[:, None]

class From1(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)
    def forward(self, ids):
        if not torch.jit.is_tracing() and not torch.compiler.is_compiling() and (ids < 1).any():
            raise IndexError("ids begin at 1")
        return self.table(ids - 1)

class Whole(nn.Module):
    def forward(self, x, mask):
        if not torch.jit.is_tracing() and not torch.compiler.is_compiling() and not mask.all():
            raise ValueError("every token must be kept")
        return x * mask[..., None]

class Logarithm(nn.Module):
    def forward(self, x):
        return torch.log(x)

class Root(nn.Module):
    def forward(self, x):
        return torch.sqrt(x) + torch.atanh(x / 4)

class Exact(nn.Module):
    def forward(self, ids):
        if not torch.jit.is_tracing() and not torch.compiler.is_compiling() and (ids != 41).any():
            raise ValueError("only 41 is known")
        return ids.float() / 2
"""
CASES = {
    "Encoder": ("x:float32[batch,time,16]", "src_key_padding_mask:bool[batch,time]"),
    "Cross": ("x:float32[batch,time,16]", "memory_key_padding_mask:bool[batch,time]"),
    "Divide": ("x:int64[batch,8]", "n:int64[batch,1]"),
    "Modulo": ("x:int64[batch,8]", "n:int64[batch,1]"),
    "Mean": ("x:float32[batch,time,4]", "lengths:int64[batch]"),
    "From1": ("ids:int64[batch,time]",),
    "Whole": ("x:float32[batch,time,4]", "mask:bool[batch,time]"),
    "Logarithm": ("x:float32[batch,6]",),
    "Root": ("x:float32[batch,6]",),
}


def source_of(name: str, tmp_path: Path, inputs: tuple[str, ...], data: str | None = None) -> Artifact:
    (tmp_path / "model.py").write_text(MODELS)
    used = {dim: r for dim, r in DIMS.items() if any(dim in text for text in inputs)}
    return make_source(f"{tmp_path / 'model.py'}:{name}", tmp_path / "source", specs(*inputs), used, data=data)


@pytest.mark.parametrize("name", CASES)
def test_values_that_the_model_takes_are_found_and_used_at_every_step(name: str, tmp_path: Path) -> None:
    source = source_of(name, tmp_path, CASES[name])
    prover = Prover(source, Samples(source.inputs, source.dims, random=source.random), Requirements())
    artifact = run_stage(ExportOnnx(), source, tmp_path / "out", prover)
    parity = prover.parity(artifact)
    assert parity.passed, parity.failure
    assert artifact.random == source.random
    said = [note for note in source.notes if "does not accept the usual random values" in note]
    assert bool(said) is (source.random is not None)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Divide", RandomValues(integers="from 1")),
        ("From1", RandomValues(integers="from 1")),
        ("Whole", RandomValues(masks="true")),
        ("Logarithm", RandomValues(floats="positive")),
        ("Encoder", None),  # by its name the mask ignores where it is True
        ("Mean", None),  # by their name they are lengths
    ],
)
def test_the_kind_of_values_is_that_which_the_model_takes(
    name: str, values: RandomValues | None, tmp_path: Path
) -> None:
    assert source_of(name, tmp_path, CASES[name]).random == values


STAGES: list[Stage] = [
    ExportOnnx(exporter="dynamo"),
    ExportOnnx(exporter="torchscript"),
    ExportProgram(),
    ExportTorchScript(method="trace"),
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.stage)
def test_real_samples_are_run_at_every_step(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i in range(4):
        np.savez(tmp_path / "data" / f"{i}.npz", ids=np.full((1, 3), 41))
    data, inputs = str(tmp_path / "data"), ("ids:int64[batch,3]",)
    with pytest.raises(
        ModelError, match=r"only 41 is known .*Other random values failed too; give real samples with --data"
    ):
        source_of("Exact", tmp_path, inputs)
    source = source_of("Exact", tmp_path, inputs, data)
    prover = Prover(source, Samples.of(data, source.inputs, source.dims), Requirements())
    artifact = run_stage(stage.with_feeds(prover.samples.real), source, tmp_path / "out", prover)
    assert prover.parity(artifact).passed


def test_lengths_of_real_samples_that_are_cut_fit_their_dimension(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=np.ones((4, 9, 4), np.float32), lengths=np.array([9, 5, 9, 1]))
    inputs = specs(*CASES["Mean"])
    found = Samples.of(str(tmp_path / "0.npz"), inputs, DIMS).at({"batch": 4, "time": 3})
    assert found["lengths"].tolist() == [3, 3, 3, 1]
    assert found["lengths"].dtype == np.int64


@pytest.mark.parametrize(
    ("name", "ignores"),
    [("attention_mask", False), ("mask", False), ("src_key_padding_mask", True), ("key_padding_mask", True), ("attn_mask", True), ("tgt_mask", True)],
)  # fmt: skip
def test_masks_keep_the_first_part_of_a_row_whatever_true_means(name: str, ignores: bool) -> None:
    mask = random_feed(specs(f"{name}:bool[8,6]"), {})[name]
    kept = ~mask if ignores else mask
    assert kept[:, 0].all()
    assert (np.sort(kept)[:, ::-1] == kept).all()
    assert not kept.all()


@pytest.mark.parametrize(
    ("name", "lengths"),
    [("lengths", True), ("x_len", True), ("input_lengths", True), ("lens", True), ("lenses", False), ("length_of_tail_x", True), ("silent", False)],
)  # fmt: skip
def test_lengths_are_known_by_their_names(name: str, lengths: bool) -> None:
    assert is_lengths(specs(f"{name}:int64[batch]")[0]) is lengths
