from pathlib import Path

from mnist_lightning.evaluation.predictions import PREDICTIONS
from mnist_lightning.evaluation.subject import Subject, sidecar
from tests.conftest import Command

LABELS = [0, 1, 2, 3] * 5


def write(run: int, predictions: list[int], labels: list[int] = LABELS) -> None:
    folder = Path("lightning_logs", f"version_{run}")
    folder.mkdir(parents=True)
    rows = [f"{index},{label},{predictions[index]}" for index, label in enumerate(labels)]
    (folder / PREDICTIONS.format("")).write_text("\n".join(["index,label,prediction", *rows]))


def test_compare_counts_the_samples_that_only_one_run_predicts_correctly(command: Command) -> None:
    write(3, [9, *LABELS[1:]])  # one incorrect
    write(5, [LABELS[0], *[9] * 7, *LABELS[8:]])  # seven others incorrect
    outcome = command("compare", "version_3", "version_5")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "version_3: 19/20 = 95.00 %",
        "version_5: 13/20 = 65.00 %",
        "correct only in version_3: 7; correct only in version_5: 1",
        "McNemar's exact test, two-sided: p = 0.0703",
    ]


def test_results_on_other_samples_or_of_another_file_are_refused_and_other_kinds_of_checkpoint_named(
    command: Command,
) -> None:
    subjects = [
        Subject("a.ckpt", "0", kind, {"data/t10k": "1"}, samples)
        for kind, samples in (("best", "s"), ("last", "s"), ("best", "other"), ("best", "s"))
    ]
    for run, subject in enumerate(subjects):
        write(run, LABELS)
        path = Path("lightning_logs", f"version_{run}", PREDICTIONS.format(""))
        path.with_suffix(".json").write_bytes(sidecar(subject, path.read_bytes()))
    path.write_text(path.read_text() + "\n20,1,1")  # of version_3, after its digest was taken
    outcome = command("compare", "version_0", "version_1")
    assert outcome.code == 0
    assert "different kinds of checkpoint: version_0 best, version_1 last\n" in outcome.out
    assert "different kinds" not in command("compare", "version_0/best", "version_0").out
    for other, message in (
        ("version_2", "version_0 and version_2 were not tested on the same samples"),
        ("version_3", "does not belong to"),
        ("version_1/last", "predictions_last.csv does not exist"),
    ):
        outcome = command("compare", "version_0", other)
        assert outcome.code == 2
        assert message in outcome.err


def test_runs_that_cannot_be_compared_are_refused_with_one_line(command: Command) -> None:
    write(0, LABELS)
    write(1, LABELS[:-1], LABELS[:-1])
    write(2, LABELS)
    Path("lightning_logs/version_2", PREDICTIONS.format("")).write_text("not,predictions\n1,2\n")
    for other, message in (
        ("version_1", "version_0 and version_1 were not tested on the same samples"),
        ("version_2", "predictions.csv is not a predictions file; run `test` to write it again"),
        ("version_7", "predictions.csv does not exist; run `test` to write it"),
        ("last", "last is not a run"),
    ):
        outcome = command("compare", "version_0", other)
        assert outcome.code == 2
        assert message in outcome.err
