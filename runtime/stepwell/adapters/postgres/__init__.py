"""Everything in one PostgreSQL database: any number of workers, each statement whole or not at all."""

from stepwell.adapters.postgres.clock import ServerClock
from stepwell.adapters.postgres.lock import EngineLock
from stepwell.adapters.postgres.membership import PostgresMembership
from stepwell.adapters.postgres.migrate import CODE, migrate
from stepwell.adapters.postgres.news import PostgresNews
from stepwell.adapters.postgres.store import PostgresStore
from stepwell.adapters.postgres.stream import PostgresStream

__all__ = [
    "CODE",
    "EngineLock",
    "PostgresMembership",
    "PostgresNews",
    "PostgresStore",
    "PostgresStream",
    "ServerClock",
    "migrate",
]
