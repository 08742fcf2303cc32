"""An engine that speaks vLLM's wire format exactly, with faults on demand."""

from simulator.app import Simulator, serve
from simulator.config import Config
from simulator.faults import Fault
from simulator.truth import Record

__all__ = ["Config", "Fault", "Record", "Simulator", "serve"]
