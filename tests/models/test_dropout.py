import pytest
import torch

from mnist_lightning.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.25, 0.5, 0.75])
def test_a_feature_becomes_0_or_is_scaled_up(p: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3137).abs() + 1
    y = Dropout(p)(x)
    assert bool(((y == 0) | torch.isclose(y, x / (1 - p), rtol=1e-6)).all())


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_each_byte_of_a_draw_drops_with_the_same_probability(p: float) -> None:
    torch.manual_seed(0)
    count = 200_000
    kept = (Dropout(p)(torch.ones(count, 8)) != 0).double().mean(dim=0)
    # Five standard errors of a proportion over 200,000 draws are at most 0.0056.
    assert float((kept - (1 - p)).abs().max()) < 0.0056


def test_neighbouring_features_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(100_000, 16)) != 0).double()
    correlations = torch.corrcoef(kept.T) - torch.eye(16)
    # A correlation over 100,000 draws has a standard error of 0.0032; five of them, and some for the best of 120 pairs.
    assert float(correlations.abs().max()) < 0.018


def test_a_probability_that_is_rounded_keeps_the_mean() -> None:
    torch.manual_seed(0)
    # 0.3 is rounded to 77/256, and the scale with it. Five standard errors over a million features: 0.0033.
    assert abs(float(Dropout(0.3)(torch.ones(1000, 1000)).mean()) - 1) < 0.0033


def test_gradients_pass_through_the_kept_features() -> None:
    torch.manual_seed(0)
    x = torch.randn(10, 37, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(y != 0, 2.0, 0.0))


def test_evaluation_and_a_probability_of_0_change_nothing_and_draw_no_numbers() -> None:
    x = torch.randn(5, 7)
    before = torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), before)
