"""Kafka carries the news that runs moved; nothing that was acknowledged waits for it, and losing it loses no run."""

from stepwell.adapters.kafka.codec import Malformed
from stepwell.adapters.kafka.consumer import KafkaEvents
from stepwell.adapters.kafka.depths import KafkaDepths
from stepwell.adapters.kafka.producer import KafkaPublisher
from stepwell.adapters.kafka.settings import KafkaSettings, Login, SaslMechanism, Secret, Security, Start
from stepwell.adapters.kafka.source import KafkaSource, Positions
from stepwell.adapters.kafka.topics import ensure_topics, topic_name
from stepwell.ports.membership import Shard
from stepwell.ports.stream import Reach

__all__ = [
    "KafkaDepths",
    "KafkaEvents",
    "KafkaPublisher",
    "KafkaSettings",
    "KafkaSource",
    "Login",
    "Malformed",
    "Positions",
    "Reach",
    "SaslMechanism",
    "Secret",
    "Security",
    "Shard",
    "Start",
    "ensure_topics",
    "topic_name",
]
