import numpy as np
import pytest
import torch

from mnist_lightning.models.mlp import MLP


def test_the_mlp_computes_its_formula() -> None:
    torch.manual_seed(0)
    network = MLP(3, 2, hidden=(5,)).eval()
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    hidden = np.maximum(rows @ weights["layers.0.weight"].T + weights["layers.0.bias"], 0)
    expected = hidden @ weights["layers.1.weight"].T + weights["layers.1.bias"]
    with torch.inference_mode():
        assert np.allclose(network(torch.from_numpy(rows)), expected, atol=1e-6)  # rounding of float32


def test_without_hidden_layers_the_network_is_linear() -> None:
    network = MLP(3, 2, hidden=())
    assert sum(parameter.numel() for parameter in network.parameters()) == 3 * 2 + 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_features": 0}, "in_features must be at least 1, got 0"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"hidden": (4, 0)}, "hidden must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(**{"in_features": 3, "num_classes": 2, **options})  # type: ignore[arg-type]
