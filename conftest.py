"""Fixtures for all tests: real servers."""

import sys
from pathlib import Path

pytest_plugins = ["stack.fixtures"]

# tests/ is no package that is installed, and its modules import each other
sys.path.insert(0, str(Path(__file__).parent / "tests"))
