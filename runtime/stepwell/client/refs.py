"""A reference names one run: a run id its own, a foreign id its unfinished run or else the newest finished one.

Both are strings, so a ``FixedForeignID`` is only ever taken as a foreign id, other text of the form of a UUIDv7 as a
run id first, and any other text as a foreign id.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stepwell._domain.ids import ForeignID, RunID
from stepwell.callables import FixedForeignID
from stepwell.errors import RunNotFoundError

if TYPE_CHECKING:
    from stepwell._domain.ids import RunRef
    from stepwell._domain.record import Record
    from stepwell.ports.store import RecordStore

_UUID7 = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def find_run(store: RecordStore, namespace: str, workflow: str, ref: RunRef) -> Record:
    """The run that a reference names. Raises ``RunNotFoundError``; another workflow's run is not found."""
    text = str(ref)
    if not isinstance(ref, FixedForeignID) and _UUID7.fullmatch(text):
        loaded = (await store.load([RunID(text)])).get(RunID(text))
        if loaded is not None and (loaded.record.namespace, loaded.record.workflow) == (namespace, workflow):
            return loaded.record
    record = await store.find(namespace, workflow, ForeignID(text))
    if record is None:
        raise RunNotFoundError(workflow, text)
    return record
