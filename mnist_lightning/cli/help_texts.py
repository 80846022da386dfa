"""The commands, and what `--help` shows of each.

The help of an option is its line in the docstring of the class that takes it: the model, the data module, the Trainer
or a callback. The commands that are not Lightning's describe their options in their own modules.
"""

HELP = """\
usage: python -m mnist_lightning COMMAND [OPTION ...]

Train, evaluate and use a classifier of images (MNIST, its variants, a folder of images) or of the rows of a table.

commands:
  fit        train a network; logs go to lightning_logs/version_N, checkpoints to checkpoints/version_N
  validate   evaluate a checkpoint on the validation images
  test       evaluate a checkpoint on the test images
  predict    predict the labels of images of digits, or of the rows of a .csv file
  export     write a trained network to an ONNX, pt2 or safetensors file, and check that its outputs are the same
  demo       serve a web page on this machine to draw digits on
             (without --ckpt_path, all of these use the best checkpoint of the newest run)
  repeat     train with several seeds; report mean and standard deviation
  compare    test whether two runs differ significantly in test accuracy
  sweep      search for good options with Optuna, over many runs
  doctor     check this machine: versions, device, data, folders

options:
  --help     show this text; after a command, show all its options
  --version  show the version
  --debug    with any command: show the traceback of an error

examples:
  python -m mnist_lightning fit --config configs/default.yaml
  python -m mnist_lightning fit --config configs/default.yaml --model.lr 3e-4 --trainer.max_epochs 5
  python -m mnist_lightning fit --ckpt_path last
  python -m mnist_lightning test
  python -m mnist_lightning fit --config configs/tabular.yaml --data.csv_file mine.csv --data.target species
  python -m mnist_lightning predict digit.png
  python -m mnist_lightning export --format onnx
  tensorboard --logdir lightning_logs
"""

COMMANDS = ("fit", "validate", "test")
# The other commands, each with the module whose `main` runs it.
OWN_COMMANDS = {
    "compare": "mnist_lightning.cli.compare",
    "demo": "mnist_lightning.inference.demo.command",
    "doctor": "mnist_lightning.cli.doctor",
    "export": "mnist_lightning.inference.export.command",
    "predict": "mnist_lightning.inference.predict.command",
    "repeat": "mnist_lightning.tuning.repeat",
    "sweep": "mnist_lightning.tuning.sweep",
}

# What `--help` of Lightning's commands shows around the options.
DESCRIPTIONS = {
    "fit": "Train a network; logs go to lightning_logs/version_N, checkpoints to checkpoints/version_N.",
    "validate": "Evaluate a checkpoint on the validation images.",
    "test": "Evaluate a checkpoint on the test images; write test.json, figures and report.html into its run.",
}
EXAMPLES = {
    "fit": "fit --config configs/default.yaml --model.lr 3e-4 --trainer.max_epochs 5",
    "validate": "validate --ckpt_path version_3/best",
    "test": "test --ckpt_path version_3/best",
}
CKPT_PATH_HELP = (
    "`last` or `best` of the newest run, `version_3/last`, `version_3/best`, or the path of a checkpoint file. "
    "From `last`, `fit` resumes the run in its own folders; from any other checkpoint, it starts a new run."
)
