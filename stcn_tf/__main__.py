"""All commands: `python -m stcn_tf`, or `stcn-tf` where it is installed, lists and runs them."""

import sys
from typing import NoReturn

from stcn_tf.support import commands


def main() -> NoReturn:
    """Runs what the arguments name."""
    commands.run(sys.argv[1:])


if __name__ == "__main__":
    main()
