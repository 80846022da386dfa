"""`python -m mnist_lightning` and `mnist-lightning`: the command line in a process of its own."""

import atexit
import gc

from mnist_lightning.cli import main as command_line


def main() -> None:
    """Run the command on the command line, and exit."""
    # Or the interpreter would look for cycles, as it ends, in all that torch and Lightning have made: a second or two.
    atexit.register(gc.freeze)
    command_line.main()


if __name__ == "__main__":
    main()
