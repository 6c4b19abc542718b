"""A small CNN for scikit-learn's handwritten digits (UCI, 8x8 grey pixels), trained here in a few seconds."""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 0
EPOCHS = 12
TRAINING_BATCH = 64
CALIBRATION_SAMPLES = 512
BATCH = 64  # the largest that the recipe declares


class DigitsCnn(nn.Module):
    """Three convolutions and a linear layer; 160 thousand weights."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(128 * 2 * 2, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, 10) of images (batch, 1, 8, 8) with pixels from 0 to 1."""
        return self.classifier(self.features(image).flatten(1))


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the images (n, 1, 8, 8) for training and for the test, then their labels in the same order."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return tuple(train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=SEED))


@functools.cache
def build() -> nn.Module:
    """Train the model; the same weights each time on one machine."""
    train, _, labels, _ = digits()
    images, targets = torch.from_numpy(train), torch.from_numpy(labels)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with several threads, the order of sums changes from run to run
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(SEED)
            model = DigitsCnn()
            optimizer = torch.optim.Adam(model.parameters())
            steps = math.ceil(len(images) / TRAINING_BATCH)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs=EPOCHS, steps_per_epoch=steps)
            for _ in range(EPOCHS):
                for rows in torch.randperm(len(images)).split(TRAINING_BATCH):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(images[rows]), targets[rows]).backward()
                    optimizer.step()
                    schedule.step()
    finally:
        torch.set_num_threads(threads)
    return model.eval()


def calibration() -> list[dict[str, np.ndarray]]:
    """Return training images, in feeds of 64."""
    train = digits()[0][:CALIBRATION_SAMPLES]
    return [{"image": train[start : start + BATCH]} for start in range(0, len(train), BATCH)]


def evaluate(predict: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> float:
    """Return the accuracy on the test images, none of which was seen in training or calibration."""
    _, test, _, labels = digits()
    feeds = [{"image": test[start : start + BATCH]} for start in range(0, len(test), BATCH)]
    logits = np.concatenate([predict(feed)["logits"] for feed in feeds])
    return float((logits.argmax(axis=1) == labels).mean())
