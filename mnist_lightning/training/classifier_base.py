"""ClassifierBase: what `Classifier` does before and after training, and what callbacks and checkpoints ask of it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from mnist_lightning.data.datamodule import ClassificationDataModule
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.metrics import Score
from mnist_lightning.models.backbone import backbone_of
from mnist_lightning.training.callbacks.weight_averaging import EMAWeights
from mnist_lightning.training.initial_weights import load_initial_weights

HYPER_PARAMETERS = (LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY)


class ClassifierBase(LightningModule):
    """Start from initial weights, weight the classes, name the backbone, and save the schema of the data.

    Attributes:
        score: Loss and accuracy of the last evaluation that ended.
        class_weights: Weights of the classes in the training loss, float (num_classes,); None if all are equal.
    """

    network: Any  # SimpleCNN by default
    score: Score | None = None
    class_weights: Tensor | None = None

    @property
    def backbone(self) -> nn.Module:
        """Everything but the last linear layer, for Lightning's `BackboneFinetuning`; a subclass can set its own."""
        own = dict(self.named_children()).get("backbone")
        return backbone_of(self.network) if own is None else own

    def setup(self, stage: str) -> None:
        """Check that the network has an output for each class of the data."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if not isinstance(datamodule, ClassificationDataModule):
            return
        if (classes := len(datamodule.schema.class_names)) != self.hparams["num_classes"]:
            raise ConfigError(f"model.num_classes is {self.hparams['num_classes']}, but the data has {classes} classes")

    def on_fit_start(self) -> None:
        """Weight the classes of the loss, and start a new run from the weights of `init_from`."""
        options, datamodule = self.hparams, getattr(self.trainer, "datamodule", None)
        weights = make_class_weights(options["class_weights"], options["num_classes"], datamodule)
        self.class_weights = None if weights is None else weights.to(next(self.network.parameters()))
        if options["init_from"] and not self.trainer.ckpt_path:
            root = Path(self.trainer.default_root_dir)
            self.print(load_initial_weights(self.network, options["init_from"], root))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the schema of the data, without which the weights cannot be used; `init_from` has done its work.

        `load_from_checkpoint` needs hyper-parameters that are neither plain values nor tensors, such as a function
        given to a subclass, as arguments; with them, it could not read the checkpoint.
        """
        for key in set(HYPER_PARAMETERS) & checkpoint.keys():
            checkpoint[key] = {name: value for name, value in checkpoint[key].items() if _is_plain(value)}
        checkpoint["hyper_parameters"]["init_from"] = None
        datamodule = getattr(trainer_of(self), "datamodule", None)
        if isinstance(datamodule, ClassificationDataModule):
            checkpoint["inputs"] = asdict(datamodule.schema)

    def configure_callbacks(self) -> list[Callback]:
        """Return the weight averaging that `ema_decay` asks for."""
        decay = self.hparams["ema_decay"]
        return [EMAWeights(decay)] if decay and self.trainer.state.fn == "fit" else []


def trainer_of(module: LightningModule) -> Trainer | None:
    """Return the Trainer of a module; None before its first use, and in Fabric."""
    try:
        trainer: object = module.trainer
    except RuntimeError:
        return None
    return trainer if isinstance(trainer, Trainer) else None


def make_class_weights(weights: Any, num_classes: int, datamodule: object) -> Tensor | None:
    """Return the weights that the option means, float32 (num_classes,); None if all are equal.

    `balanced` counts the training labels: n / (num_classes · count), and 0 for a class without any.
    """
    if weights != "balanced":
        return None if weights is None else torch.tensor(weights)
    if not isinstance(datamodule, ClassificationDataModule):
        raise ConfigError("model.class_weights: only the labels of this project's data modules are known; pass a list")
    train = datamodule.samples("train")
    counts = torch.bincount(train.labels[train.indices], minlength=num_classes)
    return torch.where(counts > 0, counts.sum() / (num_classes * counts), 0.0)


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, Tensor)
