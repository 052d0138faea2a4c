"""Every fault, by its name in the list of faults that Stepwell survives."""

from tests.chaos.faults.handlers import AllFail, BadHandlers
from tests.chaos.faults.processes import ClockJumps, DiesBetween, EveryRole, Frozen, Killed, NothingBroken
from tests.chaos.faults.servers import BrokerRestarts, BrokerWiped, DatabaseRestarts, Repeated, RowLocked
from tests.chaos.round import Fault

_ALL: tuple[Fault, ...] = (
    NothingBroken(),
    Killed(),
    DiesBetween(),
    DatabaseRestarts(),
    BrokerRestarts(),
    BrokerWiped(),
    Frozen(),
    ClockJumps(),
    Repeated(),
    BadHandlers(),
    AllFail(),
    EveryRole(),
    RowLocked(),
)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}

__all__ = ["FAULTS"]
