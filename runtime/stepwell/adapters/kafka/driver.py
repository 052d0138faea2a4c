"""The one place that knows aiokafka: it ships no types, so what is used of it is written down here as protocols.

Every client is made from the settings, and what it raises is told in the words of ``StoreError``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]  # (it ships no types)
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]  # (as above)
from aiokafka.errors import (  # type: ignore[import-untyped]  # (as above)
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    ConsumerStoppedError,
    GroupAuthorizationFailedError,
    IllegalOperation,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.partitioner import murmur2  # type: ignore[import-untyped]  # (as above)
from aiokafka.structs import TopicPartition  # type: ignore[import-untyped]  # (as above)

from stepwell.adapters.kafka.settings import KafkaSettings, Security, millis
from stepwell.errors import StoreError, StoreRefusedError, StoreUnavailableError
from stepwell.ports.membership import Shard

Header = tuple[str, bytes | None]

DRIVER_ERRORS = (KafkaError, ConsumerStoppedError, IllegalOperation, OSError, TimeoutError)
"""Whatever the driver may raise when Kafka, the way to it, or the client itself is in trouble."""

_REFUSALS = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
NO_RIGHT = (ClusterAuthorizationFailedError, GroupAuthorizationFailedError, TopicAuthorizationFailedError)
RIGHTS = "READ, WRITE and DESCRIBE on topics that begin with stepwell., and READ on groups that do"
"""What is needed where topics are made by somebody else."""
_POSITIVE = 0x7FFF_FFFF


def _tells_no_password(record: logging.LogRecord) -> bool:
    args = record.args if isinstance(record.args, tuple) else ()
    return not any("SaslAuthenticate" in type(arg).__name__ for arg in args)


def _is_no_failure_twice(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, KafkaError) and "never retrieved" in record.getMessage())


# The driver logs every request at DEBUG, and with SASL PLAIN one of them is the password.
logging.getLogger("aiokafka.conn").addFilter(_tells_no_password)
# A batch of the driver that fails fails twice: for whoever sent it, who is told, and for one who need not be there
# (``MessageBatch._drain_waiter``), for whom the event loop then raises an alarm.
logging.getLogger("asyncio").addFilter(_is_no_failure_twice)


class Record(Protocol):
    """A record as the consumer gives it."""

    @property
    def topic(self) -> str: ...  # noqa: D102  (Kafka's own words)
    @property
    def partition(self) -> int: ...  # noqa: D102  (as above)
    @property
    def offset(self) -> int: ...  # noqa: D102  (as above)
    @property
    def timestamp(self) -> int:
        """Unix milliseconds."""
        ...

    @property
    def key(self) -> bytes | None: ...  # noqa: D102  (as above)
    @property
    def value(self) -> bytes | None: ...  # noqa: D102  (as above)
    @property
    def headers(self) -> Sequence[Header]: ...  # noqa: D102  (as above)


class Batch(Protocol):
    """A batch of records under construction."""

    def append(
        self, *, timestamp: int | None, key: bytes | None, value: bytes | None, headers: Sequence[Header]
    ) -> object | None:
        """None: it is full."""
        ...

    def close(self) -> None: ...  # noqa: D102  (no more is appended)


class Producer(Protocol):
    """What is used of ``AIOKafkaProducer``."""

    client: Any

    async def start(self) -> None: ...  # noqa: D102  (the driver's own words, here and below)
    async def stop(self) -> None: ...  # noqa: D102
    async def partitions_for(self, topic: str) -> set[int]: ...  # noqa: D102
    def create_batch(self) -> Batch: ...  # noqa: D102
    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[object]: ...  # noqa: D102


class Consumer(Protocol):
    """What is used of ``AIOKafkaConsumer``; a pair of topic and partition must be the driver's own, see ``pair``."""

    async def start(self) -> None: ...  # noqa: D102  (the driver's own words, here and below)
    async def stop(self) -> None: ...  # noqa: D102
    def assign(self, partitions: Sequence[Shard]) -> None: ...  # noqa: D102
    def seek(self, partition: Shard, offset: int) -> None: ...  # noqa: D102
    async def commit(self, offsets: Mapping[Shard, int]) -> None: ...  # noqa: D102
    async def committed(self, partition: Shard) -> int | None: ...  # noqa: D102
    async def position(self, partition: Shard) -> int: ...  # noqa: D102
    def highwater(self, partition: Shard) -> int | None: ...  # noqa: D102
    async def end_offsets(self, partitions: Sequence[Shard]) -> Mapping[Shard, int]: ...  # noqa: D102
    async def beginning_offsets(self, partitions: Sequence[Shard]) -> Mapping[Shard, int]: ...  # noqa: D102
    async def getmany(  # noqa: D102
        self, *partitions: Shard, timeout_ms: int = 0, max_records: int | None = None
    ) -> Mapping[Shard, Sequence[Record]]: ...


def pair(shard: Shard) -> Shard:
    """The driver's own pair, which it insists on; it equals ours and hashes alike."""
    return cast("Shard", TopicPartition(*shard))


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among so many, as Java's producer and every other client choose it (murmur2)."""
    return int(murmur2(key) & _POSITIVE) % partitions


