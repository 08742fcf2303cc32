"""`python -m scheduler`."""

import sys

from common.run import main
from scheduler.app import run
from scheduler.settings import Settings

if __name__ == "__main__":
    sys.exit(main("scheduler", Settings, run))
