"""Configs that are wrong or made by an attacker: exit code 2, a few lines that name the error, and no side effects."""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import mnist_lightning.cli.lightning_cli  # noqa: F401  # so that the memory that imports take is not measured
from tests.conftest import Command, Outcome
from tests.faults.trials import TRIALS
from tests.faults.watch import listing, unharmed

DECOY = "decoy_of_an_attack"  # a module in the working folder that a config could name; importing it creates a file
NOWHERE = (
    "--data.data_dir",
    "nowhere",
    "--data.source",
    "files",
)  # an accepted config ends with exit code 4

BAD_TAG = "is not YAML: could not determine a constructor for the tag"
TAGGED = 'lr: !!python/object/apply:os.system ["touch stolen"]\n'
BINARY = bytes(range(256)) * 10


def callback(class_path: str, **init_args: object) -> str:
    return yaml.safe_dump({"trainer": {"callbacks": [{"class_path": class_path, "init_args": init_args}]}})


LAMBDA_CALLBACK = "lightning.pytorch.callbacks.LambdaCallback"

CONFIGS: dict[str, tuple[str | bytes, str]] = {  # a config, and what the message has to contain
    # Keys.
    "unknown-key": ("model:\n  lrr: 1\n", "model.lrr in bad.yaml, line 2; did you mean --model.lr?"),
    "unknown-group": ("modle:\n  lr: 1\n", "modle"),
    "unknown-trainer-key": ("trainer:\n  max_epoch: 1\n", "--trainer.max_epochs"),
    "key-is-a-number": ("1: 2\n", "bad.yaml contains no options"),
    "key-is-null": ("~: 2\n", "bad.yaml contains no options"),
    "only-key-is-a-number": ("1:\n", "bad.yaml is not YAML"),
    "only-key-is-null": (" \n?", "bad.yaml is not YAML"),
    "group-has-a-number-for-a-key": ("data:\n  1: 3\n", "bad.yaml: data must contain options, got {1: 3}"),
    "key-is-a-list": ("? [a]\n: 1\n", "bad.yaml"),
    "key-with-a-newline": ('model:\n  "lr\\nx": 1\n', "model.lr"),
    "key-of-5000-letters": (f"model: {{{'k' * 5000}: 1}}\n", "bad.yaml"),
    "key-twice": ("model:\n  lr: 1\n  lr: 2\n", "bad.yaml, line 3 is not YAML: lr is set twice"),
    "key-twice-on-one-line": ("{model: {lr: 1, lr: 2}}", "lr is set twice"),
    "group-twice": ("model: {lr: 1}\ndata: {val_size: 0}\nmodel: {lr: 2}\n", "model is set twice"),
    # Values.
    "text-for-a-number": ("model:\n  lr: fast\n", "model.lr in bad.yaml, line 2 must be float, got fast"),
    "bool-for-a-number": ("model:\n  lr: true\n", "model.lr in bad.yaml, line 2"),
    "list-for-a-number": ("model:\n  lr: [1, 2]\n", "model.lr in bad.yaml, line 2"),
    "date-for-a-number": ("model:\n  lr: 2020-01-01\n", "model.lr in bad.yaml, line 2"),
    "variable-for-a-number": ("model:\n  lr: ${oc.env:HOME}\n", "model.lr in bad.yaml, line 2"),
    "20000-letters": (f"model:\n  lr: {'v' * 20_000}\n", "model.lr in bad.yaml, line 2 must be float"),
    "6000-digits": (f"data:\n  batch_size: {'9' * 6000}\n", "bad.yaml is not YAML: Exceeds the limit"),
    "900-digits": (f"seed_everything: {'9' * 900}\n", "seed_everything must be in [0, 2**32)"),
    "fraction-for-a-count": ("data:\n  batch_size: 1.5\n", "data.batch_size in bad.yaml, line 2"),
    "negative-rate": ("model:\n  lr: -1\n", "model.lr must be above 0"),
    "rate-is-nan": ("model:\n  lr: .nan\n", "model.lr must be above 0"),
    "rate-is-infinite": ("model:\n  lr: .inf\n", "model.lr must be above 0"),
    "rate-overflows": ("model:\n  lr: 1e400\n", "model.lr must be above 0"),
    "dropout-is-nan": ("model:\n  fc_dropout: .nan\n", "model.fc_dropout must be in [0, 1)"),
    "factor-is-nan": ("model:\n  plateau_factor: .nan\n", "model.plateau_factor must be in (0, 1)"),
    "minutes-are-nan": ("checkpoint:\n  every_n_minutes: .nan\n", "checkpoint.every_n_minutes"),
    "group-is-null": ("early_stopping: null\n", "early_stopping in bad.yaml, line 1 may not be null"),
    "rate-is-null": ("model:\n  lr: null\n", "model.lr in bad.yaml, line 2 may not be null; 0.001 is the default"),
    "batch-is-null": ("data:\n  batch_size:\n", "data.batch_size in bad.yaml, line 2 may not be null"),
    "epochs-between-are-null": ("checkpoint:\n  every_n_epochs: null\n", "checkpoint.every_n_epochs"),
    "accelerator-is-null": ("trainer:\n  accelerator: null\n", "trainer.accelerator"),
    "seed-is-null": ("seed_everything: null\n", "seed_everything"),
    "no-batch": ("data:\n  batch_size: 0\n", "data.batch_size must be at least 1"),
    "negative-epochs": (
        "trainer:\n  max_epochs: -5\n",
        "trainer.max_epochs in bad.yaml, line 2 must be in [-1, 2**31)",
    ),
    "ascent": ("trainer:\n  accumulate_grad_batches: -1\n", "trainer.accumulate_grad_batches in bad.yaml, line 2"),
    "unknown-precision": ("trainer:\n  precision: .nan\n", "trainer.precision"),
    "unknown-source": ("data:\n  source: http://x\n", "data.source"),
    "plain-http-mirror": ("data:\n  mirrors: [http://127.0.0.1:9/]\n", "mirrors must be https"),
    "group-is-a-list": ("model: [1]\n", "bad.yaml: model must contain options, got [1]"),
    "callback-group-is-a-list": ("early_stopping: [1]\n", "bad.yaml: early_stopping must contain options, got [1]"),
    "root-is-a-url": ("trainer:\n  default_root_dir: s3://bucket/x\n", "trainer.default_root_dir"),
    # Shape.
    "empty": ("", "bad.yaml contains no options"),
    "only-a-comment": ("# nothing\n", "bad.yaml contains no options"),
    "a-list": ("- 1\n- 2\n", "bad.yaml contains no options"),
    "a-word": ("fit\n", "bad.yaml contains no options"),
    "a-megabyte": ("# " + "x" * 10**6 + "\n", "bad.yaml has 1,000,003 bytes"),
    "control-characters": ("model:\n  lr: \x07\n", "bad.yaml"),
    "escape-in-a-key": ('model:\n  "\\e[2J": 1\n', "model.\\x1b[2J"),
    "nul": ("model:\n  lr: 1\0\n", "bad.yaml"),
    "not-closed": ("model: [\n", "bad.yaml, line 2 is not YAML"),
    "deep-lists": ("[" * 20_000, "bad.yaml is not YAML: maximum recursion depth exceeded"),
    "deep-mappings": (
        f"model: {'{a: ' * 3000}1{'}' * 3000}\n",
        "bad.yaml is not YAML: maximum recursion depth exceeded",
    ),
    "deep-dashes": ("- " * 20_000 + "1\n", "bad.yaml is not YAML: maximum recursion depth exceeded"),
    "10000-keys": ("".join(f"{number:x}: \n" for number in range(10_000)), "bad.yaml"),
    "two-documents": ("model: {lr: 1}\n---\nmodel: {lr: 2}\n", "bad.yaml"),
    "binary": (BINARY, "bad.yaml is not YAML: 'utf-8' codec can't decode"),
    "utf-16": ("model:\n  lr: 1\n".encode("utf-16"), "bad.yaml is not YAML: 'utf-8' codec can't decode"),
    "latin-1": ("model:\n  lr: 1  # größer\n".encode("latin-1"), "bad.yaml is not YAML: 'utf-8' codec can't decode"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(60), "bad.yaml is not YAML: 'utf-8' codec can't decode"),
    # Aliases.
    "alias-to-itself": ("a: &a [*a]\n", "bad.yaml is not YAML: maximum recursion depth exceeded"),
    "config-in-a-config": ("config: tagged.yaml\n", "config"),
    "group-in-a-file": ("model: tagged.yaml\n", "tag"),
    # Code.
    "tag-apply": (
        'model: !!python/object/apply:os.system ["touch stolen"]\n',
        f"bad.yaml, line 1 {BAD_TAG}",
    ),
    "tag-at-the-top": (
        '!!python/object/apply:os.system ["touch stolen"]',
        f"bad.yaml, line 1 {BAD_TAG}",
    ),
    "tag-name": (
        "model:\n  lr: !!python/name:os.system\n",
        f"bad.yaml, line 2 {BAD_TAG}",
    ),
    "tag-module": (
        f"model:\n  lr: !!python/module:{DECOY}\n",
        f"bad.yaml, line 2 {BAD_TAG}",
    ),
    "callback-is-os-system": (callback("os.system"), "trainer.callbacks in bad.yaml, line 2"),
    "callback-by-name": ("trainer:\n  callbacks: os.system\n", "trainer.callbacks in bad.yaml, line 2"),
    "callback-is-popen": (callback("subprocess.Popen", args=["touch", "stolen"]), "trainer.callbacks"),
    "callback-of-a-decoy": (callback(f"{DECOY}.Callback"), "trainer.callbacks in bad.yaml, line 2"),
    "callback-through-our-own-import": (callback("mnist_lightning.runs.run_folders.os.system"), "trainer.callbacks"),
    "callable-is-os-system": (callback(LAMBDA_CALLBACK, on_fit_start="os.system"), "on_fit_start"),
    "callable-through-our-own-import": (
        callback(LAMBDA_CALLBACK, on_fit_start="mnist_lightning.runs.run_folders.os.system"),
        "on_fit_start",
    ),
    "plugin-is-eval": ("trainer:\n  plugins: {class_path: builtins.eval, init_args: {source: '1'}}\n", "plugins"),
    **{
        f"{part}-is-a-decoy": (f"trainer:\n  {part}: {{class_path: {DECOY}.{part.title()}}}\n", "rainer")
        for part in ("logger", "strategy", "profiler", "accelerator", "plugins")
    },
    "strategy-by-name": ("trainer:\n  strategy: os.system\n", "strategy"),
    "profiler-by-name": ("trainer:\n  profiler: os.system\n", "profiler"),
}

