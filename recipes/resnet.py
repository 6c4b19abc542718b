"""ResNet-18 with ten named classes, trained here in half a minute on scikit-learn's handwritten digits (UCI).

The architecture and the parameter names are those of torchvision, and nothing is downloaded. The 8x8 digits are scaled up to 64x64, and
the grey value is used for all three channels: a real network with a real accuracy, on an easy task.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 0
SIZE = 64  # pixels of a side; a twelfth of the work of 224
EPOCHS = 2
TRAINING_BATCH = 64
CALIBRATION_SAMPLES = 256
BATCH = 16  # the largest that the recipe declares


class Block(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.downsample = nn.Sequential()  # empty if the shape does not change
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, after, height / stride, width / stride)."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.downsample(x))


class ResNet18(nn.Module):
    """He et al. 2015, https://arxiv.org/abs/1512.03385, table 1; 11 million weights."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, classes) of images (batch, 3, height, width) with pixels from 0 to 1."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the images (n, 3, 64, 64) for training and for the test, then their labels in the same order."""
    pixels, labels = load_digits(return_X_y=True)
    small = torch.from_numpy((pixels / 16).astype(np.float32)).reshape(-1, 1, 8, 8)
    large = nn.functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear").repeat(1, 3, 1, 1)
    return tuple(train_test_split(large.numpy(), labels, test_size=0.25, stratify=labels, random_state=SEED))


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
            model = ResNet18(classes=10)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 0.3  # with so few steps, the usual 0.1 would keep too much of the initial value
            optimizer = torch.optim.Adam(model.parameters())
            steps = math.ceil(len(images) / TRAINING_BATCH)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, epochs=EPOCHS, steps_per_epoch=steps)
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
    """Return training images, in feeds of 16."""
    train = digits()[0][:CALIBRATION_SAMPLES]
    return [{"image": train[start : start + BATCH]} for start in range(0, len(train), BATCH)]


def evaluate(predict: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> float:
    """Return the accuracy on the test images, none of which was seen in training or calibration."""
    _, test, _, labels = digits()
    feeds = [{"image": test[start : start + BATCH]} for start in range(0, len(test), BATCH)]
    logits = np.concatenate([predict(feed)["logits"] for feed in feeds])
    return float((logits.argmax(axis=1) == labels).mean())
