"""Each message of ``payments.events`` has its effect once: it opens an invoice, settles one, or is left aside.

A message that no model fits becomes a dead letter (where it stood, why, and a hash), and the next one goes on.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from stepwell import CallbackRequest, KafkaTopic, Message, Run, TriggerRequest, Workflow


class S(StrEnum):
    """Where an invoice can be."""

    OPEN = "Open"
    PAID = "Paid"
    BOOKED = "Booked"
    VOID = "Void"


class Invoice(BaseModel):
    """One invoice; amounts are in cents."""

    number: str
    amount: int = Field(gt=0)
    received: int = 0
    opened_at_offset: int


class Opened(BaseModel):
    """Somebody owes us money."""

    kind: Literal["opened"]
    invoice: str
    amount: int = Field(gt=0)


class Received(BaseModel):
    """Money came in."""

    kind: Literal["received"]
    invoice: str
    amount: int = Field(gt=0)


class Voided(BaseModel):
    """The invoice was a mistake."""

    kind: Literal["voided"]
    invoice: str


class Heartbeat(BaseModel):
    """The sender is alive; of no interest here."""

    kind: Literal["heartbeat"]


PaymentEvent = Annotated[Opened | Received | Voided | Heartbeat, Field(discriminator="kind")]

wf = Workflow("connector", object=Invoice, status=S, start=S.OPEN)


@wf.callback(S.OPEN)
async def received(run: Run[Invoice], payment: Received) -> Literal[S.OPEN, S.PAID]:
    """A part payment is a new visit of the same status."""
    run.object.received += payment.amount
    return S.PAID if run.object.received >= run.object.amount else S.OPEN


@wf.callback(S.OPEN)
async def voided(_run: Run[Invoice], _: Voided) -> Literal[S.VOID]:
    """Nothing is owed any more."""
    return S.VOID


@wf.step(S.PAID)
async def book(run: Run[Invoice]) -> Literal[S.BOOKED]:
    """Tell the ledger, with a key that makes a repeat harmless."""
    run.log.info("booked %s under %s", run.object.number, run.idempotency_key)
    return S.BOOKED


@wf.connector("payments", KafkaTopic("payments.events"))
def on_payment(message: Message[PaymentEvent]) -> TriggerRequest[Invoice] | CallbackRequest | None:
    """A function of the message alone; the stream's offset is its idempotency key."""
    match message.value:
        case Opened() as opened:
            invoice = Invoice(number=opened.invoice, amount=opened.amount, opened_at_offset=message.offset)
            return wf.trigger(opened.invoice, invoice)
        case Received() as payment:
            return received.request(payment.invoice, payment)
        case Voided() as void:
            return voided.request(void.invoice, void)
        case Heartbeat():
            return None
