"""OptionsCLI: the options of `fit`, `validate` and `test`, as a LightningCLI that TrainerCLI runs."""

from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from mnist_lightning.cli.data_kinds import OPTION, PAIRS, DataKind, kind_of_command
from mnist_lightning.cli.parser import OptionParser, describe
from mnist_lightning.cli.resume import with_checkpoint
from mnist_lightning.cli.run_session import RunSession
from mnist_lightning.cli.safe_yaml import guard_configs
from mnist_lightning.cli.saved_config import Change
from mnist_lightning.training.callbacks.early_stopping import RunEarlyStopping
from mnist_lightning.training.callbacks.figures import TensorBoardFigures
from mnist_lightning.training.callbacks.run_checkpoint import RunCheckpoint
from mnist_lightning.training.lightning_patches import subcommand_parser
from mnist_lightning.training.trainer import AutoTrainer

TRAINER_DEFAULTS = {
    "max_epochs": 20,
    "deterministic": True,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 0,  # log once an epoch
}


class OptionsCLI(LightningCLI):
    """Define and parse the options of one subcommand.

    Args:
        args: The command line, from the subcommand on.
        session: The run and the checkpoint that the command works on.
    """

    def __init__(self, args: list[str], session: RunSession) -> None:
        self.command, self.session = args[0], session
        self.changed: list[Change] = []  # options that differ from those that the checkpoint was trained with
        guard_configs()
        self.data_kind = kind_of_command(args)
        self.pair = PAIRS[self.data_kind]
        super().__init__(
            self.pair.model,
            self.pair.data,
            save_config_callback=None,
            trainer_class=AutoTrainer,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_class=OptionParser,
            parser_kwargs={"prog": "python -m mnist_lightning", "allow_abbrev": False},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # the hyper-parameters are plain values anyway
            args=args,
        )

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
        parser.add_lightning_class_args(RunEarlyStopping, "early_stopping")
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
        if reference := options.ckpt_path or (None if self.command == "fit" else "best"):
            self.session.open_checkpoint(reference, Path(options.trainer.default_root_dir or "."))
            self.config, self.changed = with_checkpoint(self.session, parser, args, self.config)
