"""What the mistakes are made with; there is none in here."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel

from stepwell import Steps, Workflow


class S(StrEnum):
    CREATED = "Created"
    PAID = "Paid"
    SHIPPED = "Shipped"


class Other(StrEnum):
    PAID = "Paid"


class Order(BaseModel):
    total: int
    note: str | None = None


class Cat(BaseModel):
    name: str


class Verdict(BaseModel):
    approved: bool


@dataclass
class Deps:
    bank: str


@dataclass
class WrongDeps:
    shop: int


@asynccontextmanager
async def resources() -> AsyncGenerator[Deps]:
    yield Deps(bank="b")


wf = Workflow("orders", object=Order, status=S, start=S.CREATED, lifespan=resources)
bare = Workflow("bare", object=Order, status=S, start=S.CREATED)
part = Steps(Order, S, deps=Deps)
