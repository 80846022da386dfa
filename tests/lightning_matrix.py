"""Every Trainer option, callback and logger of Lightning: a command line for each, and what it must come to.

`python -m tests.lightning_matrix` prints the tables of `docs/lightning.md`; `test_lightning_matrix.py` runs the cases.
"""

import csv
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer

from mnist_lightning.training.logger import read_curves


class Probe(Callback):
    """Notes what holds while a run trains."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self.seen: set[str] = set()

    def on_sanity_check_start(self, trainer: Trainer, *_: Any) -> None:
        self.seen.add("sanity check")

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.trainer = trainer
        facts = {
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "benchmark": torch.backends.cudnn.benchmark,
            "anomaly": torch.is_anomaly_enabled(),
        }
        self.seen |= {name for name, holds in facts.items() if holds}

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.seen |= {"inference mode"} if torch.is_inference_mode_enabled() else set()


class NegatedWeights(Callback):
    """Negates the weights after some steps, so that the loss jumps."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 5:
            with torch.no_grad():
                for parameter in trainer.lightning_module.parameters():
                    parameter.mul_(-20)


def size_of(batch: tuple[torch.Tensor, torch.Tensor]) -> int:
    """Return the number of images of a batch."""
    return len(batch[1])


@dataclass
class Result:
    """What a command came to."""

    code: int
    text: str  # on stdout, on stderr and logged
    root: Path
    probe: Probe

    @property
    def trainer(self) -> Any:
        return self.probe.trainer

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.root.rglob(pattern))

    def steps(self, tag: str) -> list[int]:
        """Return the steps of a curve in TensorBoard."""
        return [step for step, _ in read_curves(self.root / "lightning_logs" / "version_0").get(tag, [])]

    def column(self, name: str) -> list[str]:
        """Return the values of a column of metrics.csv."""
        with (self.root / "lightning_logs" / "version_0" / "metrics.csv").open() as file:
            return [row[name] for row in csv.DictReader(file) if row.get(name)]


class Case(NamedTuple):
    """Arguments of `fit`, and what they must come to: a check of the result, or the words of a refusal."""

    args: str
    check: Callable[[Result], Any] = lambda result: True
    refusal: str = ""
    code: int = 0


@dataclass
class Row:
    """A row of the table in the page."""

    says: str
    cases: list[Case] = field(default_factory=list)


def refused(args: str, words: str) -> Case:
    """Return a case that must end with one line that contains these words."""
    return Case(args, refusal=words, code=2)


STOPS = "--early_stopping.min_delta=9 --early_stopping.patience=1 --trainer.max_epochs=4 "  # after two epochs
HONOURED = "as in Lightning"

