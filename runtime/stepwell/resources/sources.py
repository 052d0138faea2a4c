"""Where runs come from by themselves: messages of a foreign topic, and the planned times of a schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stepwell.resources.elements import Named
from stepwell.resources.handlers import CelText, Expressions, FilterSpec, OptionsSpec
from stepwell.resources.schema import ATOMIC, FreeForm, Model, at_most_one, exactly_one
from stepwell.resources.types import (
    TIME_ZONE,
    TOPIC,
    Cron,
    Duration,
    Expression,
    Flag,
    ForeignIDText,
    PythonRef,
    StatusName,
)


class KafkaSource(Model):
    """A topic of the Kafka cluster that the connection Secret names."""

    topic: Annotated[str, Field(strict=True, min_length=1, max_length=249, pattern=TOPIC)] = Field(
        description="Name of the topic."
    )
    start_from: Literal["earliest", "latest"] = Field(
        "earliest", description="Where reading begins when no offset is stored. Default: earliest."
    )


class TriggerSpec(Model):
    """Starts a run."""

    foreign_id: Expression = Field(description="Expression of the foreign id, a string.")
    object: Expressions = Field(
        {}, description="Fields of the object, at most 32, each with its expression. Default: none."
    )
    start: StatusName | None = Field(None, description="Status to start in, as it is. Default: spec.start.")


class CallbackCallSpec(Model):
    """Calls a run back."""

    name: StatusName = Field(description="Name of the callback, as it is.")
    foreign_id: Expression = Field(description="Expression of the run's foreign id, a string.")
    payload: Expressions = Field(
        {}, description="Fields of the payload, at most 32, each with its expression. Default: none."
    )


class ConnectorRuleSpec(Model):
    """One rule; the first whose `when` holds decides, and a message for which none holds is passed over."""

    checked = (exactly_one("trigger", "callback"),)

    when: Expression | None = Field(
        None, description="Expression that must be true, at most 1024 characters. Default: always true."
    )
    trigger: TriggerSpec | None = Field(None, description="Start a run. Default: none.")
    callback: CallbackCallSpec | None = Field(None, description="Call a run back. Default: none.")


class ConnectorCelSpec(Model):
    """Rules that turn messages into triggers and callbacks."""

    rules: Annotated[tuple[ConnectorRuleSpec, ...], Field(min_length=1, max_length=32), ATOMIC] = Field(
        description="1 to 32 rules, tried in order."
    )


class ConnectorHandlerSpec(Model):
    """Turns each message into a trigger, a callback, or nothing: exactly one of python and cel."""

    checked = (exactly_one("python", "cel"),)

    python: PythonRef | None = Field(
        None, description="A function in the worker's image, module:function. Default: none."
    )
    cel: ConnectorCelSpec | None = Field(None, description="Rules in the Common Expression Language. Default: none.")


class ConnectorSpec(OptionsSpec, Named):
    """Turns the messages of a foreign topic into triggers and callbacks."""

    kafka: KafkaSource = Field(description="The topic that is read.")
    handler: ConnectorHandlerSpec = Field(description="What is done with a message: exactly one of python and cel.")


class ScheduleSpec(Named):
    """Starts at most one run for each planned time."""

    checked = (at_most_one("foreignID", "foreignIDFrom"),)

    cron: Cron = Field(description="Five cron fields: minute, hour, day of month, month, day of week.")
    time_zone: Annotated[str, Field(strict=True, min_length=3, max_length=64, pattern=TIME_ZONE)] = Field(
        "UTC", description="IANA time zone in which cron is read. Default: UTC."
    )
    foreign_id: ForeignIDText | None = Field(
        None, description="Foreign id of every run of this schedule. Default: the schedule's name and the planned time."
    )
    foreign_id_from: CelText | None = Field(
        None, description="Expression of the foreign id; `planned` is the planned time. Default: see foreignID."
    )
    object: FreeForm | None = Field(None, description="The run's object, any JSON object. Default: {}.")
    start: StatusName | None = Field(None, description="Status to start in. Default: spec.start.")
    filter: FilterSpec | None = Field(None, description="Decides whether a tick starts a run. Default: always.")
    suspend: Flag = Field(False, description="True: no tick starts a run. Default: false.")
    starting_deadline: Duration | None = Field(
        None, description="A tick that is later than this is missed. Default: no limit."
    )
    catch_up: Literal["Latest", "All", "None"] = Field(
        "Latest",
        description="Ticks to make up for after downtime: the latest, all (at most 100), or none. Default: Latest.",
    )
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = Field(
        "Allow",
        description="What a tick does while an earlier tick's run goes on: start, skip, replace. Default: Allow.",
    )
