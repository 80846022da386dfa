"""`fit`, `validate` and `test`: LightningCLI, wired to run folders.

It finds the checkpoint and the saved config that a command works on, makes or reuses the run's folders, and hands
everything else to Lightning.
"""

import shutil
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from torch.utils import deterministic

from mnist_lightning import runs
from mnist_lightning.config_guard import check_files, guard_configs
from mnist_lightning.data.mnist import MNISTDataModule
from mnist_lightning.errors import CheckpointError, ConfigError
from mnist_lightning.option_parser import OptionParser, config_files
from mnist_lightning.training.callbacks import EarlyStopping, ProgressBar, RunReport, ScoreReport
from mnist_lightning.training.checkpoint import DurableCheckpointIO, RunCheckpoint, mend, replace_file
from mnist_lightning.training.classifier import Classifier
from mnist_lightning.training.divergence import DivergenceGuard
from mnist_lightning.training.memory import keep_freed_memory
from mnist_lightning.training.tensorboard import RunLogger
from mnist_lightning.training.trainer import AutoTrainer

CONFIG = "config.yaml"

# What decides which images an epoch serves, and in which order.
ORDER_OF_IMAGES = ("seed_everything", "data.batch_size", "data.val_size", "data.split_seed", "data.data_dir")


class SaveConfig(SaveConfigCallback):
    """Write the complete config of a training run into its log folder, for `fit --config` to use again.

    Args:
        parser: The parser of `fit`.
        config: What it parsed.
        folder: The run's log folder.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, folder: Path) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.folder = folder

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file; a resumed run's replaces the one from before."""
        replace_file(self.folder / CONFIG, self.parser.dump(self.config, skip_unset=False).encode())


