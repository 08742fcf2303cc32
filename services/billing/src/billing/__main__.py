"""`python -m billing`."""

import sys

from billing.app import run
from billing.settings import Settings
from common.run import main

if __name__ == "__main__":
    sys.exit(main("billing", Settings, run))