OPTIONS: dict[str, Row] = {
    "accelerator": Row(
        f"{HONOURED}; one that this machine lacks is an error",
        [refused("accelerator=hpu", "invalid accelerator name"), refused("accelerator=tpu", "torch_xla")],
    ),
    "strategy": Row(
        f"{HONOURED}, by name or class path",
        [
            Case(
                "strategy=lightning.pytorch.strategies.SingleDeviceStrategy",
                lambda r: type(r.trainer.strategy).__name__ == "SingleDeviceStrategy",
            ),
            refused("strategy=nothing", "invalid strategy name"),
        ],
    ),
    "devices": Row(HONOURED, [refused("devices=0", "devices")]),
    "num_nodes": Row(
        f"{HONOURED}; refused if nothing tells where the other machines are", [refused("num_nodes=2", "MASTER_ADDR")]
    ),
    "precision": Row(
        "Lightning's names, and `auto` (the default): bfloat16 where the device computes it natively, float32 for "
        "SimpleCNN with its kernels on a CPU. "
        "Scores are always computed in float32",
        [
            Case("precision=64", lambda r: r.trainer.precision == "64-true"),
            Case("precision=bf16-true", lambda r: r.trainer.precision == "bf16-true"),
            Case("precision=32", lambda r: r.trainer.precision == "32-true"),
            refused("precision=transformer-engine", "transformer_engine"),
            refused("precision=8", "must be"),
        ],
    ),
    "logger": Row(
        "one or several loggers, beside the run's TensorBoard; false logs nothing",
        [
            Case("logger=false", lambda r: not r.files("events*")),
            Case("logger=[CSVLogger,TensorBoardLogger]", lambda r: len(r.trainer.loggers) == 3),
        ],
    ),
    "callbacks": Row(
        "one or several; `trainer.callbacks+=NAME` adds one",
        [Case("callbacks=LambdaCallback", lambda r: uses("LambdaCallback")(r))],
    ),
    "fast_dev_run": Row(
        f"{HONOURED}; nothing is written",
        [Case("fast_dev_run=2", lambda r: "2 steps" in r.text and not r.files("*.ckpt") + r.files("events*"))],
    ),
    "max_epochs": Row(
        "20 by default; null without a limit", [Case("max_epochs=2", lambda r: r.trainer.current_epoch == 2)]
    ),
    "min_epochs": Row(
        HONOURED,
        [
            Case(
                STOPS + "--trainer.min_epochs=3", lambda r: r.trainer.current_epoch == 3 and "stopped early" in r.text
            ),
            Case(STOPS, lambda r: r.trainer.current_epoch == 2 and "stopped early" in r.text),
        ],
    ),
    "max_steps": Row(HONOURED, [Case("max_steps=3", lambda r: steps(r) == 3 and "trainer.max_steps" in r.text)]),
    "min_steps": Row(HONOURED, [Case(STOPS + "--trainer.min_steps=20", lambda r: r.trainer.current_epoch == 3)]),
    "max_time": Row(
        HONOURED,
        [Case("max_time=00:00:00:01 --trainer.max_epochs=9999", lambda r: "stopped by Timer: time limit" in r.text)],
    ),
    "limit_train_batches": Row(
        f"{HONOURED}; 1 is one batch, 1.0 all", [Case("limit_train_batches=1", lambda r: steps(r) == 1)]
    ),
    "limit_val_batches": Row(HONOURED, [Case("limit_val_batches=0", lambda r: "val_loss" not in r.text)]),
    "limit_test_batches": Row(
        "as in Lightning; a test of fewer images writes no result",
        [refused("limit_test_batches=0 --test_after_fit=true", "no images to score")],
    ),
    "limit_predict_batches": Row(
        "of `Trainer.predict`, in Python; refused by the commands, of which none runs it",
        [refused("limit_predict_batches=1", "`predict`")],
    ),
    "overfit_batches": Row(HONOURED, [Case("overfit_batches=2", lambda r: steps(r) == 2)]),
    "val_check_interval": Row(
        "as in Lightning; each validation has a line and a checkpoint, and all curves have the step as their axis",
        [
            Case("val_check_interval=3", lambda r: r.steps("Loss/val") == [2, 5] and "best epoch" in r.text),
            Case("val_check_interval=00:00:00:01 --model.lr_scheduler=linear"),
            Case("val_check_interval=5 --trainer.check_val_every_n_epoch=null", lambda r: r.steps("Loss/val") == [4]),
            refused("val_check_interval=100", "val_check_interval"),
        ],
    ),
    "check_val_every_n_epoch": Row(
        HONOURED, [Case("check_val_every_n_epoch=2 --trainer.max_epochs=2", lambda r: r.steps("Loss/val") == [1])]
    ),
    "num_sanity_val_steps": Row(
        "0 by default", [Case("num_sanity_val_steps=1", lambda r: "sanity check" in r.probe.seen)]
    ),
    "log_every_n_steps": Row(
        "0 by default: once an epoch. Above 0, `train_loss_step` and the callbacks below are logged at each n-th step",
        [Case("log_every_n_steps=3", lambda r: r.steps("train_loss_step") == [2, 5])],
    ),
    "enable_checkpointing": Row(
        "false trains without checkpoints; such a run can be neither tested nor resumed",
        [Case("enable_checkpointing=false", lambda r: not r.files("*.ckpt") and "without checkpoints" in r.text)],
    ),
    "enable_progress_bar": Row(
        "by default on a terminal only",
        [
            Case("enable_progress_bar=true", lambda r: "8/8" in r.text),
            Case("enable_progress_bar=false", lambda r: "8/8" not in r.text),
        ],
    ),
    "enable_model_summary": Row(
        "false by default", [Case("enable_model_summary=true", lambda r: "Total params" in r.text)]
    ),
    "accumulate_grad_batches": Row(HONOURED, [Case("accumulate_grad_batches=2", lambda r: steps(r) == 4)]),
    "gradient_clip_val": Row(HONOURED, [Case("gradient_clip_val=0.5", lambda r: r.trainer.gradient_clip_val == 0.5)]),
    "gradient_clip_algorithm": Row(
        "with `gradient_clip_val`, without which it is refused",
        [
            refused("gradient_clip_algorithm=value", "gradient_clip_val"),
            Case(
                "gradient_clip_algorithm=value --trainer.gradient_clip_val=0.5",
                lambda r: r.trainer.gradient_clip_algorithm == "value",
            ),
        ],
    ),
    "deterministic": Row(
        "true by default", [Case("deterministic=false", lambda r: "deterministic" not in r.probe.seen)]
    ),
    "benchmark": Row(
        HONOURED, [Case("benchmark=true --trainer.deterministic=false", lambda r: "benchmark" in r.probe.seen)]
    ),
    "inference_mode": Row(HONOURED, [Case("inference_mode=false", lambda r: "inference mode" not in r.probe.seen)]),
    "use_distributed_sampler": Row(
        "for DataLoaders of data modules of your own; this project's loaders divide the samples themselves, so `false` "
        "is refused",
        [refused("use_distributed_sampler=false", "itself divides")],
    ),
    "profiler": Row(
        HONOURED,
        [
            Case("profiler=simple", lambda r: "run_training_epoch" in r.text),
            Case("profiler=lightning.pytorch.profilers.SimpleProfiler", lambda r: "run_training_epoch" in r.text),
            refused("profiler=nothing", "profiler"),
        ],
    ),
    "detect_anomaly": Row(HONOURED, [Case("detect_anomaly=true", lambda r: "anomaly" in r.probe.seen)]),
    "barebones": Row(
        "as in Lightning: neither checkpoints nor logs",
        [Case("barebones=true", lambda r: not r.files("*.ckpt") + r.files("events*"))],
    ),
    "plugins": Row(
        "one or several; a CheckpointIO is refused, because the run's own keeps its best, last and manifest",
        [
            refused("plugins=lightning.pytorch.plugins.io.TorchCheckpointIO", "CheckpointIO"),
            Case(
                "plugins=lightning.pytorch.plugins.precision.DoublePrecision --trainer.precision=auto",
                lambda r: r.trainer.precision == "64-true",
            ),
        ],
    ),
    "sync_batchnorm": Row(HONOURED, [Case("sync_batchnorm=true")]),
    "reload_dataloaders_every_n_epochs": Row(HONOURED, [Case("reload_dataloaders_every_n_epochs=1")]),
    "default_root_dir": Row(
        "the folder that contains `lightning_logs` and `checkpoints`",
        [Case("default_root_dir=sub", lambda r: (r.root / "sub" / "lightning_logs" / "version_0").is_dir())],
    ),
    "enable_autolog_hparams": Row(
        HONOURED,
        [
            Case("enable_autolog_hparams=false", lambda r: not r.steps("hp/val_loss")),
            Case("enable_autolog_hparams=true", lambda r: r.steps("hp/val_loss")),
        ],
    ),
    "model_registry": Row("refused; upload `best.ckpt` with litmodels", [refused("model_registry=x", "litmodels")]),
}


