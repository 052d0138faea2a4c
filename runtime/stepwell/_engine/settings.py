"""What an engine may be told by whoever runs it; every figure has a reason and a default that suits a laptop."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from stepwell._engine.share import EVERYTHING, Share


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Times are real time unless said otherwise."""

    namespace: str = "default"
    share: Share = EVERYTHING
    """What of the workflows is handled here."""
    shared: bool = False
    """Whether other processes work on the same runs, and a partition of theirs must never wait for one step.

    Then a step in which too much waits parks some of it, an attempt of more than ``check_out_after`` is taken off the
    stream, and a step that mostly fails is slowed down.
    """
    check_out_after: float = 20.0
    """Seconds of an attempt after which its event counts as done, and the row says when it is offered again."""
    spill_factor: int = 4
    """Events that may wait for a step here, as a multiple of its concurrency."""
    fresh: float = 0.5
    """Seconds: a handler starts only if its row was read or written less than this ago (promise P5 allows 1 s)."""
    keeper_interval: float = 2.0
    """Seconds between looks at what is due; a timer is at most this late, and never early."""
    release_limit: int = 1000
    """Rows of each kind that one look turns into events."""
    commit_rows: int = 256
    commit_bytes: int = 4 * 1024 * 1024
    max_waiting: int = 4096
    """Events held in memory before the stream is left alone."""
    sync_threads: int = 4096
    """Upper bound of one lane's threads for sync handlers; its concurrency is the other bound."""
    drain: timedelta = timedelta(seconds=30)
    """How long a stop waits for running handlers."""
    plan_interval: float = 10.0
    """Seconds after which schedules are planned anew though nothing is due: suspension may have ended.

    Where processes share the runs, the catalog tells when it has.
    """
    retention_interval: float = 60.0
    lag_interval: float = 10.0
    idle_interval: float = 60.0
    """Seconds until what is done now and then is done again though nothing has happened since."""
    catalog_interval: float = 6.0
    """Seconds between two looks at which workflows there are, where others serve some too."""
    upkeep_interval: float = 60.0
    """Seconds between two times that tables are looked after: partitions, the rotation of the outbox."""
    archive_interval: float = 10.0
    reconcile_interval: float = 60.0
    """Seconds between two passes over all runs, and for how long a run must have been quiet to be suspect."""
    connector_batch: int = 256
    connector_attempts: int = 5
    """Tries before a message that fails without saying ``PermanentError`` becomes a dead letter."""
    debug: bool = False
    """Log every event that is dropped, with the reason."""


@dataclass(frozen=True, kw_only=True)
class MemberSettings:
    """How a worker shares the work with others. Times are seconds, unless they are spans."""

    hurried: float = 1.0
    """Between two beats while a shard or role is awaited that another one will soon let go of."""
    spacing: float = 0.1
    """Between two beats at least, however much there is to publish."""
    silent_after: float = 30.0
    """A main loop that was silent for so long is taken for dead: its stacks are dumped, and the process ends."""
    patience: timedelta = timedelta(seconds=10)
    """How long a shard that is given up waits for handlers that run; what is left is checked out."""
    growth_interval: float = 30.0
    """Between two looks at how many partitions there are."""
    forget_dead: timedelta = timedelta(days=1)
    """Somebody dead whose shards nobody takes over is buried all the same: their topics are read no more."""
