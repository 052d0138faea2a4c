"""One topic per workflow and one per step that has workers of its own; each is as the settings say, or nothing starts.

Names differ in more than case and never hold ``_``: brokers on some file systems, and Kafka's own metrics, would take
two such topics for one. Partitions are added and never taken away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.admin import NewPartitions, NewTopic  # type: ignore[import-untyped]  # (it ships no types)
from aiokafka.admin.config_resource import (  # type: ignore[import-untyped]  # (as above)
    ConfigResource,
    ConfigResourceType,
)
from aiokafka.errors import (  # type: ignore[import-untyped]  # (as above)
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    TopicAlreadyExistsError,
    for_code,
)

from stepwell._domain.topic_names import MAX_NAME, topic_name
from stepwell.adapters.kafka.driver import NO_RIGHT, RIGHTS, in_our_words, open_admin
from stepwell.adapters.kafka.settings import KafkaSettings, millis
from stepwell.errors import StoreError, StoreRefusedError, StoreUnavailableError

__all__ = ["MAX_NAME", "ensure_topics", "partitions_of", "same_topic", "topic_name"]

log = logging.getLogger(__name__)

_UNLIMITED = -1
_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
_SOURCE = 3
_DYNAMIC_TOPIC_CONFIG = 1
"""``ConfigSource`` of Kafka's protocol: set for this topic, not inherited from the broker."""


def same_topic(one: str, other: str) -> bool:
    """Whether two names may be one topic's somewhere; see the module."""
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    return name.replace("_", ".").lower()


async def ensure_topics(settings: KafkaSettings, wanted: Mapping[str, int]) -> dict[str, int]:
    """Make or enlarge topics (name: partitions) and check what is there; returns how many partitions each has now.

    A topic with more partitions than wanted is left so, and all of them are to be read. Repeating is harmless, also by
    several workers at once. Raises ``StoreRefusedError`` for a topic that would lose events and cannot be mended here,
    ``StoreUnavailableError`` if Kafka cannot be reached.
    """
    admin = await open_admin(settings)
    try:
        with in_our_words(settings):
            await _refuse_lookalikes(admin, wanted)
            await _create(admin, settings, wanted)
            found = await _described(admin, list(wanted))
            _check_replicas(settings, found)
            await _grow(admin, settings, wanted, found)
            await _check_configs(admin, settings, list(wanted))
            return {name: max(len(found[name]["partitions"]), count) for name, count in wanted.items()}
    finally:
        await admin.close()


async def partitions_of(settings: KafkaSettings, topic: str) -> int:
    """How many partitions a topic has that is not ours; asking does not make it. Raises ``StoreRefusedError``."""
    admin = await open_admin(settings)
    try:
        with in_our_words(settings):
            # Of all topics: a broker may make one that is asked for by name.
            for found in await admin.describe_topics():
                if found["topic"] == topic:
                    return len(found["partitions"])
    finally:
        await admin.close()
    raise StoreRefusedError(
        f"topic {topic}: not at {settings.bootstrap}, or not to be seen by the user of kafka.username: make it first,"
        " or mend the connector's topic"
    )


async def _refuse_lookalikes(admin: Any, wanted: Mapping[str, int]) -> None:
    folded = {_folded(name): name for name in wanted}
    for there in await admin.list_topics():
        name = folded.get(_folded(there))
        if name is not None and name != there:
            raise StoreRefusedError(
                f"topic {name}: there is a topic {there}, and some brokers take the two for one:"
                " delete that one, or rename the workflow"
            )


async def _create(admin: Any, settings: KafkaSettings, wanted: Mapping[str, int]) -> None:
    configs = _configs(settings)
    answer = await admin.create_topics(
        [NewTopic(name, count, settings.replication_factor, topic_configs=configs) for name, count in wanted.items()]
    )
    visible: set[str] | None = None
    for name, code, *message in answer.topic_errors:
        error = for_code(code)
        if not code or error is TopicAlreadyExistsError:
            continue
        if error in NO_RIGHT:
            # Whoever may make none is told so even of one that is there.
            visible = set(await admin.list_topics()) if visible is None else visible
            if name in visible:
                continue
        raise _refused(settings, name, wanted[name], error, message[0] if message else "")


def _configs(settings: KafkaSettings) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(settings.min_insync),
        "retention.ms": str(millis(settings.retention)),
    }


def _refused(settings: KafkaSettings, name: str, partitions: int, error: type, message: str | None) -> StoreError:
    told = f"{error.__name__}{': ' + message if message else ''}"
    if error is InvalidReplicationFactorError:
        return StoreRefusedError(
            f"kafka.replicationFactor: {settings.replication_factor}: topic {name} cannot be made: {told}:"
            " add brokers, or lower the setting (and kafka.minInsync with it)"
        )
    if error is InvalidPartitionsError:
        return StoreRefusedError(f"partitions: {partitions}: topic {name} cannot have so many: {told}")
    if error in NO_RIGHT:
        return StoreRefusedError(
            f"{settings.user}: may not make topic {name} ({told}): grant it CREATE, or make the topic by hand with"
            f" {partitions} partitions and message.timestamp.type=LogAppendTime; it needs {RIGHTS} besides"
        )
    if getattr(error, "retriable", False):
        return StoreUnavailableError(f"kafka.bootstrap: {settings.bootstrap}: topic {name} cannot be made now: {told}")
    return StoreRefusedError(
        f"topic {name}: cannot be made: {told}: make it by hand with {partitions} partitions and"
        " message.timestamp.type=LogAppendTime"
    )


