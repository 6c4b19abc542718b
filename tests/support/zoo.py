"""Tiny models whose outputs are known in closed form, and broken ones; targets read `tests/support/zoo.py:<name>`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange, Feed, Sizes, TensorSpec
from optkit.data import random_feed
from optkit.pytorch.source import make_source

Make = Callable[..., Artifact]  # make(sample, *stages): the artifact at the end of that chain

HERE = Path(__file__).absolute()
BATCH = {"batch": DimRange(min=1, opt=4, max=16)}
WEIGHT = ((np.arange(12).reshape(3, 4) - 5) / 4).astype(np.float32)  # exact in FP16 too
BIAS = np.array([1, -2, 3], np.float32)
TABLE = np.arange(20, dtype=np.float32).reshape(5, 4)


@dataclass(frozen=True)
class Sample:
    """A model of the zoo: its factory, its contract, and what it must answer."""

    name: str
    inputs: tuple[TensorSpec, ...]
    dims: dict[str, DimRange]
    expected: Callable[[Feed], dict[str, np.ndarray]]

    @property
    def target(self) -> str:
        return f"{HERE}:{self.name}"

    def source(self, folder: Path) -> Artifact:
        return make_source(self.target, folder, self.inputs, self.dims)

    def feed(self, sizes: Sizes, seed: int = 0) -> dict[str, np.ndarray]:
        return random_feed(self.inputs, sizes, seed)


def specs(*texts: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec.parse(text) for text in texts)


class Identity(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class DynamicLength(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.shape[1]


class Two(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, 2 * a - b.sum(dim=1, keepdim=True)


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"double": 2 * x, "total": x.sum(dim=1)}


class Buffered(nn.Module):
    """Returns its own buffer beside the answer, which a runner must not hand out."""

    def __init__(self) -> None:
        super().__init__()
        self.table: torch.Tensor
        self.register_buffer("table", torch.from_numpy(TABLE.copy()))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 2 * x, self.table


class Aliased(nn.Module):
    """Returns its input, a view of it and a buffer, and counts its calls in another buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table: torch.Tensor
        self.calls: torch.Tensor
        self.register_buffer("table", torch.from_numpy(TABLE.copy()))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.calls += 1
        return x, x.t(), self.table, 2 * x


class Softmax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, dim=1)


class Optional(nn.Module):
    """Takes one input by keyword only, and leaves out an optional one before it."""

    def forward(self, x: torch.Tensor, shift: torch.Tensor | None = None, *, scale: torch.Tensor) -> torch.Tensor:
        return x * scale if shift is None else x * scale + shift


def identity() -> nn.Module:
    return Identity()


def optional() -> nn.Module:
    return Optional()


def linear() -> nn.Module:
    module = nn.Linear(4, 3)
    module.weight.data = torch.from_numpy(WEIGHT.copy())
    module.bias.data = torch.from_numpy(BIAS.copy())
    return module


def conv() -> nn.Module:
    module = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    module.weight.data.fill_(1 / 9)
    return module


class Sensitive(nn.Module):
    """Three ordinary convolutions, and one whose INT8 weights are useless.

    The second convolution leaves channel 0 at zero, and the third has weights of 50 for it: they change nothing in float and give all
    other weights of the layer a step that is larger than they are.
    """

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
                nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3),
            )  # fmt: skip
        self.layers[2].bias.data[0] = -1000.0
        self.layers[4].weight.data[:, 0] = 50.0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.layers(input)


def sensitive() -> nn.Module:
    return Sensitive()


