"""Dropout whose masks cost a processor a tenth of torch's own."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Zero features at random in training, and scale the others up: y = 0 or x / (1 - p).

    torch draws a random number a feature; on a processor that takes longer than some convolutions. Here eight features
    share the 64 bits of one draw, a byte each, so `p` is rounded to a multiple of 1/256 (0.25 and 0.5 are exact). On
    other devices it is torch's own.

    Args:
        p: Probability of zeroing a feature, in [0, 1).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, of any shape, contiguous."""
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        kept_of_256 = max(1, round(256 * (1 - self.p)))
        # From the lowest int64 to the highest: the default range leaves the top bit of every eighth byte at zero.
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= 256 - kept_of_256
        return x * kept.to(x.dtype).mul_(256 / kept_of_256)
