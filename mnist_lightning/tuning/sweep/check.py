"""Whether `fit` would take the trials of a sweep, found out before the first one."""

from typing import Any

from mnist_lightning.cli.lightning_cli import TrainerCLI
from mnist_lightning.errors import ConfigError
from mnist_lightning.tuning.sweep.plan import Plan


class OptionCheck(TrainerCLI):
    """Read a command line of `fit` as `fit` does, make what its options describe, and train nothing."""

    def _set_seed(self) -> None:
        """Do nothing: nothing is drawn, and Lightning would say that it set a seed."""

    def instantiate_classes(self) -> None:
        """Make the network, the data and the callbacks, which look at their options; no Trainer, no run."""
        self.config_init = self.parser.instantiate_classes(self.config)

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing."""


def check_trials(plan: Plan) -> None:
    """Check the options of trials at the ends of every range, and with every choice.

    Raises:
        ConfigError: If `fit` would refuse one; what its parser refuses exits with 2.
    """
    for params in plan.corners():
        check = OptionCheck(plan.command_line(params))
        options = check.config["fit"]
        if check.located:
            raise ConfigError(f"{plan.fit['config']} starts from a checkpoint; the trials of a sweep do not")
        if options.trainer.fast_dev_run:
            raise ConfigError("trainer.fast_dev_run leaves no run behind, which a sweep could choose")
        if not validates(options):
            raise ConfigError(
                "a sweep needs validation images to choose by: data.val_size or trainer.limit_val_batches leaves none"
            )


def validates(options: Any) -> bool:
    """Tell whether a training with these options validates."""
    return 0 not in (options.data.get("val_size"), options.trainer.limit_val_batches)