class Block(nn.Module):
    """Attention and a feed-forward layer; three channels of its LayerNorms are 60 times larger than the others."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        self.before = before  # LayerNorm feeds the layer alone, and no residual
        self.norms = nn.ModuleList([nn.LayerNorm(16), nn.LayerNorm(16)])
        for norm in self.norms:
            norm.weight.data[:3] *= 60
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)
        for layer in (self.qkv, self.up):
            layer.weight.data[:, :3] /= 20

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        mixed: torch.Tensor = self.out(torch.softmax(q @ k.transpose(-1, -2) / 4, dim=-1) @ v)
        return mixed

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.down(torch.nn.functional.gelu(self.up(x)))
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.norms
        if self.before:
            x = x + self.attention(first(x))
            return x + self.feed_forward(second(x))
        x = first(x)
        x = second(x + self.attention(x))
        return x[..., 3:] + self.feed_forward(x)[..., 3:]


def block(before: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return Block(before).eval()


def block_feeds() -> list[dict[str, np.ndarray]]:
    """Feeds for `block`."""
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((8, 6, 16)).astype(np.float32)} for _ in range(4)]


def dynamic_length() -> nn.Module:
    return DynamicLength()


def two() -> nn.Module:
    return Two()


def named() -> nn.Module:
    return Named()


def buffered() -> nn.Module:
    return Buffered()


def embedding() -> nn.Module:
    module = nn.Embedding(5, 4)
    module.weight.data = torch.from_numpy(TABLE.copy())
    return module


def aliased() -> nn.Module:
    return Aliased()


def softmax() -> nn.Module:
    return Softmax()


def _average(feed: Feed) -> dict[str, np.ndarray]:
    padded = np.pad(feed["input"], ((0, 0), (0, 0), (1, 1), (1, 1)))  # (batch, 1, 8, 8)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return {"output": windows.mean(axis=(4, 5), dtype=np.float32)}


def _softmax(feed: Feed) -> dict[str, np.ndarray]:
    raised = np.exp(feed["x"])
    return {"output": raised / raised.sum(axis=1, keepdims=True)}


SAMPLES = {
    sample.name: sample
    for sample in (
        Sample("identity", specs("x:float32[batch,4]"), BATCH, lambda feed: {"output": feed["x"]}),
        Sample(
            "linear", specs("input:float32[batch,4]"), BATCH, lambda feed: {"output": feed["input"] @ WEIGHT.T + BIAS}
        ),
        Sample("conv", specs("input:float32[batch,1,6,6]"), BATCH, _average),
        Sample(
            "dynamic_length",
            specs("x:float32[batch,length,3]"),
            BATCH | {"length": DimRange(min=2, opt=5, max=12)},
            lambda feed: {"output": feed["x"] * np.float32(feed["x"].shape[1])},
        ),
        Sample(
            "two",
            specs("a:float32[batch,3]", "b:float32[batch,3]"),
            BATCH,
            lambda feed: {
                "output_0": feed["a"] + feed["b"],
                "output_1": 2 * feed["a"] - feed["b"].sum(axis=1, keepdims=True),
            },
        ),
        Sample(
            "optional",
            specs("x:float32[batch,3]", "scale:float32[batch,1]"),
            BATCH,
            lambda feed: {"output": feed["x"] * feed["scale"]},
        ),
        Sample(
            "named",
            specs("x:float32[batch,3]"),
            BATCH,
            lambda feed: {"double": 2 * feed["x"], "total": feed["x"].sum(axis=1)},
        ),
        Sample(
            "embedding",
            specs("input:int64[batch,length]"),
            BATCH | {"length": DimRange(min=1, opt=4, max=9)},
            lambda feed: {"output": TABLE[feed["input"]]},
        ),
        Sample(
            "buffered",
            specs("x:float32[batch,3]"),
            BATCH,
            lambda feed: {"output_0": 2 * feed["x"], "output_1": TABLE},
        ),
        Sample("softmax", specs("x:float32[batch,5]"), BATCH, _softmax),
    )
}


# For compilers alone: each is one compile of half a minute, and no other runtime has its traps.
COMPILED = {
    "aliased": Sample(
        "aliased",
        specs("x:float32[rows,columns]"),
        {"rows": DimRange(min=2, opt=3, max=6), "columns": DimRange(min=2, opt=3, max=6)},
        lambda feed: {"output_0": feed["x"], "output_1": feed["x"].T, "output_2": TABLE, "output_3": 2 * feed["x"]},
    )
}


def linear_feeds() -> list[dict[str, np.ndarray]]:
    """Calibration data for `linear`: small multiples of 1/4, so that every sum is exact in any order."""
    rng = np.random.default_rng(0)
    return [{"input": (rng.integers(-8, 9, (16, 4)) / 4).astype(np.float32)} for _ in range(8)]


def conv_feeds() -> list[dict[str, np.ndarray]]:
    """Calibration data for `conv`."""
    rng = np.random.default_rng(0)
    return [{"input": rng.standard_normal((4, 1, 6, 6)).astype(np.float32)} for _ in range(8)]


def other_conv_feeds() -> list[dict[str, np.ndarray]]:
    """Other calibration data for `conv`."""
    return [{name: 2 * array for name, array in feed.items()} for feed in conv_feeds()]


# Broken models: each breaks one thing that some part of optkit must notice.


class FoldsBatch(nn.Module):
    """Gives [1, 4 * batch]: it runs at any batch, and no server can cut it into answers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(1, -1)


class MixesBatch(nn.Module):
    """Has the right shape and lets the rows of a batch change each other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(dim=0, keepdim=True)


class Branches(nn.Module):
    """Goes another way for negative sums; a trace keeps one of the two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x * 2
        return x * -1


class ReturnsNan(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float("nan")


class LosesBatch(nn.Module):
    """Computes with the batch size as a Python number, which an exporter takes for a constant."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[i : i + 1] for i in range(int(x.shape[0]))])


class DropsOut(nn.Module):
    """Leaves dropout on in evaluation mode, so no two runs agree."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


def folds_batch() -> nn.Module:
    return FoldsBatch()


def mixes_batch() -> nn.Module:
    return MixesBatch()


def branches() -> nn.Module:
    return Branches()


def returns_nan() -> nn.Module:
    return ReturnsNan()


def loses_batch() -> nn.Module:
    return LosesBatch()


def drops_out() -> nn.Module:
    return DropsOut()


def unseeded() -> nn.Module:
    """Builds other weights each time, whatever torch's seed."""
    module = nn.Linear(4, 3)
    module.bias.data = torch.from_numpy(np.random.default_rng().standard_normal(3).astype(np.float32))
    return module


def raises() -> nn.Module:
    raise ValueError("no such checkpoint")


def no_module() -> int:
    return 3


def bad(name: str) -> Sample:
    """Return a broken model, which takes x:float32[batch,4] and promises nothing."""
    return Sample(name, specs("x:float32[batch,4]"), BATCH, lambda feed: {})
