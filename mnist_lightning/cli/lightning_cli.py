"""TrainerCLI: LightningCLI that runs `fit`, `validate` and `test` in run folders, with this project's callbacks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer

from mnist_lightning.cli.options import OptionsCLI
from mnist_lightning.cli.resume import check_trained
from mnist_lightning.cli.run_session import RunSession
from mnist_lightning.cli.saved_config import SaveConfig
from mnist_lightning.errors import ConfigError
from mnist_lightning.runs import checkpoint_verification
from mnist_lightning.training.callbacks.calibrator import Calibrator
from mnist_lightning.training.callbacks.divergence_guard import DivergenceGuard
from mnist_lightning.training.callbacks.exact_resume import ExactResume
from mnist_lightning.training.callbacks.progress_bar import RunProgressBar
from mnist_lightning.training.callbacks.result_writer import ResultWriter
from mnist_lightning.training.callbacks.run_summary import DevRunSummary, RunSummary
from mnist_lightning.training.callbacks.schedule_change import ScheduleChange
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO
from mnist_lightning.training.distributed import is_first
from mnist_lightning.training.lightning_patches import default_arguments, jsonargparse_unchanged
from mnist_lightning.training.logger import quiet_event_writer
from mnist_lightning.training.memory import fast_memory
from mnist_lightning.training.trainer_options import as_list, without_finders


class TrainerCLI(OptionsCLI):
    """Parse a command line and run its subcommand.

    Args:
        args: The command line, from the subcommand on.
        callbacks: Callbacks in addition to those that the options name.
    """

    def __init__(self, args: list[str], callbacks: Sequence[Callback] = ()) -> None:
        self.callbacks = callbacks
        patches = jsonargparse_unchanged(), default_arguments()
        with patches[0], patches[1], RunSession(args[0]) as session, fast_memory(), quiet_event_writer():
            super().__init__(args, session)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the Trainer, and the folders of the run that it writes into."""
        options = self.config_init[self.command]
        if located := self.session.located:
            checkpoint_verification.check_weights(located.path, self.session.checkpoint, self.model.state_dict())
            self.session.repair()
        if self.command == "fit":
            callbacks = self._fit_callbacks(options)
        else:
            assert located
            options.checkpoint.dirpath = str(located.path.parent)
            folder = self.session.prepare_evaluation()
            callbacks = [ResultWriter(located, self.session.checkpoint, folder)]
            kwargs["precision"] = "32-true"  # a score does not depend on the device's fastest precision
        kwargs["logger"] = self.session.loggers(options.trainer)
        callbacks.append(RunProgressBar(20 if self.command == "fit" else 1))  # the batches of an evaluation are large
        if self.datamodule.hparams.get("val_size") == 0:
            kwargs["limit_val_batches"] = 0
        kwargs["plugins"] = [*as_list(options.trainer.plugins), DurableCheckpointIO()]
        given = as_list(options.trainer.callbacks)
        kwargs["callbacks"] = [*(without_finders(given) if located else given), *callbacks, *self.callbacks]
        return super().instantiate_trainer(**kwargs)

    def _fit_callbacks(self, options: Namespace) -> list[Callback]:
        """Return the callbacks of training; the first process also prepares the run and saves the config."""
        if options.trainer.fast_dev_run:
            return [DevRunSummary()]
        callbacks: list[Callback] = [ExactResume(options.seed_everything), ScheduleChange()]
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
        check_trained(self.session, self.trainer)
        run = self.trainer.strategy.broadcast(self.session.run)
        if self.config_init["fit"].test_after_fit and run:
            TrainerCLI(["test", "--ckpt_path", f"{run.name}/best", f"--trainer.default_root_dir={run.root}"])

    def after_validate(self) -> None:
        """Check that something was scored."""
        if not self.trainer.callback_metrics:
            raise ConfigError(f"{self.command} has no images to score: data.val_size or a Trainer limit leaves none")

    after_test = after_validate
