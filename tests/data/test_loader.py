import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from mnist_lightning.data.augmentation import Augmentation
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.samples import ImageDataset, RowDataset, Samples

COUNT = 103


def make_loader(**options: Any) -> BatchLoader:
    images = torch.randint(256, (COUNT, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    samples = Samples(images, torch.arange(COUNT), options.pop("indices", torch.arange(COUNT)))
    dataset = ImageDataset(samples, 0.1307, 0.3081, options.pop("augmentation", None))
    group = {"num_replicas": options.pop("world_size", 1), "rank": options.pop("rank", 0)}
    return BatchLoader(dataset, batch_size=10, group=group, **options)


def served(loader: BatchLoader) -> list[int]:
    """The labels of an epoch; each image's label is its index."""
    return torch.cat([labels for _, labels in loader]).tolist()


def test_pixels_are_those_of_torchvision() -> None:
    loader = make_loader()
    images, labels = next(iter(loader))
    scaled = transforms.to_dtype(loader.dataset.inputs[labels].unsqueeze(1), torch.float32, scale=True)
    # One rounding more or less in values up to 2.8: a few units in the last place of float32.
    torch.testing.assert_close(images, transforms.normalize(scaled, [0.1307], [0.3081]), rtol=0, atol=1e-6)


def test_batches_are_channels_last() -> None:
    images, _ = next(iter(make_loader()))
    assert images.shape == (10, 1, 28, 28)
    assert images.stride() == (784, 1, 28, 1)


@pytest.mark.parametrize("seed", [None, 0])
def test_every_image_is_served_once_and_the_length_is_the_number_of_batches(seed: int | None) -> None:
    loader = make_loader(seed=seed)
    assert sorted(served(loader)) == list(range(COUNT))
    assert len(loader) == len(list(loader)) == 11


def test_without_a_seed_images_stay_in_file_order() -> None:
    assert served(make_loader(indices=torch.tensor([5, 3, 99]))) == [5, 3, 99]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders = {}
    for seed, epoch in itertools.product((0, 1), (0, 1, 2)):
        loader = make_loader(seed=seed)
        loader.set_epoch(epoch)
        orders[seed, epoch] = tuple(served(loader))
        loader.set_epoch(epoch)
        assert tuple(served(loader)) == orders[seed, epoch]
    assert len(set(orders.values())) == 6


def test_the_epoch_may_be_set_until_the_first_batch_is_requested() -> None:
    loader = make_loader(seed=0)
    early = iter(loader)
    loader.set_epoch(3)
    late = make_loader(seed=0)
    late.set_epoch(3)
    assert torch.equal(next(early)[1], next(iter(late))[1])


@pytest.mark.parametrize("batches_before", [0, 1, 7, 11])
def test_a_restored_loader_serves_the_rest_of_the_epoch(batches_before: int) -> None:
    stopped, unbroken = make_loader(seed=0), make_loader(seed=0)
    iterator = iter(stopped)
    seen = [labels for _, labels in itertools.islice(iterator, batches_before)]
    resumed = make_loader(seed=0)
    resumed.load_state_dict(stopped.state_dict())
    rest: list[Tensor] = [labels for _, labels in resumed] if batches_before < 11 else []
    assert torch.cat([*seen, *rest]).tolist() == served(unbroken)
    if batches_before == 11:
        assert served(resumed) == served(make_loader(seed=0))  # between epochs nothing remains


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_split_an_evaluation_without_padding(world_size: int) -> None:
    shares = [served(make_loader(rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(itertools.chain(*shares)) == list(range(COUNT))


def test_a_rank_without_a_batch_serves_none_but_expects_as_many_as_the_first() -> None:
    loaders = [make_loader(rank=rank, world_size=12) for rank in range(12)]  # 11 batches
    assert [len(list(loader)) for loader in loaders] == [1] * 11 + [0]
    assert {len(loader) for loader in loaders} == {1}


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_train_on_disjoint_images_of_equal_number(world_size: int) -> None:
    shares = [served(make_loader(rank=rank, world_size=world_size, seed=0)) for rank in range(world_size)]
    assert {len(share) for share in shares} == {COUNT // world_size}
    assert len(set(itertools.chain(*shares))) == world_size * (COUNT // world_size)


def test_the_first_batch_does_not_depend_on_the_position_in_the_epoch() -> None:
    loader = make_loader(seed=0, augmentation=Augmentation(rotation=10))
    loader.set_epoch(2)
    images, labels = next(iter(loader))
    loader.set_epoch(2)
    loader.load_state_dict({"served": 4})
    others = iter(loader)
    assert not torch.equal(next(others)[1], labels)
    again, same_labels = loader.first_batch()
    assert torch.equal(again, images)
    assert torch.equal(same_labels, labels)
    assert loader.state_dict() == {"served": 5}
    assert len(list(others)) == 6


def test_rows_are_served_unchanged_in_the_order_of_images() -> None:
    images, labels = torch.zeros(103, 28, 28, dtype=torch.uint8), torch.arange(103)
    rows = torch.randn(103, 4, generator=torch.Generator().manual_seed(0))
    for rank in range(3):
        options: dict[str, Any] = {"batch_size": 8, "seed": 5, "group": {"num_replicas": 3, "rank": rank}}
        loaders = (
            BatchLoader(kind(Samples(inputs, labels, labels)), **options)
            for kind, inputs in ((RowDataset, rows), (ImageDataset, images))
        )
        for (served, served_labels), (_, expected) in zip(*loaders, strict=True):
            assert torch.equal(served_labels, expected)
            assert torch.equal(served, rows[served_labels])
