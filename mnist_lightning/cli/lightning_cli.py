"""`fit`, `validate` and `test`: LightningCLI with this project's options, run folders and callbacks."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from torch.utils import deterministic

from mnist_lightning.cli.data_kinds import OPTION, PAIRS, DataKind, kind_of_command
from mnist_lightning.cli.parser import OptionParser, describe
from mnist_lightning.cli.resume import changed_options, check_dataset, why_finished
from mnist_lightning.cli.run_session import RunSession
from mnist_lightning.cli.safe_yaml import guard_configs
from mnist_lightning.cli.saved_config import Change, SaveConfig, saved_options
from mnist_lightning.console import printable
from mnist_lightning.errors import ConfigError, UserError
from mnist_lightning.models.class_path import resolve
from mnist_lightning.runs import run_folders, verification
from mnist_lightning.training.callbacks.calibrator import Calibrator
from mnist_lightning.training.callbacks.divergence_guard import DivergenceGuard
from mnist_lightning.training.callbacks.early_stopping import EarlyStopping
from mnist_lightning.training.callbacks.exact_resume import ExactResume
from mnist_lightning.training.callbacks.figures import TensorBoardFigures
from mnist_lightning.training.callbacks.progress_bar import ProgressBar
from mnist_lightning.training.callbacks.result_writer import ResultWriter
from mnist_lightning.training.callbacks.run_checkpoint import RunCheckpoint
from mnist_lightning.training.callbacks.run_summary import RunSummary
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO
from mnist_lightning.training.distributed import is_first
from mnist_lightning.training.lightning_patches import subcommand_parser
from mnist_lightning.training.logger import quiet_event_writer
from mnist_lightning.training.memory import keep_freed_memory
from mnist_lightning.training.trainer import AutoTrainer


class TrainerCLI(LightningCLI):
    """Parse a command line and run its subcommand.

    Args:
        args: The command line, from the subcommand on.
        callbacks: Callbacks in addition to those that the options name.
    """

    def __init__(self, args: list[str], callbacks: Sequence[Callback] = ()) -> None:
        self.command = args[0]
        self.callbacks = callbacks
        self.session = RunSession(self.command)
        self.changed: list[Change] = []  # options that differ from those that the checkpoint was trained with
        guard_configs()
        # Gradients of a trained network are below 1e-38, where Intel's CPUs are slow. Threads inherit the setting, so
        # it is made before torch starts them.
        torch.set_flush_denormal(True)
        self.data_kind = kind_of_command(args)
        self.pair = PAIRS[self.data_kind]
        # Filling fresh memory, which deterministic mode does to expose bugs, costs time at every step.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made at import by torch
        keep_freed_memory()
        try:
            with quiet_event_writer():
                super().__init__(
                    self.pair.model,
                    self.pair.data,
                    save_config_callback=None,
                    trainer_class=AutoTrainer,
                    trainer_defaults={
                        "max_epochs": 20,
                        "deterministic": True,
                        "num_sanity_val_steps": 0,
                        "enable_model_summary": False,
                        "log_every_n_steps": 0,  # log once an epoch
                    },
                    seed_everything_default=0,
                    parser_class=OptionParser,
                    parser_kwargs={"prog": "python -m mnist_lightning", "allow_abbrev": False},
                    auto_configure_optimizers=False,
                    load_from_checkpoint_support=False,  # the hyper-parameters are plain values anyway
                    args=args,
                )
        except BaseException:
            self.session.discard_empty_run()
            raise
        finally:
            torch.set_flush_denormal(False)
            self.session.close()

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in LightningCLI
        """Return the subcommand, with the arguments of the Trainer's method that are not options.

        Only the one on this command line: each parser takes a quarter of a second to build.
        """
        skipped = {"model", "datamodule", "weights_only"}  # checkpoints are always read with weights_only
        loaders = {"train_dataloaders", "val_dataloaders"} if self.command == "fit" else {"dataloaders"}
        return {self.command: skipped | loaders}

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Build the parsers, and describe the subcommand."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        describe(subcommand_parser(self, self.command), self.command)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed."""
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=self.seed_everything_default,
            help="Seed of the weights, the order of images and dropout, in [0, 2**32).",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks with options of their own, and link what the data and the seed determine."""
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(TensorBoardFigures, "tensorboard")
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="Whether `fit` ends with `test` of the best checkpoint.",
        )
        parser.add_argument(
            f"--{OPTION}", type=DataKind, default=self.data_kind, help="Kind of data, which determines the options."
        )
        for name in self.pair.from_data:
            compute = partial(self._model_argument, name)
            parser.link_arguments("data", f"model.{name}", compute_fn=compute, apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed")

    def _model_argument(self, name: str, data: Any) -> int:
        """Return an argument of the model that the data determine, or the checkpoint that is resumed or evaluated."""
        if self.session.checkpoint:
            data.restore(self.session.checkpoint.get("inputs"))
        value: int = data.model_arguments[name]
        return value

    def parse_arguments(self, parser: OptionParser, args: ArgsType) -> None:  # type: ignore[override]
        """Parse the command line; the options of a checkpoint's run are the defaults unless --config is given."""
        assert isinstance(args, list)
        self.config = parser.parse_command(args)
        options = self.config[self.command]
        reference = options.ckpt_path or (None if self.command == "fit" else "best")
        if not reference:
            return
        located = self.session.open_checkpoint(reference, Path(options.trainer.default_root_dir or "."))
        checkpoint = self.session.checkpoint
        if not options.config:
            saved = saved_options(located, checkpoint)
            self.config = parser.parse_command([self.command, *saved, *args[1:]])
            options = self.config[self.command]
        # If Lightning saw it, the checkpoint's hyper-parameters would override the command line.
        options.ckpt_path = None
        check_dataset(located, checkpoint, options.data)
        if self.command == "fit":
            verification.check_resumable(located.path, checkpoint)
            self._exit_if_finished(located, options)
            now = yaml.safe_load(parser.dump(self.config, skip_unset=False))["fit"]
            self.changed = changed_options(located, checkpoint, now)
            for change in self.changed if is_first() else []:
                print(printable(f"{change.name}: changed from {change.old} to {change.new}"))

    def _exit_if_finished(self, located: run_folders.Located, options: Namespace) -> None:
        if reason := why_finished(self.session.checkpoint, options):
            self.session.repair()
            if is_first():
                print(f"{self.session.run.name if self.session.run else located.path} has finished: {reason}")
            sys.exit(0)

    def instantiate_classes(self) -> None:
        """Create the data module, the model and the Trainer; the model creates its network."""
        model = self.config[self.command].model
        if isinstance(network := model.network, Namespace):
            model.network = partial(resolve(network.as_dict()), **network.init_args)
        try:
            super().instantiate_classes()
        except ValueError as error:  # jsonargparse wraps an error of the data module in a link of arguments
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise
        finally:
            model.network = network  # in the config that is saved

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the Trainer, and the folders of the run that it writes into."""
        options = self.config_init[self.command]
        if located := self.session.located:
            state_dict = self.model.network.state_dict()
            verification.check_weights(located.path, self.session.checkpoint, state_dict)
            self.session.repair()
        if self.command == "fit":
            callbacks = [] if options.trainer.fast_dev_run else self._fit_callbacks(options)
        else:
            assert located
            options.checkpoint.dirpath = str(located.path.parent)
            folder = self.session.prepare_evaluation()
            callbacks = [ResultWriter(located, self.session.checkpoint, folder)]
            kwargs["precision"] = "32-true"  # a score does not depend on the device's fastest precision
        if options.trainer.logger in (None, True):
            kwargs["logger"] = self.session.logger()
        if options.trainer.enable_progress_bar in (None, True):
            kwargs["enable_progress_bar"] = sys.stderr.isatty()
            refresh_rate = 20 if self.command == "fit" else 1  # the batches of an evaluation are large
            callbacks += [ProgressBar(refresh_rate)] if sys.stderr.isatty() else []
        if self.datamodule.hparams.get("val_size") == 0:
            kwargs["limit_val_batches"] = 0
        kwargs["plugins"] = [*(options.trainer.plugins or []), DurableCheckpointIO()]
        kwargs["callbacks"] = [*(options.trainer.callbacks or []), *callbacks, *self.callbacks]
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, RuntimeError, ImportError) as error:
            raise ConfigError(f"the Trainer cannot be created with these options: {error}") from error

    def _fit_callbacks(self, options: Namespace) -> list[Callback]:
        """Return the callbacks of training; the first process also prepares the run and saves the config."""
        callbacks: list[Callback] = [ExactResume(options.seed_everything)]
        if is_first():
            run = self.session.prepare_fit(Path(options.trainer.default_root_dir or "."))
            options.checkpoint.dirpath = str(run.checkpoints)  # Lightning sends it to the other processes
            self.save_config_callback = SaveConfig
            step = self.session.checkpoint.get("global_step", 0)
            self.save_config_kwargs = {"folder": run.logs, "changed": self.changed, "step": step}
            callbacks.append(RunSummary(run))
        return [*callbacks, DivergenceGuard(), Calibrator()]

    def before_fit(self) -> None:
        """Give Lightning the path of the checkpoint."""
        located = self.session.located
        self.config_init[self.command]["ckpt_path"] = str(located.path) if located else None

    before_validate = before_test = before_fit

    def after_fit(self) -> None:
        """Check that something was trained; test it if requested."""
        if self.trainer.global_step == self.session.checkpoint.get("global_step", 0):
            raise ConfigError(
                "nothing was trained: trainer.max_epochs, max_steps, max_time or limit_train_batches leaves no step"
            )
        run = self.trainer.strategy.broadcast(self.session.run)
        if self.config_init["fit"].test_after_fit and run:
            TrainerCLI(["test", "--ckpt_path", f"{run.name}/best", f"--trainer.default_root_dir={run.root}"])

    def after_validate(self) -> None:
        """Check that something was scored."""
        if self.model.score is None:
            cause = "data.val_size or trainer.limit_val_batches" if self.command == "validate" else "a limit"
            raise ConfigError(f"{self.command} has no images to score: {cause} leaves none")

    after_test = after_validate
