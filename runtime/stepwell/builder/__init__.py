"""Workflows written in Python: decorated functions become a frozen definition, and every fault is told at once."""

from __future__ import annotations

from stepwell.builder.assembly import Assembled
from stepwell.builder.pieces import Code
from stepwell.builder.steps import Steps
from stepwell.builder.tokens import Callback
from stepwell.builder.values import HeaderSecret, InProcess, JsonLines, KafkaTopic, Options, Rule
from stepwell.builder.workflow import Workflow

__all__ = [
    "Assembled",
    "Callback",
    "Code",
    "HeaderSecret",
    "InProcess",
    "JsonLines",
    "KafkaTopic",
    "Options",
    "Rule",
    "Steps",
    "Workflow",
]
