"""The pages are true: their Python runs, their commands parse, the files and links that they name exist.

The ```python blocks of a page run in order in one namespace; a ```text block right after one is its expected output. A
block whose first line is a comment with the name of a file, `# my_network.py`, is that file instead. They run in a
folder with everything that the pages mention: those files, MNIST in `data`, `configs`, an image `digit.png`, a table
`mine.csv`, a folder of images `mine`, a trained and exported run (`version_0` and `version_3`), a run on the table
(`version_2`), a run on the folder of images (`version_4`), and the `best.yaml` of a sweep.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from mnist_lightning.cli.help_texts import COMMANDS, OWN_COMMANDS
from mnist_lightning.data.mnist import fetch, idx, registry
from tests.conftest import Command, run_in
from tests.data.image_folder.small_images import write_shapes
from tests.data.table.tables import write_iris

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "lightning_logs", "checkpoints")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md")),
]

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
FILE = re.compile(r"# (\w+\.(?:py|yaml))\n")  # the first line of a block that is a file
UNKNOWN = "--no_such_option"  # appended to a command; an error that names it shows that the rest has parsed


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Args:
        language: The word after the opening fence.
        text: The content.
        line: Number of its first line in the page, from 1.
        output: The content of the text block right after it, or None.
    """

    language: str
    text: str
    line: int
    output: str | None

    @property
    def file(self) -> str | None:
        """Name of the file that it is, or None."""
        match = FILE.match(self.text)
        return match[1] if match else None


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text()
    matches = list(FENCE.finditer(text))
    blocks = []
    for match, following in zip(matches, [*matches, None][1:], strict=True):
        output = None
        if following and following["language"] == "text" and not text[match.end() : following.start()].strip():
            output = textwrap.dedent(following["text"])
        line = text.count("\n", 0, match.start("text")) + 1
        blocks.append(Block(match["language"], textwrap.dedent(match["text"]), line, output))
    return blocks


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def simple_commands(line: str) -> list[list[str]]:
    """Return the words of each command of a shell line, such as those around `&&`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("();<>|&"):
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def shell_commands(page: Path) -> list[list[str]]:
    """Return the words of each command in a page's sh blocks."""
    lines = (
        line
        for block in blocks_of(page)
        if block.language == "sh"
        for line in block.text.replace("\\\n", " ").splitlines()
    )
    return [words for line in lines for words in simple_commands(line)]


def command_lines(page: Path) -> list[str]:
    """Return the arguments of each `python -m mnist_lightning` on a page, in sh blocks and in prose."""
    spans = [span.split() for span in SPAN.findall(prose_of(page))]
    written = [*shell_commands(page), *(words for words in spans if "mnist_lightning" in words)]
    whole = [words[words.index("mnist_lightning") + 1 :] for words in written if "mnist_lightning" in words]
    short = [words for words in spans if words[0] in (*COMMANDS, *OWN_COMMANDS)]
    return [shlex.join(words) for words in [*whole, *(words for words in short if words[1:])]]


FILES = {block.file: block.text for page in PAGES for block in blocks_of(page) if block.file}
COMMAND_LINES = sorted({line for page in PAGES for line in command_lines(page)})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, digits_dir: Path) -> Path:
    """A folder with everything that the pages mention; the run is trained on the small data."""
    root = tmp_path_factory.mktemp("project")
    fetch.fetch(registry.MNIST, root / "data", source="bundled")
    raw = root / "data" / "MNIST" / "raw"
    Image.fromarray(idx.read_images(raw / "t10k-images-idx3-ubyte")[0]).save(root / "digit.png")
    small = ("--data.data_dir", str(digits_dir), "--data.val_size", "60", "--trainer.max_epochs", "1")
    run_in(root, ["fit", *small], ["export", "--format", "onnx"])
    write_iris(root / "mine.csv")
    write_shapes(root / "mine", 5)
    others = {
        "table": ("--data.csv_file", "mine.csv", "--data.target", "species"),
        "pictures": ("--data.folder", "mine"),
    }
    for kind, options in others.items():
        run_in(root, ["fit", *options, "--trainer.max_epochs", "1", "--trainer.default_root_dir", kind])
    for folder in ("lightning_logs", "checkpoints"):
        shutil.copytree(root / folder / "version_0", root / folder / "version_3")
        for kind, number in (("table", 2), ("pictures", 4)):
            (root / kind / folder / "version_0").rename(root / folder / f"version_{number}")
    return root


