"""Where events lie, of all topics of a namespace: whoever reads a shard commits in the one group that is asked here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event
from stepwell.adapters.kafka.codec import key_of
from stepwell.adapters.kafka.consumer import KafkaEvents
from stepwell.adapters.kafka.driver import partition_of
from stepwell.adapters.kafka.producer import KafkaPublisher, TopicOf
from stepwell.ports.membership import Shard
from stepwell.ports.stream import Reach


class KafkaDepths:
    """Implements ``EventDepths``."""

    def __init__(self, events: KafkaEvents, publisher: KafkaPublisher, topic_of: TopicOf) -> None:
        self._events = events
        self._publisher = publisher
        self._topic_of = topic_of

    async def shards_of(self, events: Sequence[Event]) -> Mapping[RunID, Shard]:
        """The shard of each; see ``EventDepths.shards_of``."""
        topics = {self._topic_of(event) for event in events}
        counts = {topic: await self._publisher.partitions(topic) for topic in topics}
        found: dict[RunID, Shard] = {}
        for event in events:
            topic = self._topic_of(event)
            count = counts[topic]
            if count:
                found[event.run_id] = Shard(topic, partition_of(key_of(event), count))
        return found

    async def reach(self, shards: Collection[Shard]) -> Mapping[Shard, Reach]:
        """How far these shards go, whoever reads them. Raises ``StoreUnavailableError``."""
        return await self._events.reach(shards)
