"""The lab's plain training script, as the lab teaches it: the baseline of the speed figures.

The network applies ReLU before pooling. Images pass one by one through PIL transforms in two loader workers. The loop
computes in float32 in torch's default memory layout, and evaluates on the test images after each epoch.

    python -m benchmarks.lab [--until 0.99] [--epochs 20] [--seed 0]
"""

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from mnist_lightning.data.mnist import fetch, registry

Batches = Iterable[tuple[Tensor, Tensor]]


class SimpleCNN(nn.Module):
    """The lab's network, with its order of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.relu = nn.ReLU()
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1 = nn.Linear(64 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 10) for images (B, 1, 28, 28)."""
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.dropout1(x).view(-1, 64 * 7 * 7)
        logits: Tensor = self.fc2(self.dropout2(self.relu(self.fc1(x))))
        return logits


class Lab:
    """The lab's loaders, network and optimizer."""

    def __init__(self, data_dir: str, seed: int = 0) -> None:
        fetch.fetch(registry.MNIST, Path(data_dir))
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
        train, test = (datasets.MNIST(data_dir, train=is_train, transform=transform) for is_train in (True, False))
        torch.manual_seed(seed)
        self.train_loader = DataLoader(train, batch_size=64, shuffle=True, num_workers=2)
        self.test_loader = DataLoader(test, batch_size=64, shuffle=False, num_workers=2)
        self.network = SimpleCNN()
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.001)

    def train(self, batches: Batches) -> tuple[float, float]:
        """Train on some batches; return the mean loss and the accuracy."""
        self.network.train()
        loss_sum, correct, total, count = 0.0, 0, 0, 0
        for images, labels in batches:
            self.optimizer.zero_grad()
            logits = self.network(images)
            loss = self.loss(logits, labels)
            loss.backward()
            self.optimizer.step()
            loss_sum += loss.item()
            correct += int((logits.argmax(dim=1) == labels).sum().item())
            total, count = total + len(labels), count + 1
        return loss_sum / count, correct / total

    def test(self) -> float:
        """Return the accuracy on the test images."""
        self.network.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in self.test_loader:
                correct += int((self.network(images).argmax(dim=1) == labels).sum().item())
        return correct / 10_000


def main() -> None:
    """Train until the test accuracy reaches a goal, and print it after each epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--until", type=float, default=1.0, help="test accuracy to stop at, in [0, 1]")
    parser.add_argument("--epochs", type=int, default=20, help="maximum number of epochs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lab = Lab(options.data_dir, options.seed)
    for epoch in range(1, options.epochs + 1):
        start = time.perf_counter()
        loss, accuracy = lab.train(lab.train_loader)
        tested = lab.test()
        print(f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.4f}, test {tested:.4f}, "
              f"{time.perf_counter() - start:.1f} s", flush=True)  # fmt: skip
        if tested >= options.until:
            return


if __name__ == "__main__":
    main()
