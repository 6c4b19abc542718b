"""The models of the GPU benchmark, in plain PyTorch with seeded random weights: for speed and parity, not for accuracy."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Model:
    """A model, its input names, and inputs for a batch."""

    build: Callable[[], nn.Module]
    names: tuple[str, ...]
    inputs: Callable[[int], tuple[Tensor, ...]]  # on the CPU


class Digits(nn.Sequential):
    """The network of recipes/digits.py: images (batch, 1, 8, 8) to logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(1), nn.Linear(128 * 2 * 2, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip


class Bottleneck(nn.Module):
    """Three convolutions around a shortcut (He et al. 2015), the stride in the middle one."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        same = stride == 1 and channels == out
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 4 * width, height / stride, width / stride)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50: images (batch, 3, 224, 224) to logits (batch, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 64
        for number, (width, depth) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
            for i in range(depth):
                blocks.append(Bottleneck(channels, width, 2 if i == 0 and number else 1))
                channels = 4 * width
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


class Layer(nn.Module):
    """A transformer layer with the norm behind, as BERT has it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return (batch, sequence, width); `bias` (batch, 1, 1, sequence) is added to the scores."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5 + bias
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        x = self.first(x + self.out(mixed))
        return self.second(x + self.narrow(nn.functional.gelu(self.wide(x))))


class MiniLm(nn.Module):
    """The shape of all-MiniLM-L6: ids and mask (batch, sequence) to embeddings (batch, 384)."""

    def __init__(self, vocabulary: int = 30522, width: int = 384, layers: int = 6, heads: int = 12) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(512, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean over the tokens that the mask keeps."""
        mask = attention_mask.to(self.norm.weight.dtype)
        x = self.norm(self.words(input_ids) + self.places.weight[: input_ids.shape[1]])
        bias = (1 - mask)[:, None, None, :] * -1e4  # within FP16
        for layer in self.layers:
            x = layer(x, bias)
        return (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def _seeded(cls: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return cls().eval()

    return build


def _images(*shape: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: (torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1)),)


def _tokens(batch: int, length: int = 128) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 30000, (batch, length), generator=generator)
    mask = (torch.arange(length) < torch.randint(length // 2, length + 1, (batch, 1), generator=generator)).long()
    return ids, mask


MODELS = {
    "digits": Model(_seeded(Digits), ("image",), _images(1, 8, 8)),
    "resnet50": Model(_seeded(ResNet50), ("image",), _images(3, 224, 224)),
    "minilm": Model(_seeded(MiniLm), ("input_ids", "attention_mask"), _tokens),
}
