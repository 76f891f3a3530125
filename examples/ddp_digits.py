"""
Train a small network on handwritten digits with DistributedDataParallel.

Needs torch and scikit-learn, which brings the data: 1797 images of 8 x 8 pixels. Run it with

    python examples/ddp_digits.py

Four ranks on the CPU train one model on three quarters of the images and measure its accuracy on
the rest. The exit status is 1 if that is below 95 %.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from flame.pytorch.utils.spawn import spawn

RANKS = 4
EPOCHS = 12
# Of each rank: a step of the optimiser sees RANKS times as many images.
BATCH_SIZE = 16
REQUIRED_ACCURACY = 0.95
SEED = 0


def load_data() -> tuple[TensorDataset, TensorDataset]:
    """Return images and labels for training and for the test, the same in every rank."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=SEED)
    train_images, test_images = (
        torch.tensor(part / 16, dtype=torch.float32).reshape(-1, 1, 8, 8) for part in parts[:2]
    )
    train_labels, test_labels = (torch.tensor(part, dtype=torch.int64) for part in parts[2:])
    return TensorDataset(train_images, train_labels), TensorDataset(test_images, test_labels)


def make_model() -> nn.Module:
    """Return an untrained network from an image to the scores of the ten digits."""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def measure_accuracy(model: nn.Module, test: TensorDataset, rank: int) -> float:
    """
    Return the share of the test images that the model gets right; all ranks work on it.

    Each rank takes every fourth image. A DistributedSampler would repeat some of them to give all
    ranks the same number, which is needed for training, but would count them twice here.
    """
    images, labels = (tensor[rank::RANKS] for tensor in test.tensors)
    model.eval()
    with torch.inference_mode():
        right = (model(images).argmax(dim=1) == labels).sum()
    counts: Tensor = torch.tensor([int(right), len(labels)])
    dist.all_reduce(counts)
    return float(counts[0] / counts[1])


def train(rank: int, directory: Path) -> None:
    """
    Train and test; runs in a rank.

    The ranks find each other by a file in *directory*. A port would have to be chosen before the
    first rank opens it, and somebody else could take it meanwhile.
    """
    # Several ranks share the processors; more threads would only get in each other's way.
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    rendezvous = f"file://{directory}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=RANKS)
    train_data, test_data = load_data()
    sampler: DistributedSampler[tuple[Tensor, ...]] = DistributedSampler(train_data, seed=SEED)
    loader = DataLoader(train_data, batch_size=BATCH_SIZE, sampler=sampler)
    network = make_model()
    model = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss_function = nn.CrossEntropyLoss()

    accuracy = 0.0
    for epoch in range(EPOCHS):
        # Without this, each epoch would see the images in the same order.
        sampler.set_epoch(epoch)
        network.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss_function(model(images), labels).backward()
            optimizer.step()
        # Without the wrapper, which makes sure that all ranks train alike: a test needs none.
        accuracy = measure_accuracy(network, test_data, rank)
        if rank == 0:
            print(f"epoch {epoch + 1:>2}: test accuracy {accuracy:.4f}", flush=True)
    if rank == 0:
        (directory / "accuracy").write_text(str(accuracy))
    dist.destroy_process_group()


def main() -> None:
    """Start the ranks and check what they have reached."""
    with tempfile.TemporaryDirectory() as directory:
        spawn(train, args=(Path(directory),), nprocs=RANKS)
        accuracy = float(Path(directory, "accuracy").read_text())
    if accuracy < REQUIRED_ACCURACY:
        sys.exit(f"error: test accuracy {accuracy:.4f} is below {REQUIRED_ACCURACY}")
    print(f"final test accuracy {accuracy:.4f} with {RANKS} ranks")


if __name__ == "__main__":
    main()
