"""`fit`, `validate` and `test`: LightningCLI, wired to run folders.

It finds the checkpoint and the saved config that a command works on, makes or reuses the run's folders, and hands
everything else to Lightning.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from torch.utils import deterministic

from mnist_lightning.cli.changes import Change
from mnist_lightning.cli.config import check_files, guard_configs
from mnist_lightning.cli.parser import OptionParser, config_files
from mnist_lightning.cli.resume import changed_options, check_dataset, why_finished
from mnist_lightning.cli.saved_config import SaveConfig, saved_options
from mnist_lightning.cli.tasks import OPTION, PAIRS, DataKind, kind_of_command
from mnist_lightning.cli.validation import check_options
from mnist_lightning.console import printable
from mnist_lightning.errors import ConfigError, UserError
from mnist_lightning.runs import run_folders, verification
from mnist_lightning.training.callbacks.calibrator import Calibrator
from mnist_lightning.training.callbacks.divergence_guard import DivergenceGuard
from mnist_lightning.training.callbacks.early_stopping import EarlyStopping
from mnist_lightning.training.callbacks.exact_resume import KEY as RESUME
from mnist_lightning.training.callbacks.exact_resume import ExactResume
from mnist_lightning.training.callbacks.figures import Dashboard
from mnist_lightning.training.callbacks.progress_bar import ProgressBar
from mnist_lightning.training.callbacks.run_checkpoint import RunCheckpoint
from mnist_lightning.training.callbacks.run_summary import RunSummary
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO, repair
from mnist_lightning.training.distributed import is_first
from mnist_lightning.training.logger import TEST_SUFFIX, RunLogger, quiet_event_writer, truncate_events
from mnist_lightning.training.memory import keep_freed_memory
from mnist_lightning.training.trainer import AutoTrainer

DESCRIPTIONS = {
    "fit": "Train; the run goes to lightning_logs/version_N and checkpoints/version_N.",
    "validate": "Score a checkpoint on the validation images.",
    "test": "Score a checkpoint on the test images, and write test.json, figures and report.html into its run.",
}
EXAMPLES = {
    "fit": "fit --config configs/default.yaml --model.lr 3e-4 --trainer.max_epochs 5",
    "validate": "validate --ckpt_path version_3/best",
    "test": "test --ckpt_path version_3/best",
}

CKPT_PATH_HELP = (
    "`last` or `best` of the newest run, `version_3/last`, `version_3/best`, or the path of a checkpoint file. "
    "`fit` goes on in the run's own folders from `last`, and in a run of its own from any other."
)


class TrainerCLI(LightningCLI):
    """Parse a command and run it.

    Args:
        args: The command line, from the subcommand on.
        callbacks: What else watches, besides what the options name.
    """

    def __init__(self, args: list[str], callbacks: Sequence[Callback] = ()) -> None:
        self.command = args[0]
        self.callbacks = callbacks
        self.located: run_folders.Located | None = None  # the checkpoint to start from or to score
        self.checkpoint: dict[str, Any] = {}  # its content
        self.run: run_folders.Run | None = None  # the run that is trained or scored, for the process that writes it
        self.made_run = False
        self.changed: list[Change] = []  # options that differ from those that the checkpoint was trained with
        self.lock: FileLock | None = None
        guard_configs()
        # Before torch makes its threads, which do as the one that makes them. A network that has learnt its images has
        # gradients below 1e-38, and Intel's processors take far longer over each of those.
        torch.set_flush_denormal(True)
        self.data_kind = kind_of_command(args)
        self.pair = PAIRS[self.data_kind]
        # Filling fresh memory, which deterministic mode does to show mistakes, costs time at every step.
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
            torch.set_flush_denormal(False)
            if self.lock:
                self.lock.release()

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in LightningCLI
        """Return the command and which arguments of the Trainer's method are no options.

        Only that of this command line: a parser takes a quarter of a second to make.
        """
        ours = {"model", "datamodule", "weights_only"}  # only weights are read, whoever asks
        loaders = {"train_dataloaders", "val_dataloaders"} if self.command == "fit" else {"dataloaders"}
        return {self.command: ours | loaders}

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Build the parsers; Lightning's own result table is off, ours says more."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        for name, subparser in self._subcommand_parsers.items():
            if name != "fit":
                subparser.set_defaults({"verbose": False})
            subparser.description = DESCRIPTIONS[name]
            subparser.epilog = f"example: python -m mnist_lightning {EXAMPLES[name]}"
            next(action for action in subparser._actions if action.dest == "ckpt_path").help = CKPT_PATH_HELP

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
        parser.add_lightning_class_args(Dashboard, "tensorboard")
        parser.add_argument(
            "--test_after_fit", type=bool, default=False, help="Whether `fit` ends with `test` of the run's best."
        )
        parser.add_argument(
            f"--{OPTION}", type=DataKind, default=self.data_kind, help="What is trained on, which decides the options."
        )
        for name in self.pair.from_data:
            compute = partial(self._said_by_data, name)
            parser.link_arguments("data", f"model.{name}", compute_fn=compute, apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed")

    def _said_by_data(self, name: str, data: Any) -> int:
        """Return an argument of the model that the data say; a checkpoint's network keeps the form it was made for."""
        if self.checkpoint:
            data.restore(self.checkpoint.get("inputs"))
        said: int = data.model_arguments[name]
        return said

    def parse_arguments(self, parser: OptionParser, args: ArgsType) -> None:  # type: ignore[override]
        """Parse the command line; a command on a run starts from the config that the run saved."""
        assert isinstance(args, list)
        config = self._parse(parser, args)
        command, options = config.subcommand, config[config.subcommand]
        if reference := options.ckpt_path or (None if command == "fit" else "best"):
            root = Path(options.trainer.default_root_dir or ".")
            if is_first() and command == "fit" and reference.split("/")[-1] == "last":
                self.run = run_folders.named(reference, root)
                self.lock = run_folders.lock(self.run)
            self.located = run_folders.locate(reference, root)
            self.checkpoint = verification.read_checkpoint(self.located.path)
            saved = saved_options(self.located, self.checkpoint)
            if not options.config:
                config = self._parse(parser, [command, *saved, *args[1:]])
            # Out of Lightning's sight: it would let the checkpoint's hyper-parameters win over the command line.
            config[command].ckpt_path = None
        self.config = config
        if self.located:
            check_dataset(self.located, self.checkpoint, config[command].data)
            if command == "fit":
                self._go_on(self.located, parser)

    def _go_on(self, located: run_folders.Located, parser: OptionParser) -> None:
        """Exit where nothing is left to train; else name each option that is not what it was."""
        verification.check_resumable(located.path, self.checkpoint)
        if reason := why_finished(self.checkpoint, self.config["fit"]):
            self._mend_run()
            if is_first():
                print(f"{self.run.name if self.run else located.path} has finished: {reason}")
            sys.exit(0)
        now = yaml.safe_load(parser.dump(self.config, skip_unset=False))["fit"]
        self.changed = changed_options(located, self.checkpoint, now)
        for change in self.changed if is_first() else []:
            print(printable(f"{change.name}: {change.old} so far, {change.new} from here on"))

    @staticmethod
    def _parse(parser: OptionParser, args: list[str]) -> Namespace:
        OptionParser.command_line = args
        check_files(config_files(args))
        try:
            config = parser.parse_args(args)
        except (UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"a file on the command line cannot be read as a config: {error}") from error
        check_options(config[config.subcommand], args)
        return config

    def instantiate_classes(self) -> None:
        """Make datamodule, model and Trainer; the parser wraps what the data refuse while the model is told of them."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the run's folders and a Trainer that writes into them."""
        options = self.config_init[self.subcommand]
        root = Path(options.trainer.default_root_dir or ".")
        if self.located:
            verification.check_weights(self.located.path, self.checkpoint, self.model.network.state_dict())
            self._mend_run()
        extra: list[Callback] = []
        if self.subcommand != "fit":
            assert self.located
            options.checkpoint.dirpath = str(self.located.path.parent)
            folder = self.located.run.logs if self.located.run else self.located.path.parent
            if is_first():
                self.run = self.located.run
                folder.mkdir(parents=True, exist_ok=True)
            extra.append(self.pair.score_report(self.located, self.checkpoint, folder))
            kwargs["precision"] = "32-true"  # a score does not depend on what the machine is fast at
        elif not options.trainer.fast_dev_run:
            extra.append(ExactResume(options.seed_everything))
            if is_first():
                extra.append(RunSummary(self._prepare_run(root)))
            extra += [DivergenceGuard(), Calibrator()]
        if options.trainer.logger in (None, True):
            kwargs["logger"] = self._logger()
        if options.trainer.enable_progress_bar in (None, True):
            kwargs["enable_progress_bar"] = sys.stderr.isatty()
            refresh_rate = 20 if self.subcommand == "fit" else 1  # an evaluation's batches are large
            extra += [ProgressBar(refresh_rate)] if sys.stderr.isatty() else []
        if self.datamodule.hparams.get("val_size") == 0:
            kwargs["limit_val_batches"] = 0
        kwargs["plugins"] = [*(options.trainer.plugins or []), DurableCheckpointIO()]
        kwargs["callbacks"] = [*(options.trainer.callbacks or []), *extra, *self.callbacks]
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, RuntimeError, ImportError) as error:
            raise ConfigError(f"the Trainer cannot be made with these options: {error}") from error

    def _prepare_run(self, root: Path) -> run_folders.Run:
        """Make the run's folders, or see that those there can be written, and let what trains write there."""
        if self.run is None:
            self.run, self.made_run = run_folders.create(root), True
        run_folders.check_writable(self.run)
        self.lock = self.lock or run_folders.lock(self.run)
        self.config_init[self.subcommand].checkpoint.dirpath = str(self.run.checkpoints)  # Lightning tells the others
        self.save_config_callback = SaveConfig
        step = self.checkpoint.get("global_step", 0)
        self.save_config_kwargs = {"folder": self.run.logs, "changed": self.changed, "step": step}
        return self.run

    def _logger(self) -> RunLogger | bool:
        if self.run is None or self.subcommand == "validate":
            return False
        if self.subcommand == "test":
            return RunLogger(self.run.logs, filename_suffix=TEST_SUFFIX)
        if not self.made_run:
            truncate_events(self.run.logs, self.checkpoint.get(RESUME, {}).get("event_files", {}))
        return RunLogger(self.run.logs, draw_graph=self.made_run)

    def before_validate(self) -> None:
        """Hand the checkpoint over."""
        self.config_init[self.subcommand]["ckpt_path"] = str(self.located.path) if self.located else None

    before_fit = before_test = before_validate

    def after_fit(self) -> None:
        """See that something was trained, and test it if that was asked for."""
        if self.trainer.global_step == self.checkpoint.get("global_step", 0):
            raise ConfigError(
                "nothing was trained: trainer.max_epochs, max_steps, max_time or limit_train_batches leaves no step"
            )
        run = self.trainer.strategy.broadcast(self.run)
        if self.config_init["fit"].test_after_fit and run:
            TrainerCLI(["test", "--ckpt_path", f"{run.name}/best", f"--trainer.default_root_dir={run.root}"])

    def after_validate(self) -> None:
        """See that something was scored."""
        if self.model.score is None:
            cause = "data.val_size or trainer.limit_val_batches" if self.subcommand == "validate" else "a limit"
            raise ConfigError(f"{self.subcommand} has no images to score: {cause} leaves none")

    after_test = after_validate

    def _mend_run(self) -> None:
        """Let the run that goes on catch up with what a kill between a checkpoint and its copies left undone."""
        if self.command == "fit" and self.run:
            repair(self.run.checkpoints)

    def _discard_empty_run(self) -> None:
        """Remove the folders of a run that saved nothing, so that it is nobody's newest run."""
        if self.made_run and self.run and not any(self.run.checkpoints.glob("*.ckpt")):
            run_folders.discard(self.run)