async def open_producer(settings: KafkaSettings) -> Producer:
    """A started idempotent producer that waits for all in-sync replicas."""
    made = AIOKafkaProducer(**settings.connection(), enable_idempotence=True, acks="all", max_batch_size=128 * 1024)
    await _started(settings, made.start, made.stop)
    return cast("Producer", made)


async def open_consumer(settings: KafkaSettings, group: str | None) -> Consumer:
    """A started consumer that has nothing assigned yet, commits nothing by itself, and never starts at the end.

    Records of transactions that were aborted, or are not decided, are not seen.
    """
    made = AIOKafkaConsumer(
        **settings.connection(),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        # All that is buffered is taken at once, so this bounds how much: some 600 events of each shard.
        max_partition_fetch_bytes=128 * 1024,
    )
    await _started(settings, made.start, made.stop)
    return cast("Consumer", made)


async def open_admin(settings: KafkaSettings) -> Any:
    """A started admin client."""
    made = AIOKafkaAdminClient(**settings.connection())
    await _started(settings, made.start, made.close)
    return made


async def _started(settings: KafkaSettings, start: Any, stop: Any) -> None:
    try:
        with in_our_words(settings):
            async with asyncio.timeout(2 * settings.request_timeout.total_seconds()):
                await start()
    except BaseException:
        await stop()
        raise


async def abandon(producer: Producer, seconds: float) -> None:
    """Stop a producer; what it could not deliver by then is given up, since the driver would wait for it for ever."""
    try:
        async with asyncio.timeout(seconds):
            await producer.stop()
    except DRIVER_ERRORS:
        inner: Any = producer
        task = inner._sender.sender_task  # noqa: SLF001  (there is no public way to give up)
        task.cancel()
        await asyncio.wait([task], timeout=seconds)
        # Only now: the sender looks for each batch where it put it.
        accumulator = inner._message_accumulator  # noqa: SLF001  (as above)
        pending = accumulator._pending_batches  # noqa: SLF001  (as above)
        # A batch that waits for another try belongs to them again when its future is done, or the driver stumbles.
        pending.update(chain(*accumulator._batches.values()))  # noqa: SLF001  (as above)
        for batch in pending:
            batch.future.cancel()
        await producer.client.close()


async def discard(consumer: Consumer, seconds: float) -> None:
    """Stop a consumer, also one whose own tasks have failed or hang."""
    inner: Any = consumer
    # In a task of its own: the driver awaits tasks that it cancelled, and its caller would look cancelled too.
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait([stopping], timeout=seconds)
    if not stopping.done():
        stopping.cancel()
        await asyncio.wait([stopping], timeout=seconds)
    if not stopping.done() or stopping.cancelled() or stopping.exception() is not None:
        await inner._client.close()  # noqa: SLF001  (the driver leaves its connections open then)
    task = getattr(inner._coordinator, "_coordination_task", None)  # noqa: SLF001  (its failure was told by then)
    if task is not None and task.done() and not task.cancelled():
        task.exception()


@contextmanager
def in_our_words(settings: KafkaSettings) -> Iterator[None]:
    """Translate what the driver raises inside. Neither payloads nor secrets are told, only where and what kind."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translated(error, settings) from error


def translated(error: BaseException, settings: KafkaSettings) -> StoreError:
    """A fault of Kafka in the words of ``StoreError``, with the setting to look at."""
    name = type(error).__name__
    if isinstance(error, _REFUSALS):
        return StoreRefusedError(
            f"kafka.username, kafka.password, kafka.saslMechanism ({settings.sasl_mechanism}): refused by"
            f" {settings.bootstrap}: {name}"
        )
    if isinstance(error, NO_RIGHT):
        return StoreRefusedError(f"{settings.user}: refused by {settings.bootstrap}: {name}: grant it {RIGHTS}")
    if isinstance(error, KafkaConnectionError):
        # The driver tells a refused password in the same way as a broker that is away.
        login = (
            ", and that kafka.username and kafka.password are known to it" if settings.security.authenticated else ""
        )
        if settings.security is Security.TLS and settings.cert_file is None:
            login = ", and that it asks for no certificate of ours (kafka.certFile)"
        return StoreUnavailableError(
            f"kafka.bootstrap: {settings.bootstrap}: cannot be reached with kafka.security {settings.security}:"
            f" check the address, that the broker runs, that this is how its listener is secured{login}"
        )
    if isinstance(error, TimeoutError):
        wait = millis(settings.request_timeout)
        return StoreUnavailableError(f"kafka.bootstrap: {settings.bootstrap}: no answer within {wait} ms")
    if getattr(error, "retriable", True) or isinstance(error, IllegalStateError):
        return StoreUnavailableError(f"kafka.bootstrap: {settings.bootstrap}: {name}")
    return StoreRefusedError(f"kafka.bootstrap: {settings.bootstrap}: Kafka refuses: {name}")
