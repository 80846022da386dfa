"""A running mean of the weights."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer, callbacks
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAveraging(callbacks.WeightAveraging):
    """Keep an exponential moving average of the weights; it is validated and saved in place of the weights.

    Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging"; here with a decay.

    Args:
        decay: Share that each step keeps of the mean, in [0, 1).
    """

    def __init__(self, decay: float) -> None:
        # All weights at once, where Lightning's own EMAWeightAveraging goes from one to the next.
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the step of the last update is that of the checkpoint, which `test` reads without us."""
        return {}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the mean and the weights."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._latest_update_step = checkpoint["global_step"]
