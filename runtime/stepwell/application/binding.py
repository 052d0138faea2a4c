"""One function in one part: what its signature says, and the bound form that the engine calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_never

from stepwell.application.elements import Role
from stepwell.callables import (
    RAW_BYTES,
    Bound,
    BoundArm,
    BoundCallback,
    BoundDeletion,
    BoundHook,
    BoundMessage,
    BoundStep,
    BoundTick,
    Codec,
    HandlerShape,
    RawCodec,
    codec_of,
    inspect_arm,
    inspect_callback,
    inspect_deletion,
    inspect_hook,
    inspect_message,
    inspect_step,
    inspect_tick,
)

Function = Callable[..., Any]
Inspect = Callable[[Function, Mapping[str, Any] | None], HandlerShape]

_INSPECT: dict[Role, Inspect] = {
    Role.STEP: inspect_step,
    Role.CALLBACK: inspect_callback,
    Role.ARM: inspect_arm,
    Role.TICK: inspect_tick,
    Role.MESSAGE: inspect_message,
    Role.HOOK: inspect_hook,
    Role.DELETION: inspect_deletion,
}


def shape_in(role: Role, function: Function, names: Mapping[str, Any] | None = None) -> HandlerShape:
    """What a function's signature says about it in this part."""
    return _INSPECT[role](function, names)


def bound_in(
    role: Role, ref: str, function: Function, shape: HandlerShape, status_of: Callable[[str], str] = str
) -> Bound:
    """The bound form. Raises what pydantic raises for a payload type that it does not know."""
    match role:
        case Role.STEP:
            return BoundStep(ref=ref, function=function, is_async=shape.is_async)
        case Role.CALLBACK:
            payload = payload_codec(shape, "payload")
            return BoundCallback(ref=ref, function=function, is_async=shape.is_async, payload=payload)
        case Role.ARM:
            return BoundArm(ref=ref, function=function, is_async=shape.is_async)
        case Role.TICK:
            return BoundTick(ref=ref, function=function, is_async=shape.is_async)
        case Role.MESSAGE:
            value = RAW_BYTES if shape.payload is bytes else payload_codec(shape, "message")
            return BoundMessage(ref=ref, function=function, is_async=shape.is_async, value=value, whole=shape.whole)
        case Role.HOOK:
            own = status_of if shape.status_type is None else shape.status_type
            return BoundHook(ref=ref, function=function, is_async=shape.is_async, status_of=own)
        case Role.DELETION:
            return BoundDeletion(ref=ref, function=function, is_async=shape.is_async)
        case _:
            assert_never(role)


def payload_codec(shape: HandlerShape, label: str) -> Codec[Any]:
    """The codec of what a callback or connector is given."""
    if shape.payload is None:
        return RawCodec(label=label, mapping=False)
    return codec_of(shape.payload, label=label)
