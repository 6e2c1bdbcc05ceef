"""The model: a small convolutional network for images of 8 by 8 pixels and ten classes."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pytorch_hospitals.data import Images

State = dict[str, torch.Tensor]


class Network(nn.Module):
    """Two convolutions and a linear layer, 6 090 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.last = nn.Linear(32 * 2 * 2, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Score each image for each digit."""
        seen = functional.max_pool2d(functional.relu(self.first(pixels)), 2)
        seen = functional.max_pool2d(functional.relu(self.second(seen)), 2)
        return self.last(seen.flatten(1))


def be_deterministic(seed: int) -> None:
    """Let everything that follows in this process depend on the seed alone, on any number of cores."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)


def initial(seed: int) -> State:
    """The model before training."""
    be_deterministic(seed)
    return Network().state_dict()


def with_state(state: State) -> Network:
    """A network with these parameters."""
    network = Network()
    network.load_state_dict(state)
    return network


def train(
    state: State, images: Images, *, epochs: int, batch_size: int, learning_rate: float, augment: bool
) -> tuple[State, float]:
    """Go on from `state` for some passes over the images; give the new state and the last pass's mean loss.

    With `augment` each image is moved by up to one pixel, anew in each pass.
    """
    network = with_state(state).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=0.9)
    mean = 0.0
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(images)).split(batch_size):
            pixels = _moved(images.pixels[batch]) if augment else images.pixels[batch]
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(pixels), images.digits[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        mean = total / len(images)
    return network.state_dict(), mean


def evaluate(state: State, images: Images) -> tuple[float, float]:
    """Return the mean loss, and the share of images that the model sees rightly."""
    network = with_state(state).eval()
    with torch.no_grad():
        scores = network(images.pixels)
        loss = functional.cross_entropy(scores, images.digits).item()
        right = (scores.argmax(1) == images.digits).float().mean().item()
    return loss, right


def _moved(pixels: torch.Tensor) -> torch.Tensor:
    padded = functional.pad(pixels, (1, 1, 1, 1))
    down, right = (int(number) for number in torch.randint(0, 3, (2,)))
    return padded[:, :, down : down + 8, right : right + 8]