LINES: dict[str, tuple[list[str], str]] = {
    "missing": (["--config", "missing.yaml"], "missing.yaml"),
    "folder": (["--config", "folder"], "folder is not a file"),
    "fifo": (["--config", "fifo"], "fifo is not a file"),
    "symlink-loop": (["--config", "loop"], "loop"),
    "device": (["--config", "/dev/zero"], "/dev/zero is not a file"),
    "no-name": (["--config", ""], "file"),
    "nothing": (["--config"], "--config"),
    "url": (
        ["--config", "http://127.0.0.1:9/x.yaml"],
        "http://127.0.0.1:9/x.yaml is not a file; configs are read from local files",
    ),
    "s3": (["--config", "s3://bucket/x.yaml"], "s3://bucket/x.yaml"),
    "memory": (["--config", "memory://x.yaml"], "memory://x.yaml"),
    "file-url": (["--config", "file:///dev/zero"], "file:///dev/zero"),
    "tagged": (["--config=tagged.yaml"], "tagged.yaml, line 1"),
    "tagged-as-text": (["--config", TAGGED], "local files only"),
    "tagged-for-a-group": (["--model", "tagged.yaml"], "tagged.yaml, line 1"),
    "tagged-for-the-callbacks": (["--trainer.callbacks", "tagged.yaml"], "trainer.callbacks"),
    "binary-for-a-group": (["--model", "binary.yaml"], "binary.yaml is not YAML"),
    "binary-for-the-callbacks": (["--trainer.callbacks", "binary.yaml"], "trainer.callbacks"),
    "folder-for-a-group": (["--model", "folder"], "folder"),
    "device-for-a-group": (["--model", "/dev/zero"], "/dev/zero"),
    "url-for-a-group": (["--model", "http://127.0.0.1:9/x.yaml"], "model"),
    "list-for-a-group": (["--model", "[1]"], "model"),
    "list-for-the-trainer": (["--trainer", "[1]"], "trainer"),
    "list-for-the-stopper": (["--early_stopping", "[1]"], "early_stopping"),
    "key-twice-in-a-group": (["--model", "{lr: 1, lr: 2}"], "lr is set twice"),
    "deep-value": (["--data.mirrors", "[" * 5000], "data.mirrors"),
    "digits": (["--data.batch_size", "9" * 6000], "data.batch_size"),
    "callback": (["--trainer.callbacks", "os.system"], "trainer.callbacks"),
    "callback-added": (["--trainer.callbacks+=os.system"], "trainer.callbacks"),
    "callback-of-a-decoy": (["--trainer.callbacks", f"[{{class_path: {DECOY}.Callback}}]"], "trainer.callbacks"),
    "help-of-a-decoy": (["--trainer.callbacks.help", f"{DECOY}.Callback"], DECOY),
    "logger": (["--trainer.logger.class_path", f"{DECOY}.Logger"], "trainer.logger"),
    "hidden-method": (["--weights_only", "false"], "--weights_only"),
}


