"""Every fault, by its name in the list of faults that Stepwell survives."""

from tests.chaos.faults.processes import Killed
from tests.chaos.round import Fault

FAULTS: dict[str, Fault] = {fault.name: fault for fault in (Fault(), Killed())}

__all__ = ["FAULTS"]
