import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.lab import SimpleCNN as LabSimpleCNN
from mnist_lightning import SimpleCNN


def test_the_parameter_count_is_the_sum_over_the_layers() -> None:
    expected = (1 * 9 + 1) * 32 + (32 * 9 + 1) * 64 + (3136 + 1) * 128 + (128 + 1) * 10
    assert expected == 421_642
    assert sum(parameter.numel() for parameter in SimpleCNN().parameters()) == expected


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weights_load_into_the_labs_class_and_give_the_same_logits_and_gradients(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    network = SimpleCNN().to(memory_format=layout).eval()
    lab = LabSimpleCNN().eval()
    lab.load_state_dict(network.state_dict())
    images, labels = torch.randn(16, 1, 28, 28), torch.randint(10, (16,))
    ours, theirs = network(images.to(memory_format=layout)), lab(images)
    # Other kernels for another layout add in another order: a few units in the last place of float32.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    our_gradients = torch.autograd.grad(F.cross_entropy(ours, labels), tuple(network.parameters()))
    their_gradients = torch.autograd.grad(F.cross_entropy(theirs, labels), tuple(lab.parameters()))
    for our, their in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-6)


def test_dropout_zeroes_the_given_fractions_and_only_in_training() -> None:
    torch.manual_seed(0)
    network = SimpleCNN(conv_dropout=0.25, fc_dropout=0.5)
    kept: dict[str, Tensor] = {}
    network.conv_dropout.register_forward_hook(lambda _m, i, o: kept.update(conv=(o[i[0] != 0] != 0).double().mean()))
    network.fc_dropout.register_forward_hook(lambda _m, i, o: kept.update(fc=(o[i[0] != 0] != 0).double().mean()))
    images = torch.randn(256, 1, 28, 28)
    network(images)
    # 256 images have some 500,000 and 16,000 features above zero: five standard errors are 0.003 and 0.02.
    assert abs(kept["conv"] - 0.75) < 0.003
    assert abs(kept["fc"] - 0.5) < 0.02
    network.eval()(images)
    assert kept["conv"] == kept["fc"] == 1


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_dropout_probability_outside_0_to_1_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="fc_dropout must be in"):
        SimpleCNN(fc_dropout=rate)


def test_num_classes_is_the_width_of_the_last_layer() -> None:
    assert SimpleCNN(num_classes=47)(torch.zeros(2, 1, 28, 28)).shape == (2, 47)
    with pytest.raises(ValueError, match="num_classes must be at least 2"):
        SimpleCNN(num_classes=1)
