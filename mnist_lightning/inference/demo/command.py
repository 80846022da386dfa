"""`demo`: a page on this machine to draw digits on, which shows what the network makes of them while they are drawn.

Nothing heavy is imported before it is needed: `--help` answers at once.
"""

import argparse
import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mnist_lightning.console import CommandParser
from mnist_lightning.errors import CheckpointError, ConfigError, ImageError

if TYPE_CHECKING:
    from mnist_lightning.inference.demo.server import PageServer
    from mnist_lightning.inference.network import TrainedNetwork

DESCRIPTION = (
    "Open a page to draw digits on, and see what the network makes of them. By default only this machine reaches it."
)


def main(args: list[str]) -> int:
    """Serve the page until Ctrl-C; return the exit code.

    Args:
        args: The command line after `demo`.

    Raises:
        CheckpointError: If there is no network to show.
        ConfigError: If the address cannot be listened on.
    """
    options = _parser().parse_args(args)
    from mnist_lightning.inference.network import load_network

    trained = load_network(options.ckpt_path)
    if trained.schema.origin:
        raise CheckpointError(
            f"{trained.path} was trained on folders of pictures, and what is drawn on the page is none; "
            "predict labels pictures"
        )
    with make_server(trained, options.host, options.port) as server:
        host, port = server.server_address[:2]
        if trained.note:
            print(trained.note)
        print(f"draw at http://{_for_a_browser(str(host))}:{port}/ (Ctrl-C ends it)", flush=True)
        if not ipaddress.ip_address(str(host)).is_loopback:
            elsewhere = f"; from elsewhere at http://{address}:{port}/" if (address := _address_outside()) else ""
            print(f"whoever reaches {options.host} can use the page{elsewhere}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended")
    return 0


def make_server(trained: "TrainedNetwork", host: str, port: int) -> "PageServer":
    """Return a server of the page, listening; it answers once it serves.

    Args:
        trained: The network to show.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Raises:
        ConfigError: If the address cannot be listened on.
    """
    import numpy as np

    from mnist_lightning.inference.demo.server import DRAWING_SIDE, PageServer
    from mnist_lightning.inference.digits.preprocess import preprocess_drawing
    from mnist_lightning.inference.pixel_network import torch_runtime

    run = torch_runtime(trained.pixel_network)
    names = trained.schema.class_names

    def recognise(drawing: bytes) -> dict[str, Any]:
        try:
            image = preprocess_drawing(np.frombuffer(drawing, np.uint8).reshape(DRAWING_SIDE, DRAWING_SIDE))
        except ImageError:
            return {"label": None}
        _, (probabilities,) = run(image[None])
        return {
            "label": names[probabilities.argmax()],
            "probabilities": probabilities.tolist(),
            "pixels": image.ravel().tolist(),
        }

    about = {
        "class_names": names,
        "checkpoint": f"{trained.path}, epoch {trained.epoch}",
        "unsure_below": trained.calibration.unsure_below,
    }
    try:
        return PageServer(host, port, about, recognise)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from error


def _parser() -> CommandParser:
    parser = CommandParser("demo", DESCRIPTION, "demo --ckpt_path version_3/best --port 7860")
    parser.add_argument(
        "--ckpt_path",
        default="best",
        metavar="CHECKPOINT",
        help="best or last of the newest run, version_3/best, or a file (default: best)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=_port, default=7860, help="port to listen on, 0 for a free one (default: 7860)")
    return parser


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 2**16:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number in [0, 65535], got {text}")


def _address_outside() -> str | None:
    """Return the address that this machine has on its network; None where there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # nothing is sent; RFC 5737 gives the address to nobody
        return str(probe.getsockname()[0])
    return None


def _for_a_browser(host: str) -> str:
    """Return an address as an URL has it; a server that listens on all of them is there under its own.

    >>> _for_a_browser("::1"), _for_a_browser("0.0.0.0")
    ('[::1]', 'localhost')
    """
    if ipaddress.ip_address(host).is_unspecified:
        return "localhost"
    return f"[{host}]" if ":" in host else host
