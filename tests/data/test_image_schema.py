"""Reading the image schema of a checkpoint, valid or forged."""

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch

from mnist_lightning.data.image_schema import MNIST_SCHEMA, ImageSchema, read_schema
from mnist_lightning.data.splits import TrainingSource

ORIGIN = TrainingSource("shapes", "0" * 64, 0, ("val", "test"))
COLOUR_SCHEMA = ImageSchema(16, 16, 0.5, 0.2, ("circle", "square"), 3, ORIGIN)


@pytest.mark.parametrize("schema", [MNIST_SCHEMA, COLOUR_SCHEMA])
def test_a_schema_survives_the_round_trip_through_a_checkpoint(schema: ImageSchema) -> None:
    assert read_schema({"inputs": asdict(schema)}) == schema


@pytest.mark.parametrize(
    "forged",
    [
        {"height": 257, "width": 257},
        {"height": 16.0, "width": 16.0},
        {"channels": 3.0},
        {"channels": True},
        {"channels": torch.tensor(3)},
        {"mean": math.nan},
        {"std": 0.0},
        {"class_names": ("a",) * 1001},
        {"class_names": (1, 2)},
        {"origin": None},
        {"origin": {}},
        {"origin": torch.zeros(2)},
        {"origin": asdict(ORIGIN) | {"path": 7}},
        {"origin": asdict(ORIGIN) | {"split_seed": math.inf}},
        {"origin": asdict(ORIGIN) | {"cut": torch.zeros(2)}},
        {"more": 1},
    ],
)
def test_an_invalid_schema_is_read_as_none(forged: dict[str, Any]) -> None:
    assert read_schema({"inputs": asdict(COLOUR_SCHEMA) | forged}) is None
