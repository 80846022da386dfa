"""Muon: orthogonalised momentum for the large weight matrices, Adam for all other parameters.

torch's own Muon accepts matrices only and computes in bfloat16, which CPUs without native support emulate.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam

# Coefficients of the quintic whose iteration moves every singular value towards 1: Jordan et al. 2024, "Muon: an
# optimizer for hidden layers in neural networks", https://kellerjordan.github.io/posts/muon/.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SMALLEST_NORM = 1e-7


class Muon(Adam):
    """Adam, except that `matrices` are updated by their Nesterov momentum with all singular values moved towards 1.

    The update of a matrix is scaled to the root mean square of Adam's, so that one learning rate suits both: Liu et
    al. 2025, "Muon is scalable for LLM training", https://arxiv.org/abs/2502.16982, equation 4.

    Args:
        matrices: Parameters of two or more dimensions, the first of which counts the outputs.
        others: All other parameters.
        **adam: Options of torch's Adam; the first of its `betas` is also the decay of the momentum.
    """

    def __init__(self, matrices: Iterable[Parameter], others: Iterable[Parameter], **adam: Any) -> None:
        super().__init__([{"params": list(others)}, {"params": list(matrices)}], **adam)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters; the closure computes the gradients.

        For a fused optimizer, a gradient scaler leaves it to `step` to divide by its scale and to skip the step if a
        gradient is not finite: https://docs.pytorch.org/docs/stable/amp.html.
        """
        loss = closure() if closure is not None else None
        scale, is_infinite = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        skip = is_infinite is not None and is_infinite.item() > 0
        matrices = self.param_groups[1]["params"]
        gradients = [matrix.grad for matrix in matrices]
        for matrix in matrices:
            if matrix.grad is not None:
                if not skip:
                    self._step_matrix(matrix, matrix.grad if scale is None else matrix.grad / scale)
                matrix.grad = None  # so that Adam skips it
        super().step()
        for matrix, gradient in zip(matrices, gradients, strict=True):
            matrix.grad = gradient
        return loss

    def _step_matrix(self, matrix: Parameter, gradient: Tensor) -> None:
        group, state = self.param_groups[1], self.state[matrix]
        with torch.no_grad():
            if not state:
                # Adam's load_state_dict expects a step.
                state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(matrix)}
            kept = group["betas"][0]
            momentum = state["momentum"].lerp_(gradient, 1 - kept)
            direction = orthogonal(gradient.lerp(momentum, kept).flatten(start_dim=1)).view_as(matrix)
            length = 0.2 * max(matrix.shape[0], matrix[0].numel()) ** 0.5
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"] * length)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return float (M, N): the matrix with singular values between about 0.7 and 1.2, except those near 0.

    The iteration X ← aX + b(XXᵀ)X + c(XXᵀ)²X multiplies X from the left by polynomials of XXᵀ, which commute. It is
    therefore computed on XXᵀ alone, of the smaller side, and X is multiplied once.

    Args:
        matrix: float (M, N).
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    a, b, c = QUINTIC
    matrix = matrix / matrix.norm().clamp(min=SMALLEST_NORM)
    gram, product = matrix @ matrix.T, torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    for _ in range(ITERATIONS):
        factor = torch.addmm(b * gram, gram, gram, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ matrix