def sampled(cases: Iterable[str], every: int) -> list[object]:
    """Return the cases; the quick tests run only one in `every`."""
    return [
        pytest.param(case, marks=[] if number % every == 0 else pytest.mark.slow) for number, case in enumerate(cases)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the configs above name."""
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop(DECOY, None)  # a class in it may be imported, if only to say that it is of another type
    module = "from pathlib import Path\nclass Callback:\n    def __init__(self): Path('stolen').touch()\n"
    (tmp_path / f"{DECOY}.py").write_text(module + "Logger = Strategy = Profiler = Accelerator = Plugins = Callback\n")
    (tmp_path / "tagged.yaml").write_text(TAGGED)
    (tmp_path / "binary.yaml").write_bytes(BINARY)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def fit(command: Command, folder: Path, *args: str) -> tuple[Outcome, list[str]]:
    """Run `fit`; return its outcome and the files that it has left in the folder."""
    before = listing(folder)
    with unharmed(folder):
        outcome = command("fit", *args, *NOWHERE)
    assert not (folder / "stolen").exists()
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) <= 5
    assert len(outcome.err) < 2000
    assert outcome.err.replace("\n", "").isprintable()
    return outcome, sorted(set(listing(folder)) - set(before))


def refuse(command: Command, folder: Path, *args: str, named: str) -> None:
    outcome, left = fit(command, folder, *args)
    assert outcome.code == 2, outcome.err
    assert named in outcome.err
    assert left == []


@pytest.mark.parametrize("name", sampled(CONFIGS, every=8))
def test_a_bad_config_is_refused_with_its_fault(name: str, command: Command, folder: Path) -> None:
    config, named = CONFIGS[name]
    (folder / "bad.yaml").write_bytes(config if isinstance(config, bytes) else config.encode())
    refuse(command, folder, "--config", "bad.yaml", named=named)


@pytest.mark.parametrize("name", sampled(LINES, every=6))
def test_a_bad_command_line_is_refused_with_its_fault(name: str, command: Command, folder: Path) -> None:
    line, named = LINES[name]
    refuse(command, folder, *line, named=named)


@pytest.mark.parametrize("group", ["model", "data"])
def test_an_empty_group_has_its_defaults(group: str, command: Command, folder: Path) -> None:
    (folder / "empty.yaml").write_text(f"{group}:\n  # all of its lines are comments\n")
    outcome, _ = fit(command, folder, "--config", "empty.yaml")
    assert outcome.code == 4
    assert outcome.err.startswith("error: nowhere/MNIST/raw/train-images-idx3-ubyte: missing")


def test_a_null_folder_of_images_is_named(command: Command, folder: Path) -> None:
    (folder / "bad.yaml").write_text("data:\n  class_path: PictureFolderDataModule\n  init_args:\n    folder:\n")
    outcome = command("fit", "--config", "bad.yaml")
    assert (outcome.code, outcome.err) == (2, "error: data.folder in bad.yaml, line 4 may not be null\n")


# Any config.

OPTIONS = {
    "model": "lr conv_dropout plateau_patience seed",
    "data": "batch_size val_size split_seed mirrors",
    "early_stopping": "patience min_delta",
    "checkpoint": "every_n_epochs every_n_steps every_n_minutes",
    "trainer": "max_epochs max_steps max_time precision callbacks logger strategy plugins profiler accelerator devices "
    "num_nodes gradient_clip_val accumulate_grad_batches val_check_interval limit_train_batches fast_dev_run "
    "inference_mode log_every_n_steps default_root_dir",
}
KEYS = st.sampled_from(
    ["seed_everything", "ckpt_path", *OPTIONS]
    + [f"{group}.{name}" for group, names in OPTIONS.items() for name in names.split()]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**30, -(10**30)])
CLASSES = st.sampled_from(["os.system", "subprocess.Popen", "builtins.eval", f"{DECOY}.Callback", "torch.hub.load"])
VALUES: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | NUMBERS
    | st.text(max_size=10)
    | CLASSES
    | CLASSES.map(lambda name: {"class_path": name}),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=4,
)


def nested(options: dict[str, object]) -> bytes:
    """Return `{"model.lr": 1}` as the text of `{"model": {"lr": 1}}`; later options win."""
    tree: dict[str, object] = {}
    for name, value in options.items():
        group, _, option = name.partition(".")
        inner = tree.get(group)
        tree[group] = {**(inner if isinstance(inner, dict) else {}), option: value} if option else value
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")


ANY = (
    st.dictionaries(KEYS, VALUES, min_size=1, max_size=3).map(nested)
    | st.text(alphabet="abc:-[]{}&*!|>?#'\"%@`\n ", max_size=60).map(str.encode)
    | st.binary(max_size=60)
)


def check(command: Command, folder: Path, config: bytes) -> None:
    """Check that a config is refused with exit code 2, or accepted; then missing data or folders end `fit`."""
    (folder / "any.yaml").write_bytes(config)
    outcome, left = fit(command, folder, "--config", "any.yaml")
    for name in left:
        shutil.rmtree(folder / name, ignore_errors=True)
    assert outcome.code in (2, 4, 5, 6), (config, outcome.err)
    assert outcome.code != 2 or left == []


ADVICE = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's, about settings that are allowed
QUICK = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),  # no shrinking: an example takes half a second
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # one folder will do
)


@ADVICE
@given(config=ANY)
@settings(QUICK, max_examples=12)
def test_any_config_is_refused_or_accepted(command: Command, folder: Path, config: bytes) -> None:
    check(command, folder, config)


@ADVICE
@pytest.mark.slow
@given(config=ANY)
@settings(QUICK, max_examples=4 * TRIALS)
def test_any_config_is_refused_or_accepted_however_often(command: Command, folder: Path, config: bytes) -> None:
    check(command, folder, config)
