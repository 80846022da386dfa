import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mnist_lightning.data.image_schema import MNIST_SCHEMA, ImageSchema
from mnist_lightning.errors import ConfigError, ImageError
from mnist_lightning.inference.demo.command import make_server
from mnist_lightning.inference.demo.server import PageServer
from mnist_lightning.inference.digits.preprocess import preprocess_drawing
from mnist_lightning.inference.network import TrainedNetwork, load_network
from mnist_lightning.models.cnn import SimpleCNN
from tests.conftest import Command
from tests.inference.conftest import TrainedRun


def centre_of_mass(image: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> tuple[float, float]:
    rows, columns = np.indices(image.shape)
    return float(np.average(rows, weights=image)), float(np.average(columns, weights=image))


@pytest.mark.parametrize(("height", "width"), [(280, 280), (200, 40), (40, 200), (1, 1), (280, 22), (22, 280)])
def test_a_drawing_is_fitted_into_20_pixels_and_centred_by_its_mass(height: int, width: int) -> None:
    drawing = np.zeros((280, 280), np.uint8)
    drawing[280 - height :, :width] = 255
    image = preprocess_drawing(drawing)
    assert image.shape == (28, 28)
    assert image.max() == 255
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 == 20
    # Moved by whole pixels towards MNIST's centre, 14; grey levels are whole numbers as well.
    assert np.abs(np.array(centre_of_mass(image)) - 14).max() <= 0.51


def test_the_centre_of_mass_rather_than_of_the_box_is_centred() -> None:
    drawing = np.zeros((280, 280), np.uint8)
    drawing[40:240, 100:120] = 255  # an L: more ink at the bottom left
    drawing[200:240, 100:240] = 255
    assert np.abs(np.array(centre_of_mass(preprocess_drawing(drawing))) - 14).max() <= 0.51


def test_an_empty_drawing_has_no_label(trained_run: TrainedRun) -> None:
    with pytest.raises(ImageError, match="no digit found"):
        preprocess_drawing(np.zeros((280, 280), np.uint8))
    with make_server(load_network(ImageSchema, "best", trained_run.root), "127.0.0.1", 0) as server:
        assert json.loads(server.predict(bytes(280 * 280))) == {"label": None}


def test_the_reply_contains_the_prediction_and_the_input_of_the_network() -> None:
    trained = TrainedNetwork(SimpleCNN().eval(), MNIST_SCHEMA, Path("x.ckpt"), epoch=3)
    drawing = np.zeros((280, 280), np.uint8)
    drawing[50:230, 130:150] = 255
    with make_server(trained, "127.0.0.1", 0) as server:
        reply = json.loads(server.predict(drawing.tobytes()))
        about = json.loads(server.pages["/network"][0])
    assert reply["pixels"] == preprocess_drawing(drawing).ravel().tolist()
    assert sum(reply["probabilities"]) == pytest.approx(1, abs=1e-6)
    assert reply["label"] == str(np.argmax(reply["probabilities"]))
    assert about == {"class_names": list("0123456789"), "checkpoint": "x.ckpt, epoch 3", "unsure_below": 0.9}


def test_a_port_in_use_is_reported(command: Command, trained_run: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained_run.root)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = command("demo", "--port", str(taken.getsockname()[1]))
    assert outcome.code == 2
    assert "Address already in use; choose another --host or --port" in outcome.err


@pytest.mark.parametrize("host", ["no.such.host.invalid", "300.1.1.1", "192.0.2.1"])
def test_an_address_of_another_machine_is_reported(host: str) -> None:
    trained = TrainedNetwork(SimpleCNN().eval(), MNIST_SCHEMA, Path("x.ckpt"), epoch=3)
    with pytest.raises(ConfigError, match=f"cannot listen on {host}:0: "):
        make_server(trained, host, 0)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--prot", "1"], 2, "unknown option --prot; did you mean --port?"),
        (["--port", "65536"], 2, "--port: must be a whole number in [0, 65535], got 65536"),
        (["--port", "web"], 2, "--port: must be a whole number in [0, 65535], got web"),
        ([], 6, "there is no run"),
    ],
)
def test_a_usage_error_is_one_line(command: Command, args: list[str], code: int, message: str) -> None:
    outcome = command("demo", *args)
    assert outcome.code == code
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_help_ends_with_an_example(command: Command) -> None:
    outcome = command("demo", "--help")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1].startswith("  python -m mnist_lightning demo --")


def test_listening_on_all_addresses_prints_that_others_can_use_the_page(
    command: Command, trained_run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained_run.root)
    monkeypatch.setattr(PageServer, "serve_forever", lambda server: None)
    outcome = command("demo", "--host", "0.0.0.0", "--port", "0")
    port = re.search(r"draw at http://localhost:(\d+)/", outcome.out)
    assert port, outcome.out
    assert "everyone who can reach 0.0.0.0 can use the page" in outcome.out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_the_command_serves_until_a_signal_ends_it(trained_run: TrainedRun, number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "mnist_lightning", "demo", "--port", "0"],
        cwd=trained_run.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            line = process.stdout.readline()
            match = re.fullmatch(r"draw at http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)
            assert match, line
            with socket.create_connection(("127.0.0.1", int(match[1])), timeout=30) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.0 200 OK")
            process.send_signal(number)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == code
    assert err == ""
    assert out == ("ended\n" if number == signal.SIGINT else "")
