"""What `fit` adds to a Trainer, for a Trainer of your own."""

from lightning.pytorch import Callback

from mnist_lightning.training.callbacks.calibrator import Calibrator
from mnist_lightning.training.callbacks.divergence_guard import DivergenceGuard
from mnist_lightning.training.callbacks.early_stopping import RunEarlyStopping
from mnist_lightning.training.callbacks.exact_resume import ExactResume
from mnist_lightning.training.callbacks.run_checkpoint import RunCheckpoint


def default_callbacks(seed: int = 0) -> list[Callback]:
    """Return new callbacks: exact resumption, checkpoints, early stopping, divergence guard, calibration.

    Checkpoints of all epochs go where Lightning's ModelCheckpoint puts them, and signals save before they end the run.
    What belongs to a run folder (its log, summary, manifest and `best.ckpt`) is left to the command line. A model whose
    `validation_step` returns no logits needs the list without its `Calibrator`.

    Args:
        seed: Seed of dropout, at least 0; the data module has its own.
    """
    return [RunEarlyStopping(), RunCheckpoint(), ExactResume(seed), DivergenceGuard(), Calibrator()]
