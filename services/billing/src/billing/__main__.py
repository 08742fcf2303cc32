"""`python -m billing` serves; with arguments it is the command `crosslogic-billing`."""

import sys

from billing import commands
from billing.app import run
from billing.settings import Settings
from common.run import main


def command() -> int:
    """`crosslogic-billing`; without arguments it tells what it can do."""
    return commands.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(command() if sys.argv[1:] else main("billing", Settings, run))
