"""EMAWeights: an exponential moving average (EMA) of the weights."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer, callbacks
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMAWeights(callbacks.WeightAveraging):
    """Keep an exponential moving average of the weights; it is validated and saved in place of the weights.

    After Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging", here with a decay.

    Args:
        decay: EMA decay a step, in [0, 1).
    """

    def __init__(self, decay: float) -> None:
        # Updates all weights at once; Lightning's EMAWeightAveraging updates one after another.
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the last update was at the step of the checkpoint, and `test` runs without this callback."""
        return {}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the average and the weights."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        super().load_state_dict({"latest_update_step": checkpoint["global_step"]})