def add(name: str, **options: Any) -> str:
    """Return the arguments that add a callback."""
    return " ".join([f"callbacks+={name}", *(f"--trainer.callbacks.{key}={value}" for key, value in options.items())])


def has(package: str) -> bool:
    """Return whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def steps(result: Result) -> int:
    """Return the number of steps that were trained."""
    return int(result.trainer.global_step)


def uses(name: str) -> Callable[[Result], bool]:
    """Return a check that a callback of this class took part in the training."""
    return lambda result: any(type(each).__name__ == name for each in result.trainer.callbacks)


def needs(package: str, case: Case) -> Case:
    """Return a case, or that a missing package is named."""
    return case if has(package) else refused(case.args, package)


def base_class(name: str) -> Row:
    """Return the row of a class that does nothing itself."""
    return Row("a base class; a subclass of your own", [refused(add(name), name)])


CALLBACKS: dict[str, Row] = {
    "BackboneFinetuning": Row(
        "as in Lightning; the backbone is everything but the last linear layer",
        [
            Case(
                add("BackboneFinetuning", unfreeze_backbone_at_epoch=1) + " --trainer.max_epochs=2",
                lambda r: len(r.trainer.optimizers[0].param_groups) == 2,
            )
        ],
    ),
    "BaseFinetuning": base_class("BaseFinetuning"),
    "BasePredictionWriter": Row(
        "refused, because no command runs `Trainer.predict`: `predict` labels images and rows, and `test` writes "
        "predictions.csv",
        [refused(add("BasePredictionWriter"), "`predict`")],
    ),
    "BatchSizeFinder": Row(
        "as in Lightning; the size found is printed, used, and in the run's config",
        [
            Case(
                add("BatchSizeFinder", max_trials=1, steps_per_trial=1) + " --trainer.limit_train_batches=2",
                lambda r: "batch_size: 2" in config(r) and not r.files(".scale*"),
            )
        ],
    ),
    "Callback": base_class("Callback"),
    "Checkpoint": base_class("Checkpoint"),
    "DeviceStatsMonitor": Row(
        f"{HONOURED}; every 50 steps unless `log_every_n_steps` is set",
        [
            needs(
                "psutil",
                Case(
                    add("DeviceStatsMonitor") + " --trainer.log_every_n_steps=4 --trainer.logger=CSVLogger",
                    lambda r: r.column("DeviceStatsMonitor.on_train_batch_start/cpu_percent"),
                ),
            )
        ],
    ),
    "EarlyStopping": Row(
        "in place of the run's own, which `early_stopping` configures",
        [
            Case(
                add("EarlyStopping", monitor="train_loss", min_delta=9, patience=2, mode="min")
                + " --trainer.max_epochs=5",
                lambda r: "stopped early: train_loss did not improve for 2 epochs" in r.text,
            )
        ],
    ),
    "GradientAccumulationScheduler": Row(
        HONOURED, [Case(add("GradientAccumulationScheduler", scheduling="{0:2}"), lambda r: steps(r) == 4)]
    ),
    "LambdaCallback": Row(HONOURED, [Case(add("LambdaCallback"), uses("LambdaCallback"))]),
    "LearningRateFinder": Row(
        "as in Lightning; the rate found is printed, used, and in the run's config",
        [
            Case(
                add("LearningRateFinder", num_training_steps=30, min_lr=1e-4) + " --trainer.max_epochs=3",
                lambda r: "model.lr: 0.001 was given" in r.text and "lr: 0.001\n" not in config(r),
            )
        ],
    ),
    "LearningRateMonitor": Row(
        "as in Lightning, on the axis of steps; each step needs `log_every_n_steps` (50 if it is not set)",
        [
            Case(
                add("LearningRateMonitor", logging_interval="step") + " --trainer.log_every_n_steps=2",
                lambda r: r.steps("lr-Adam") == [1, 3, 5, 7],
            ),
            Case(add("LearningRateMonitor", logging_interval="epoch"), lambda r: r.steps("lr-Adam") == [0]),
        ],
    ),
    "ModelCheckpoint": Row(
        "beside the run's own checkpoints, in `lightning_logs/version_N/checkpoints` or its `dirpath`",
        [
            Case(
                add("ModelCheckpoint", monitor="val_loss", save_last="true"),
                lambda r: (
                    (r.root / "lightning_logs/version_0/checkpoints/last.ckpt").is_file()
                    and (r.root / "checkpoints/version_0/best.ckpt").is_file()
                ),
            )
        ],
    ),
    "ModelPruning": Row(
        "refused, because a pruned network could not be resumed: prune with `torch.nn.utils.prune` after training",
        [refused(add("ModelPruning", pruning_fn="l1_unstructured"), "torch.nn.utils.prune")],
    ),
    "ModelSummary": Row(HONOURED, [Case(add("ModelSummary", max_depth=2), lambda r: "network.conv1" in r.text)]),
    "OnExceptionCheckpoint": Row(
        "refused: every epoch is saved, and a signal saves the run before it ends",
        [refused(add("OnExceptionCheckpoint", dirpath="x"), "checkpoint.every_n_steps")],
    ),
    "ProgressBar": base_class("ProgressBar"),
    "RichModelSummary": Row(HONOURED, [needs("rich", Case(add("RichModelSummary"), uses("RichModelSummary")))]),
    "RichProgressBar": Row(
        "in place of the run's own", [needs("rich", Case(add("RichProgressBar"), uses("RichProgressBar")))]
    ),
    "StochasticWeightAveraging": Row(
        "refused, because its average is not in the checkpoints: `model.ema_decay`, EMAWeightAveraging or "
        "WeightAveraging",
        [refused(add("StochasticWeightAveraging", swa_lrs=0.01), "model.ema_decay")],
    ),
    "SpikeDetection": Row(
        "as in Lightning; a spike ends the run with exit code 3, and it can be resumed",
        [
            Case(add("SpikeDetection"), uses("SpikeDetection")),
            Case(
                f"{add('SpikeDetection', warmup=2)} --trainer.callbacks+=tests.lightning_matrix.NegatedWeights",
                lambda r: "spike detected in batch 5; resume with" in r.text,
                code=3,
            ),
        ],
    ),
    "ThroughputMonitor": Row(
        "as in Lightning; `batch_size_fn` names a function of yours; every 50 steps unless `log_every_n_steps` is set",
        [
            refused(add("ThroughputMonitor"), "batch_size_fn"),
            Case(
                add("ThroughputMonitor", batch_size_fn="tests.lightning_matrix.size_of")
                + " --trainer.log_every_n_steps=2 --trainer.logger=CSVLogger",
                lambda r: r.column("train/samples") == ["64", "128", "192", "240"],
            ),
        ],
    ),
    "Timer": Row(
        HONOURED,
        [
            Case(
                add("Timer", duration="00:00:00:01") + " --trainer.max_epochs=9999",
                lambda r: "stopped by Timer" in r.text,
            )
        ],
    ),
    "TQDMProgressBar": Row(
        "in place of the run's own", [Case(add("TQDMProgressBar", refresh_rate=4), lambda r: "8/8" in r.text)]
    ),
    "EMAWeightAveraging": Row(
        "as in Lightning; the average is validated, saved and tested",
        [Case(add("EMAWeightAveraging", decay=0.5), lambda r: averages(r))],
    ),
    "WeightAveraging": Row("likewise", [Case(add("WeightAveraging"), lambda r: averages(r))]),
}


def config(result: Result) -> str:
    """Return the saved config of the run."""
    return (result.root / "lightning_logs/version_0/config.yaml").read_text()


def averages(result: Result) -> bool:
    """Return whether the saved network is not the one that was trained last."""
    saved = torch.load(result.root / "checkpoints/version_0/last.ckpt", weights_only=True)
    trained = saved["current_model_state"]
    return any(not torch.equal(value, trained[name]) for name, value in saved["state_dict"].items())


LOGGERS: dict[str, Row] = {
    "CSVLogger": Row(
        "metrics.csv and hparams.yaml in `lightning_logs/version_N`, or below `save_dir` under the same number; "
        "appended when the run is resumed or tested",
        [
            Case("logger=CSVLogger --test_after_fit=true", lambda r: r.column("test_acc") and r.column("train_loss")),
            Case(
                "logger=CSVLogger --trainer.logger.save_dir=own --trainer.logger.name=x",
                lambda r: (r.root / "own/x/version_0/metrics.csv").is_file(),
            ),
        ],
    ),
    "TensorBoardLogger": Row(
        "events of Lightning's own form in `lightning_logs/version_N/TensorBoardLogger`, or below `save_dir`",
        [Case("logger=TensorBoardLogger", lambda r: (r.root / "lightning_logs/version_0/TensorBoardLogger").is_dir())],
    ),
    "WandbLogger": Row(
        "the run's folder and name; resumed and tested under the same id",
        [
            needs(
                "wandb",
                Case("logger=WandbLogger --trainer.logger.offline=true", lambda r: r.files("run-*.wandb")),
            )
        ],
    ),
    "MLFlowLogger": Row(
        "in `mlflow.db` of the folder that contains `lightning_logs`, unless `tracking_uri` or `save_dir` is set; "
        "resumed and tested under the same id",
        [needs("mlflow", Case("logger=MLFlowLogger", lambda r: r.files("mlflow.db") and r.files("loggers.json")))],
    ),
    "CometLogger": Row(
        "resumed and tested under the same key",
        [needs("comet_ml" if has("comet_ml") else "comet-ml", refused("logger=CometLogger", "API key"))],
    ),
    "LitLogger": Row(
        "refused: in Lightning 2.6.6 it is not a Logger of its own Trainer", [refused("logger=LitLogger", "LitLogger")]
    ),
    "Logger": Row("a base class; a subclass of your own", [refused("logger=Logger", "Logger")]),
}

TABLES = {"Trainer options": OPTIONS, "Callbacks": CALLBACKS, "Loggers": LOGGERS}


def page_tables() -> Iterable[str]:
    """Yield the tables of the page."""
    for title, rows in TABLES.items():
        lines = [f"| `{name}` | {row.says} |" for name, row in rows.items()]
        yield "\n".join([f"## {title}", "", "| name | here |", "|---|---|", *lines])


if __name__ == "__main__":
    print("\n\n".join(page_tables()))