async def _described(admin: Any, names: Sequence[str]) -> dict[str, Any]:
    """Topics that are there, by name; a broker may need a moment to know of one that was just made."""
    for wait in (*_WAITS, None):
        topics = {topic["topic"]: topic for topic in await admin.describe_topics(list(names))}
        errors = [for_code(topic["error_code"]) for topic in topics.values() if topic["error_code"]]
        if not errors:
            break
        if wait is None or not all(error.retriable for error in errors):
            raise errors[0]
        await asyncio.sleep(wait)
    return topics


def _check_replicas(settings: KafkaSettings, found: Mapping[str, Any]) -> None:
    for name, topic in found.items():
        fewest = min(len(partition["replicas"]) for partition in topic["partitions"])
        if fewest < settings.replication_factor:
            raise StoreRefusedError(
                f"kafka.replicationFactor: {settings.replication_factor}: topic {name} has {fewest} replicas:"
                " reassign its partitions with kafka-reassign-partitions, or lower the setting"
            )


async def _grow(admin: Any, settings: KafkaSettings, wanted: Mapping[str, int], found: Mapping[str, Any]) -> None:
    for name, count in wanted.items():
        present = len(found[name]["partitions"])
        if present > count:
            log.warning(
                "topic has more partitions than wanted; all of them are used",
                extra={"action": "topic_larger", "topic": name, "partitions": present, "wanted": count},
            )
        elif present < count:
            try:
                await admin.create_partitions({name: NewPartitions(count)})
            except InvalidPartitionsError:
                # Another worker was quicker, perhaps with a larger number.
                if not await _shown(admin, name, count):
                    raise
            except NO_RIGHT as error:
                raise StoreRefusedError(
                    f"{settings.user}: may not enlarge topic {name} from {present} to {count} partitions"
                    f" ({type(error).__name__}): grant it ALTER, or enlarge the topic by hand with kafka-topics --alter"
                ) from error
            log.info("topic enlarged", extra={"action": "topic_enlarged", "topic": name, "partitions": count})


async def _shown(admin: Any, name: str, count: int) -> bool:
    """Whether so many partitions are there: the controller knows of them a moment before the brokers that are asked."""
    for wait in _WAITS:
        found = await _described(admin, [name])
        if len(found[name]["partitions"]) >= count:
            return True
        await asyncio.sleep(wait)
    return False


async def _check_configs(admin: Any, settings: KafkaSettings, names: Sequence[str]) -> None:
    try:
        found = await _configs_of(admin, names)
    except NO_RIGHT:
        log.warning(
            "whether the topics keep what they must is not known: grant DESCRIBE_CONFIGS",
            extra={"action": "topics_unchecked", "topics": list(names), "user": settings.user},
        )
        return
    if plain := _without_own(found):
        # A broker that makes topics by itself was asked for this one before we were.
        log.info("topics get their settings", extra={"action": "topic_configured", "topics": plain})
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, _configs(settings)) for name in plain]
        )
        for wait in _WAITS:
            # What the controller was told, the broker that is asked may learn a moment later.
            found = await _configs_of(admin, names)
            if not _without_own(found):
                break
            await asyncio.sleep(wait)
    for name, entries in found:
        _check_config(settings, name, {entry[0]: entry[1] for entry in entries})


def _without_own(found: Sequence[tuple[str, Sequence[Any]]]) -> list[str]:
    return [name for name, entries in found if not any(map(_of_its_own, entries))]


async def _configs_of(admin: Any, names: Sequence[str]) -> list[tuple[str, Sequence[Any]]]:
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    found = []
    for answer in answers:
        for code, _, _, name, entries in answer.resources:
            if code:
                raise for_code(code)(name)
            found.append((name, entries))
    return found


def _of_its_own(entry: Sequence[Any]) -> bool:
    return bool(entry[_SOURCE] == _DYNAMIC_TOPIC_CONFIG)


def _check_config(settings: KafkaSettings, name: str, config: Mapping[str, str]) -> None:
    remedy = "change it with kafka-configs --alter --entity-type topics"
    retention = int(config["retention.ms"])
    if retention != _UNLIMITED and retention < millis(settings.retention):
        raise StoreRefusedError(
            f"kafka.retention: {millis(settings.retention)} ms: topic {name} has retention.ms={retention}, which would"
            f" lose a backlog: {remedy}, or lower the setting"
        )
    if int(config["min.insync.replicas"]) < settings.min_insync:
        raise StoreRefusedError(
            f"kafka.minInsync: {settings.min_insync}: topic {name} has"
            f" min.insync.replicas={config['min.insync.replicas']}: {remedy}, or lower the setting"
        )
    for option, must in (("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "delete")):
        if config[option] != must:
            raise StoreRefusedError(f"topic {name} has {option}={config[option]}, must be {must}: {remedy}")