class TrainerCLI(LightningCLI):
    """Parse a command and run it.

    Args:
        args: The command line, from the subcommand on.
    """

    def __init__(self, args: list[str]) -> None:
        self.located: runs.Located | None = None  # the checkpoint to start from or to score
        self.checkpoint: dict[str, Any] = {}  # its content
        self.run: runs.Run | None = None  # the run that is trained or scored
        self.made_run = False
        self.lock: FileLock | None = None
        guard_configs()
        # Filling fresh memory, which deterministic mode does to show mistakes, costs time at every step.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made at import by torch
        keep_freed_memory()
        try:
            super().__init__(
                Classifier,
                MNISTDataModule,
                save_config_callback=None,
                trainer_class=AutoTrainer,
                trainer_defaults={
                    "max_epochs": 20,
                    "deterministic": True,
                    "num_sanity_val_steps": 0,
                    "enable_model_summary": False,
                    "log_every_n_steps": 0,  # one point an epoch
                },
                seed_everything_default=0,
                parser_class=OptionParser,
                parser_kwargs={"prog": "python -m mnist_lightning", "allow_abbrev": False},
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,  # the hyper-parameters are plain values anyway
                args=args,
            )
        except BaseException:
            self._discard_empty_run()
            raise
        finally:
            if self.lock:
                self.lock.release()

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands and which arguments of the Trainer's methods are no options."""
        ours = {"model", "datamodule", "weights_only"}  # only weights are read, whoever asks
        return {
            "fit": ours | {"train_dataloaders", "val_dataloaders"},
            "validate": ours | {"dataloaders"},
            "test": ours | {"dataloaders"},
        }

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Build the parsers; Lightning's own result table is off, ours says more."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        for name in ("validate", "test"):
            self._subcommand_parsers[name].set_defaults({"verbose": False})

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed."""
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=self.seed_everything_default,
            help="Seed of the weights, the order of images and dropout, in [0, 2**32).",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that can be tuned by name."""
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: OptionParser, args: ArgsType) -> None:  # type: ignore[override]
        """Parse the command line; a command on a run starts from the config that the run saved."""
        assert isinstance(args, list)
        OptionParser.command_line = args
        check_files(config_files(args))
        try:
            config = parser.parse_args(args)
        except (UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"a file on the command line cannot be read as a config: {error}") from error
        command = config.subcommand
        options = config[command]
        check_seed(options.seed_everything)
        reference = options.ckpt_path or (None if command == "fit" else "best")
        if reference:
            self.located = runs.locate(reference, Path(options.trainer.default_root_dir or "."))
            self.checkpoint = runs.read_checkpoint(self.located.path)
            hparams = self._hyper_parameters()
            if not options.config:
                saved = self._saved_options(hparams)
                check_files(config_files(saved))
                config = parser.parse_args([command, *saved, *args[1:]])
            check_seed(config[command].seed_everything)
            # Out of Lightning's sight: it would let the checkpoint's hyper-parameters win over the command line.
            config[command].ckpt_path = None
        self.config = config
        if command == "fit" and reference and self.located and reference.split("/")[-1] == "last":
            self.run = self.located.run
            if self.run:
                self.lock = runs.lock(self.run)
                mend(self.run.checkpoints)
            self._exit_if_finished()
            self._tell_changes(parser)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the run's folders and a Trainer that writes into them."""
        options = self.config_init[self.subcommand]
        root = Path(options.trainer.default_root_dir or ".")
        if self.located:
            runs.check_weights(self.located.path, self.checkpoint, self.model.network.state_dict())
        extra: list[Callback] = []
        if self.subcommand != "fit":
            assert self.located
            self.run = self.located.run
            options.checkpoint.dirpath = str(self.located.path.parent)
            folder = self.run.logs if self.run else self.located.path.parent
            folder.mkdir(parents=True, exist_ok=True)
            extra.append(ScoreReport(self.located.path, folder, self.checkpoint["epoch"]))
            kwargs["precision"] = "32-true"  # a score does not depend on what the machine is fast at
        elif not options.trainer.fast_dev_run:
            if self.run is None:
                self.run, self.made_run = runs.create(root), True
            runs.check_writable(self.run)
            self.lock = self.lock or runs.lock(self.run)
            options.checkpoint.dirpath = str(self.run.checkpoints)
            self.save_config_callback = SaveConfig
            self.save_config_kwargs = {"folder": self.run.logs}
            extra += [RunReport(self.run), DivergenceGuard()]
        if options.trainer.logger in (None, True):
            kwargs["logger"] = self._logger()
        if options.trainer.enable_progress_bar in (None, True):
            kwargs["enable_progress_bar"] = sys.stderr.isatty()
            extra += [ProgressBar()] if sys.stderr.isatty() else []
        if self.datamodule.val_size == 0:
            kwargs["limit_val_batches"] = 0
        kwargs["plugins"] = [*(options.trainer.plugins or []), DurableCheckpointIO()]
        kwargs["callbacks"] = [*(options.trainer.callbacks or []), *extra]
        return super().instantiate_trainer(**kwargs)

    def _logger(self) -> RunLogger | bool:
        if self.run is None or self.subcommand == "validate":
            return False
        if self.subcommand == "test":
            return RunLogger(self.run.logs)
        if self.made_run:
            return RunLogger(self.run.logs, draw_graph=True)
        return RunLogger(self.run.logs, first_epoch=self._epochs_done())

    def before_fit(self) -> None:
        """Hand the checkpoint over."""
        self.config_init[self.subcommand]["ckpt_path"] = str(self.located.path) if self.located else None

    before_validate = before_test = before_fit

    def _hyper_parameters(self) -> dict[str, Any]:
        assert self.located
        hparams: Any = self.checkpoint.get("hyper_parameters")
        known = signature(Classifier).parameters.keys()
        named = isinstance(hparams, dict) and {"lr", "seed"} <= hparams.keys() <= known
        if named and all(isinstance(value, int | float | str) for value in hparams.values()):
            return dict(hparams)
        raise CheckpointError(f"{self.located.path} was not saved by this project's Classifier")

    def _saved_options(self, hparams: dict[str, Any]) -> list[str]:
        assert self.located
        saved = self.located.run.logs / CONFIG if self.located.run else None
        if saved and saved.is_file():
            return ["--config", str(saved)]
        options = [f"--model.{name}={value}" for name, value in hparams.items() if name != "seed"]
        return [*options, f"--seed_everything={hparams.get('seed', 0)}"]

    def _epochs_done(self) -> int:
        if not self.checkpoint:
            return 0
        return int(self.checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])

    def _exit_if_finished(self) -> None:
        options = self.config["fit"]
        assert self.run
        stopping: dict[str, Any] = next(
            (s for key, s in self.checkpoint["callbacks"].items() if key.startswith("EarlyStopping")), {}
        )
        patience = options.early_stopping.patience
        if self._epochs_done() >= (options.trainer.max_epochs or 0) >= 0:
            reason = f"trained {self._epochs_done()} epochs; a larger --trainer.max_epochs goes on"
        elif options.early_stopping.enabled and stopping.get("wait_count", 0) >= patience:
            reason = f"no better score in {patience} epochs; a larger --early_stopping.patience goes on"
        else:
            return
        print(f"{self.run.name} has finished: {reason}")
        sys.exit(0)

    def _tell_changes(self, parser: OptionParser) -> None:
        """Name each option that differs from those the run had so far; each is obeyed, or refused in mid-epoch."""
        assert self.run
        if not (self.run.logs / CONFIG).is_file():
            return
        before = flatten(yaml.safe_load((self.run.logs / CONFIG).read_text()))
        after = flatten(yaml.safe_load(parser.dump(self.config, skip_unset=False))["fit"])
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name), after.get(name)
            if old == new or name == "ckpt_path":
                continue
            if name in ORDER_OF_IMAGES and not self.checkpoint.get("metrics", {}).get("train_loss"):
                raise ConfigError(
                    f"{name} was {old} and cannot become {new} within an epoch: it decides what comes next"
                )
            print(f"{name}: {old} so far, {new} from here on")

    def _discard_empty_run(self) -> None:
        """Remove the folders of a run that failed before its first step, so that it is nobody's newest run."""
        trainer = getattr(self, "trainer", None)
        if self.made_run and self.run and not (trainer and trainer.global_step):
            shutil.rmtree(self.run.logs, ignore_errors=True)
            shutil.rmtree(self.run.checkpoints, ignore_errors=True)


def check_seed(seed: int) -> None:
    """Refuse a seed that numpy's generator does not take."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed_everything must be in [0, 2**32), got {seed}")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested dictionary's leaves by their dotted names.

    >>> flatten({"model": {"lr": 0.1}, "seed": 0})
    {'model.lr': 0.1, 'seed': 0}
    """
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves
