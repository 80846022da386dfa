import numpy as np
import pytest
import torch

from mnist_lightning import Classifier, SimpleCNN
from mnist_lightning.training.optim.muon import ITERATIONS, QUINTIC, Muon, orthogonal
from mnist_lightning.training.optim.optimizer import make_optimizer


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_the_iteration_maps_every_singular_value_by_its_quintic(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = np.linalg.svd(matrix.numpy(), full_matrices=False)
    values = values / np.sqrt((values**2).sum())
    for _ in range(ITERATIONS):
        values = QUINTIC[0] * values + QUINTIC[1] * values**3 + QUINTIC[2] * values**5
    expected = torch.from_numpy(left @ np.diag(values) @ right)
    torch.testing.assert_close(orthogonal(matrix), expected, rtol=0, atol=1e-9)


def test_single_precision_is_enough_for_a_matrix_of_low_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(128, 20, generator=generator) @ torch.randn(20, 3136, generator=generator)
    exact = orthogonal(matrix.double())
    # Values up to about 0.04; rounding of the many zero singular values is what differs.
    torch.testing.assert_close(orthogonal(matrix).double(), exact, rtol=0, atol=1e-4)


def test_a_matrix_of_zeros_stays_one() -> None:
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_steps_are_those_of_torchs_own_muon() -> None:
    torch.manual_seed(0)
    weights = torch.randn(16, 40)
    ours, theirs = (torch.nn.Parameter(weights.clone()) for _ in range(2))
    bias = torch.nn.Parameter(torch.zeros(3))
    mine = Muon([ours], [bias], lr=0.01, weight_decay=0.1, decoupled_weight_decay=True)
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        gradient = torch.randn(16, 40)
        ours.grad, theirs.grad, bias.grad = gradient, gradient.clone(), torch.ones(3)
        mine.step()
        reference.step()  # type: ignore[no-untyped-call]
        assert ours.grad is gradient, "gradients are left as they were"
    # torch's computes in bfloat16, three digits; the way taken is about 0.05 a weight.
    assert float((ours.data - theirs.data).norm() / (ours.data - weights).norm()) < 0.02
    adam = torch.nn.Parameter(torch.zeros(3))
    adam_reference = torch.optim.AdamW([adam], lr=0.01, weight_decay=0.1)
    for _ in range(5):
        adam.grad = torch.ones(3)
        adam_reference.step()
    torch.testing.assert_close(bias, adam)


def test_the_weights_between_the_first_and_the_last_layer_are_its_matrices() -> None:
    classifier = Classifier(optimizer="muon")
    optimizer = make_optimizer(classifier.network.parameters(), classifier.hparams, fused=False)
    names = {parameter: name for name, parameter in classifier.network.named_parameters()}
    assert [names[parameter] for parameter in optimizer.param_groups[1]["params"]] == ["conv2.weight", "fc1.weight"]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(SimpleCNN().parameters()))


@pytest.mark.parametrize("fused", [False, True])
def test_the_gradient_scaler_is_honoured(fused: bool) -> None:
    def trained(*, scaled: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        matrix, bias = torch.nn.Parameter(torch.randn(8, 5)), torch.nn.Parameter(torch.zeros(8))
        optimizer = Muon([matrix], [bias], lr=0.1, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2, enabled=scaled)
        for inputs in (torch.ones(4, 5), torch.full((4, 5), torch.inf), torch.ones(4, 5), 2 * torch.ones(4, 5)):
            if not scaled and inputs.isinf().any():
                continue
            optimizer.zero_grad()
            scaler.scale((inputs @ matrix.T + bias).square().mean()).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
        return [matrix.detach(), bias.detach()]

    # The scale is a power of two, so that dividing by it is exact.
    for ours, unscaled in zip(trained(scaled=True), trained(scaled=False), strict=True):
        assert torch.equal(ours, unscaled), "the infinite step is skipped, the others are those without a scaler"
