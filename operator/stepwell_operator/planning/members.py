"""What the workers' records tell: which partitions nobody reads, and whether a suspended workflow is at rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stepwell.ports.membership import Member, Shard
from stepwell_operator.planning.workflow import Drain, Shares


def shares_of(topics: Mapping[str, int], members: Sequence[Member]) -> Shares:
    """How the partitions of these topics are held."""
    held = {shard for member in members for shard in member.held}
    wanted = [Shard(topic, partition) for topic, count in topics.items() for partition in range(count)]
    return Shares(topics=len(topics), partitions=len(wanted), unheld=sum(shard not in held for shard in wanted))


def drain_of(workflow: str, generation: int, members: Sequence[Member], *, unsent: bool) -> Drain:
    """What is under way; ``generation`` is that of the suspension."""
    return Drain(
        in_flight=sum(member.in_flight.get(workflow, 0) for member in members),
        behind=sum(member.seen.get(workflow, 0) < generation for member in members),
        unsent=unsent,
    )
