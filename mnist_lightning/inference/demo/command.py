"""The command `demo`: a page on this machine to draw digits on, with the network's predictions while they are drawn.

Heavy modules are imported when they are needed, so that `--help` is fast.
"""

import ipaddress
from typing import TYPE_CHECKING, Any

from mnist_lightning.console import CommandParser, whole_number
from mnist_lightning.errors import CheckpointError, ConfigError, ImageError

if TYPE_CHECKING:
    from mnist_lightning.data.image_schema import ImageSchema
    from mnist_lightning.inference.demo.server import PageServer
    from mnist_lightning.inference.network import TrainedNetwork

DESCRIPTION = (
    "Serve a page to draw digits on, which shows the network's predictions. By default only this machine can open it."
)


def main(args: list[str]) -> int:
    """Run the command with the arguments after `demo` until Ctrl-C; return its exit code."""
    parser = CommandParser("demo", DESCRIPTION, "demo --ckpt_path version_3/best --port 7860")
    parser.add_checkpoint_option()
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument(
        "--port", type=whole_number(0, 65535), default=7860, help="port to listen on, 0 for a free one (default: 7860)"
    )
    options = parser.parse_args(args)
    from mnist_lightning.data.image_schema import ImageSchema
    from mnist_lightning.inference.network import load_network

    trained = load_network(ImageSchema, options.ckpt_path)
    if trained.schema.origin:
        raise CheckpointError(f"{trained.path} was trained on folders of images, not on drawings; use predict instead")
    with make_server(trained, options.host, options.port) as server:
        address = ipaddress.ip_address(str(server.server_address[0]))
        host = "localhost" if address.is_unspecified else f"[{address}]" if address.version == 6 else address
        if trained.preprocessing_warning:
            print(trained.preprocessing_warning)
        print(f"draw at http://{host}:{server.server_address[1]}/ (Ctrl-C ends it)", flush=True)
        if not address.is_loopback:
            print(f"everyone who can reach {options.host} can use the page", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended")
    return 0


def make_server(trained: "TrainedNetwork[ImageSchema]", host: str, port: int) -> "PageServer":
    """Return a server of the page; an address that it cannot listen on is a ConfigError."""
    import numpy as np

    from mnist_lightning.inference.demo.server import DRAWING_SIDE, PageServer
    from mnist_lightning.inference.digits.preprocess import preprocess_drawing
    from mnist_lightning.inference.pixel_network import torch_runtime

    run = torch_runtime(trained.pixel_network)

    def predict(drawing: bytes) -> dict[str, Any]:
        try:
            image = preprocess_drawing(np.frombuffer(drawing, np.uint8).reshape(DRAWING_SIDE, DRAWING_SIDE))
        except ImageError:
            return {"label": None}
        _, (probabilities,) = run(image[None])
        return {
            "label": trained.schema.class_names[probabilities.argmax()],
            "probabilities": probabilities.tolist(),
            "pixels": image.ravel().tolist(),
        }

    network = {
        "class_names": trained.schema.class_names,
        "checkpoint": f"{trained.path}, epoch {trained.epoch}",
        "unsure_below": trained.calibration.unsure_below,
    }
    try:
        return PageServer(host, port, network, predict)
    except OSError as error:
        reason = f"cannot listen on {host}:{port}: {error.strerror}"
        raise ConfigError(f"{reason}; choose another --host or --port") from error
