"""`python -m provisioner`."""

import sys

from common.run import main
from provisioner.app import run
from provisioner.settings import Settings

if __name__ == "__main__":
    sys.exit(main("provisioner", Settings, run))