@pytest.fixture
def in_project(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Change to a copy of the project folder, with the files of the pages, in which a test can write."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for kind in ("lightning_logs", "checkpoints"):
        shutil.copytree(project / kind, tmp_path / kind, copy_function=os.link)
    for name in ("digit.png", "mine.csv"):
        shutil.copy(project / name, tmp_path)
    (tmp_path / "sweeps" / "default").mkdir(parents=True)
    config = project / "lightning_logs" / "version_0" / "config.yaml"
    shutil.copy(config, tmp_path / "sweeps" / "default" / "best.yaml")  # stands for the result of a sweep
    (tmp_path / "data").symlink_to(project / "data")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "mine").symlink_to(project / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_python_blocks_of_a_page_run_and_print_the_output_shown(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks_of(page):
        if block.language == "python" and not block.file:
            # Padded with empty lines, so that a traceback names the line of the page.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True), namespace)
            printed = capsys.readouterr().out
            if block.output is not None:
                assert printed == block.output, f"{page.name}, line {block.line}"


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_python_in_shell_commands_runs(page: Path) -> None:
    for words in shell_commands(page):
        if words[:2] == ["python", "-c"]:
            exec(words[2], {})


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_on_a_page_parses(command: Command, line: str) -> None:
    args = shlex.split(line)
    if "--help" in args:
        assert command(*args).code == 0
    else:
        assert command(*args, UNKNOWN).err.startswith(f"error: unknown option {UNKNOWN}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging interval")
@pytest.mark.usefixtures("in_project")
def test_the_commands_of_the_page_on_own_classes_run_in_order(command: Command) -> None:
    few = [f"--trainer.limit_{split}_batches" for split in ("train", "val", "test")]
    for line in command_lines(ROOT / "docs" / "make_it_yours.md"):
        args = shlex.split(line)
        if "--help" not in args and args[0] in ("fit", "test"):
            limits = [word for name in few for word in (name, "2") if args[0] == "fit" or "test" in name]
            args += [*limits, *(["--trainer.max_epochs", "2"] if args[0] == "fit" else [])]
        outcome = command(*args)
        assert outcome.code == 0, f"{line}\n{outcome.err}"


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize(
    "line",
    [
        "fit --model.learning_rate 0.1",
        "fit --model.lr fast",
        "fit --config configs/none.yaml",
        "tset --ckpt_path last",
        "predict",
        "export --format jpg",
        "doctor --fast",
    ],
)
def test_a_wrong_command_would_be_found(command: Command, line: str) -> None:
    assert not command(*shlex.split(line), UNKNOWN).err.startswith(f"error: unknown option {UNKNOWN}")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_and_images_of_a_page_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_source_files_that_a_page_names_exist(page: Path) -> None:
    for file in re.findall(r"`((?:\w+/)+\w+\.py|configs/\w+\.yaml)`", prose_of(page)):
        assert any((folder / file).exists() for folder in (ROOT, ROOT / "mnist_lightning")), file
    for name in re.findall(r"python -m (benchmarks\.\w+)", page.read_text()):
        assert (ROOT / f"{name.replace('.', '/')}.py").exists(), name


END = "the command has ended"
ONE_AFTER_THE_OTHER = f"""
import json, sys
from mnist_lightning.cli.main import main
for args in json.loads(sys.argv.pop()):
    try:
        main(args)
    except SystemExit as end:
        assert not end.code
    print({END!r})
"""


@pytest.mark.slow
def test_fit_and_test_print_what_the_readme_shows(tmp_path: Path, digits_dir: Path) -> None:
    shown = [block.text.splitlines() for block in blocks_of(ROOT / "README.md") if "version_0" in block.text]
    small = ["--data.data_dir", str(digits_dir), "--data.val_size", "60", "--data.source", "files"]
    small += ["--trainer.max_epochs", "2"]
    config = str(ROOT / "configs" / "default.yaml")
    commands = [["fit", "--config", config, *small], ["test", "--data.source", "files"]]
    # Both in one new process, in which nothing has silenced Lightning's own messages yet.
    program = [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(commands)]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not done.stderr
    for out, lines in zip(done.stdout.split(f"{END}\n")[:-1], shown, strict=True):
        printed = [shape_of(line) for line in out.splitlines()]
        for line in lines:
            assert any(other.startswith(shape_of(line)) for other in printed), line


def shape_of(line: str) -> str:
    """Return a printed line, up to its ellipsis, without its numbers and the name of the device."""
    line = line.partition("…")[0]
    return re.sub(r"\d[\d.,]*", "#", re.sub(r"on cpu \(.*?\), precision [^,]+,", "on cpu", line)).replace("  ", " ")


def test_the_reading_order_states_the_lines_of_each_file() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    stated = {file: int(lines) for file, lines in re.findall(r"^\| `(\S+\.py)` \| (\d+) \|", page, re.M)}
    lines = {file: len((ROOT / "mnist_lightning" / file).read_text().splitlines()) for file in stated}
    assert stated == lines
    assert f"| together | {sum(lines.values()):,} |" in page


def test_the_pages_have_blocks_and_commands_to_check() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert {"python", "sh", "text"} <= {block.language for block in blocks}
    assert any(block.output for block in blocks)
    assert {"fit --config configs/default.yaml", "test", "fit --ckpt_path last"} <= set(COMMAND_LINES)
