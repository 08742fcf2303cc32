"""`python -m gateway`"""

from common.run import main
from gateway.app import run
from gateway.settings import Settings

raise SystemExit(main("gateway", Settings, run))
