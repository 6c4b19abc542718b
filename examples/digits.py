"""Shared by the examples in this folder: handwritten digits, a small network, and its training."""

import functools

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

INPUTS = {"image": "float32[batch,1,8,8]"}
DIMS = {"batch": (1, 8, 64)}  # min, opt and max

pixels, labels = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
targets = torch.tensor(labels)
in_test = torch.arange(len(images)) % 4 == 0
train_set = TensorDataset(images[~in_test], targets[~in_test])
test_set = TensorDataset(images[in_test], targets[in_test])


@functools.cache
def train() -> nn.Module:
    """Train a small network, in seconds."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # with more, the last bits of the weights differ from run to run
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(32 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for image, target in DataLoader(train_set, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(image), target).backward()
            optimizer.step()
    return model.eval()


def calibration():
    """Return training images as feeds: input name -> array."""
    return [{"image": image.numpy()} for image, _ in DataLoader(train_set, batch_size=64)]


def accuracy(predict) -> float:
    """Return the share of test images that `predict`, a function of a feed, classifies correctly."""
    correct = 0
    for image, target in DataLoader(test_set, batch_size=64):
        logits = predict({"image": image.numpy()})["logits"]
        correct += int((logits.argmax(axis=1) == target.numpy()).sum())
    return correct / len(test_set)
