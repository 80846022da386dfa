"""The program `python -m mnist_lightning`, also installed as `mnist-lightning`."""

import atexit
import gc

from mnist_lightning.cli import main as command_line


def main() -> None:
    """Run the command in `sys.argv`, and exit."""
    # Otherwise the last garbage collection, over all objects of torch and Lightning, takes a second or two.
    atexit.register(gc.freeze)
    command_line.main()


if __name__ == "__main__":
    main()
