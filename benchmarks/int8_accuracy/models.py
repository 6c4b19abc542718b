"""The models that are not in a recipe: factories without training, and the training that writes their weights to a file.

`crowded` is the harder task: scikit-learn's digits (UCI) at a random position in a larger picture, dimmed, with pieces of other digits and
noise around them, classified by depthwise-separable convolutions (Howard et al. 2017, https://arxiv.org/abs/1704.04861). These have few
weights per channel and often lose accuracy in INT8.
"""

import functools
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from torch import nn

CANVAS = 20
RECIPES = Path(__file__).absolute().parents[2] / "recipes"
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _separable(before: int, after: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, before, 3, stride, padding=1, groups=before, bias=False), nn.BatchNorm2d(before), nn.ReLU6(),
        nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU6(),
    ]  # fmt: skip


def crowded() -> nn.Module:
    """Return the network for crowded digits: (batch, 1, 20, 20) -> logits (batch, 10)."""
    stem = [nn.Conv2d(1, 24, 3, 2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU6()]
    blocks = [*_separable(24, 48, 1), *_separable(48, 96, 2), *_separable(96, 160, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(160, 10)).eval()


def diabetes() -> nn.Module:
    """Return the network for the progression of diabetes: (batch, 10) -> (batch, 1)."""
    return nn.Sequential(nn.Linear(10, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)).eval()


def resnet18() -> nn.Module:
    """Return ResNet-18 for 224x224 with seeded random weights: for speed and the size of the error alone."""
    sys.path.append(str(RECIPES))
    from resnet import ResNet18

    torch.manual_seed(0)
    return ResNet18(1000).eval()


@functools.cache
def crowded_data() -> Arrays:
    """Return pictures (n, 1, 20, 20) for training and for the test, then their labels; no digit is in both."""
    pixels, labels = load_digits(return_X_y=True)
    digits = (pixels / 16).astype(np.float32).reshape(-1, 8, 8)
    train, test, train_labels, test_labels = train_test_split(
        digits, labels, test_size=0.4, stratify=labels, random_state=0
    )
    seen = [_crowd(train, seed) for seed in range(4)]
    return np.concatenate(seen), _crowd(test, 100), np.tile(train_labels, 4), test_labels


def _crowd(digits: np.ndarray, seed: int) -> np.ndarray:
    """Put each digit somewhere on a canvas, with quarters of others behind it, and noise."""
    rng = np.random.default_rng(seed)
    canvas = rng.normal(0, 0.15, (len(digits), 1, CANVAS, CANVAS)).astype(np.float32)
    for i, digit in enumerate(digits):
        for _ in range(5):
            y, x = rng.integers(0, CANVAS - 4, 2)
            top, left = 4 * rng.integers(0, 2, 2)
            canvas[i, 0, y : y + 4, x : x + 4] += (
                0.7 * digits[rng.integers(len(digits)), top : top + 4, left : left + 4]
            )
        y, x = rng.integers(0, CANVAS - 8, 2)
        canvas[i, 0, y : y + 8, x : x + 8] = rng.uniform(0.5, 1) * digit + rng.normal(0, 0.15, (8, 8))
    return canvas


@functools.cache
def diabetes_data() -> Arrays:
    """Return standardised features (n, 10) for training and for the test, then the targets in standard deviations."""
    rows, targets = load_diabetes(return_X_y=True, scaled=False)
    train, test, train_targets, test_targets = train_test_split(rows, targets, test_size=0.3, random_state=0)
    mean, std, centre, spread = train.mean(0), train.std(0), train_targets.mean(), train_targets.std()
    features = [((x - mean) / std).astype(np.float32) for x in (train, test)]
    return *features, *(((y - centre) / spread).astype(np.float32)[:, None] for y in (train_targets, test_targets))


def train_crowded(path: Path) -> None:
    """Train on crowded digits and save the weights; half a minute on one core."""
    images, _, labels, _ = crowded_data()
    _train(crowded(), images, labels, nn.functional.cross_entropy, path, epochs=10, rate=1e-2, decay=0)


def train_diabetes(path: Path) -> None:
    """Train on diabetes and save the weights."""
    rows, _, targets, _ = diabetes_data()
    _train(diabetes(), rows, targets, nn.functional.mse_loss, path, epochs=12, rate=5e-3, decay=0.5)


def _train(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, loss, path: Path, *, epochs, rate, decay) -> None:
    torch.set_num_threads(1)  # with several threads, the order of sums changes from run to run
    torch.manual_seed(0)
    model.train()
    x, y = torch.from_numpy(inputs), torch.from_numpy(targets)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=decay)
    steps = -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs=epochs, steps_per_epoch=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    torch.save(model.eval().state_dict(), path)
