"""A tabular classifier of 4 features and 2 classes: the shape of a churn model, with public data.

No library contains public churn data, so the data is scikit-learn's breast cancer set (UCI, Wisconsin), reduced to four of its
features. Only the shape is that of churn data.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 0
STEPS = 300
FEATURES = ["mean radius", "mean texture", "mean smoothness", "mean concavity"]
BATCH = 64  # rows in one feed


class Classifier(nn.Module):
    """Linear, ReLU, linear, softmax. The input is raw features; the model standardises them."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.layers = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (batch, 2) of the classes for features (batch, 4)."""
        return torch.softmax(self.layers((input - self.mean) / self.std), dim=1)


@functools.cache
def table() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the features (n, 4) for training and for the test, then their labels in the same order."""
    data = load_breast_cancer()
    columns = [list(data.feature_names).index(name) for name in FEATURES]
    rows = data.data[:, columns].astype(np.float32)
    return tuple(train_test_split(rows, data.target, test_size=0.25, stratify=data.target, random_state=SEED))


@functools.cache
def build() -> nn.Module:
    """Train the model; the same weights each time on one machine."""
    train, _, labels, _ = table()
    rows, targets = torch.from_numpy(train), torch.from_numpy(labels)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with several threads, the order of sums changes from run to run
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(SEED)
            model = Classifier(rows.mean(dim=0), rows.std(dim=0))
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
            for _ in range(STEPS):
                optimizer.zero_grad()
                nn.functional.nll_loss(model(rows).log(), targets).backward()
                optimizer.step()
    finally:
        torch.set_num_threads(threads)
    return model.eval()


def calibration() -> list[dict[str, np.ndarray]]:
    """Return the training rows, in feeds of 64."""
    train = table()[0]
    return [{"input": train[start : start + BATCH]} for start in range(0, len(train), BATCH)]


def evaluate(predict: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> float:
    """Return the accuracy on the test rows, none of which was seen in training or calibration."""
    _, test, _, labels = table()
    feeds = [{"input": test[start : start + BATCH]} for start in range(0, len(test), BATCH)]
    probabilities = np.concatenate([predict(feed)["output"] for feed in feeds])
    return float((probabilities.argmax(axis=1) == labels).mean())
