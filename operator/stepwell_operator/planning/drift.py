"""Whether a child is as it was applied, by the server's own record of which fields are whose.

Server-side apply keeps, in ``managedFields``, every field that a manager applied last and still owns. A field that
somebody else has overwritten or taken is not among them any more, and one that is applied no longer must go: so what
the operator owns, with the values that stand there, has to be exactly what it wants.
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_UNOWNED = frozenset({"apiVersion", "kind"})
_NAMING = frozenset({"name", "namespace"})


def wanted_print(wanted: Mapping[str, Any]) -> str:
    """A digest of a manifest, equal to ``owned_print`` of the object once it was applied."""
    whole: dict[str, Any] = {key: value for key, value in wanted.items() if key not in _UNOWNED}
    whole["metadata"] = {key: value for key, value in wanted["metadata"].items() if key not in _NAMING}
    return _digest(whole)


def owned_print(there: Mapping[str, Any], *, manager: str) -> str:
    """A digest of what of an object is the manager's."""
    return _digest(owned(there, manager=manager))


def owned(there: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
    """The part of an object that was applied by ``manager``, with the values that are there now."""
    fields: dict[str, Any] = {}
    for entry in there["metadata"].get("managedFields") or ():
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields = entry.get("fieldsV1") or {}
    part = _project(there, fields) if fields else {}
    return part if isinstance(part, dict) else {}


def is_applied(there: Mapping[str, Any], *, manager: str) -> bool:
    """Whether the manager has applied this object, ever."""
    return any(
        entry.get("manager") == manager and entry.get("operation") == "Apply"
        for entry in there["metadata"].get("managedFields") or ()
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _project(value: Any, fields: Mapping[str, Any]) -> Any:
    """What of ``value`` the field set names; a leaf, and a field that is owned as a whole, is named by an empty set."""
    inner = {key: sub for key, sub in fields.items() if key != "."}
    if not inner:
        return value
    if isinstance(value, Mapping):
        named = {key[2:]: sub for key, sub in inner.items() if key.startswith("f:")}
        return {key: _project(value[key], sub) for key, sub in named.items() if key in value}
    if isinstance(value, list):
        # In the order in which they stand there, which is that in which they were applied.
        parts = [(_name(key), sub) for key, sub in inner.items()]
        return [_project(item, sub) for item in value for name, sub in parts if _is(item, name)]
    return value


def _name(key: str) -> Any:
    """What tells an item of a list: its value (``v:``), or the mapping of its keys (``k:``)."""
    return json.loads(key[2:])


def _is(item: Any, name: Any) -> bool:
    if isinstance(item, Mapping) and isinstance(name, Mapping):
        return all(item.get(part) == known for part, known in name.items())
    return bool(item == name)
