"""OptionsCLI: the options of `fit`, `validate` and `test`, as a LightningCLI that TrainerCLI runs."""

from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from mnist_lightning.cli.class_errors import class_message
from mnist_lightning.cli.classes import Classes, determined_by
from mnist_lightning.cli.parser import OptionParser, describe
from mnist_lightning.cli.resume import with_checkpoint
from mnist_lightning.cli.run_session import RunSession
from mnist_lightning.cli.safe_yaml import guard_configs
from mnist_lightning.cli.saved_config import Change
from mnist_lightning.data.datamodule import ClassificationDataModule
from mnist_lightning.errors import ConfigError, UserError
from mnist_lightning.models.class_path import import_object
from mnist_lightning.training.callbacks.early_stopping import RunEarlyStopping
from mnist_lightning.training.callbacks.figures import TensorBoardFigures
from mnist_lightning.training.callbacks.run_checkpoint import RunCheckpoint
from mnist_lightning.training.classifier import Classifier
from mnist_lightning.training.lightning_patches import subcommand_parser
from mnist_lightning.training.run_loggers import in_run
from mnist_lightning.training.trainer import AutoTrainer

TRAINER_DEFAULTS = {
    "max_epochs": 20,
    "deterministic": True,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 0,  # log once an epoch
}

BUILT_BY_MODEL = ("network", "optimizer", "lr_scheduler", "metrics")  # a Classifier's options that name classes


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
        self.classes = Classes(args)
        super().__init__(
            self.classes.model,
            self.classes.data,
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
        parser = subcommand_parser(self, self.command)
        describe(parser, self.command)
        for each in (self.parser, parser):
            assert isinstance(each, OptionParser)
            each.class_paths = self.classes.paths

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
        options = parser.get_defaults(skip_validation=True)
        for name in determined_by(self.classes.data):
            if f"model.{name}" in options:
                compute = partial(self._model_argument, name)
                parser.link_arguments("data", f"model.{name}", compute_fn=compute, apply_on="instantiate")
        if "data.seed" in options:
            parser.link_arguments("seed_everything", "data.seed")

    def _model_argument(self, name: str, data: Any) -> Any:
        """Return an argument of the model that the data determine, or the checkpoint that is resumed or evaluated."""
        if not isinstance(data, ClassificationDataModule):
            return getattr(data, name)
        if self.session.checkpoint:
            data.restore(self.session.checkpoint.get("inputs"))
        return data.model_arguments[name]

    def parse_arguments(self, parser: OptionParser, args: ArgsType) -> None:  # type: ignore[override]
        """Parse the command line; the options of a checkpoint's run are the defaults unless --config is given."""
        assert isinstance(args, list)
        self.config = parser.parse_command(args)
        options = self.config[self.command]
        self._check_trainer(options.trainer)
        if reference := options.ckpt_path or (None if self.command == "fit" else "best"):
            self.session.open_checkpoint(reference, Path(options.trainer.default_root_dir or "."))
            self.config, self.changed = with_checkpoint(self.session, parser, args, self.config)

    def _check_trainer(self, trainer: Namespace) -> None:
        """Refuse options of the Trainer that have no effect on these commands or on this data module."""
        if trainer.limit_predict_batches is not None:
            raise ConfigError(
                "trainer.limit_predict_batches has no effect: no command runs Trainer.predict; `predict` labels the "
                "files that it is given"
            )
        if not trainer.use_distributed_sampler and issubclass(self.classes.data, ClassificationDataModule):
            raise ConfigError(
                f"trainer.use_distributed_sampler has no effect: {self.classes.data.__name__} itself divides the "
                "samples among the processes"
            )

    def instantiate_classes(self) -> None:
        """Create the data module, the model and the Trainer; a Classifier creates what `BUILT_BY_MODEL` names."""
        model = self.config[self.command].model
        names = BUILT_BY_MODEL if issubclass(self.classes.model, Classifier) else ()
        named = {name: model[name] for name in names if name in model}
        for name, value in named.items():
            model[name] = _unbuilt(value)
        try:
            with in_run(self.config[self.command].trainer, *self.session.place_of_loggers(self.config[self.command])):
                super().instantiate_classes()
        except ValueError as error:  # jsonargparse wraps an error of the data module in a link of arguments
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            if message := class_message(str(error), OptionParser.command_line):
                raise ConfigError(message) from None
            raise
        finally:
            vars(model).update(named)  # in the config that is saved


def _unbuilt(value: Any) -> Any:
    """Return the value of an option with a `functools.partial` for each class in it."""
    if isinstance(value, Namespace):
        return partial(import_object(value.class_path), **value.get("init_args", {}))
    if isinstance(value, list):
        return [_unbuilt(each) for each in value]
    return {name: _unbuilt(each) for name, each in value.items()} if isinstance(value, dict) else value
