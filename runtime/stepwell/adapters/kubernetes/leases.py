"""Leases as the API server keeps them: every change names the version that it changes, so of two one is refused.

Annotations hold what the spec of a Lease has no field for. Foreign annotations and labels are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from stepwell.adapters.kubernetes.connection import JSON, Access, AnswerError, Connection
from stepwell.adapters.kubernetes.errors import in_our_words, translated
from stepwell.ports.membership import Member

PREFIX = "stepwell.dev/"
COMPONENT = f"{PREFIX}component"
WORKER = "worker"
INSTALLATION = f"{PREFIX}installation"
DECLARED_DEAD = f"{PREFIX}declared-dead"
"""By whom. Whoever is told so is dead, and renews no more."""

_GROUP = "coordination.k8s.io"

RULES = ((_GROUP, ("leases",), ("get", "list", "create", "patch", "delete")),)
"""What a worker's Role allows in its own namespace: API group, resources, verbs. Nothing else is needed."""

_MERGE = "application/merge-patch+json"


class ConflictError(Exception):
    """It is there, and not as it was thought to be."""


class AbsentError(Exception):
    """It is not there."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One Lease, as it was read."""

    name: str
    uid: str
    version: str
    holder: str
    renewed_at: str
    """By the holder's own clock: compared with nothing but its value of before."""
    is_dead: bool
    member: Member


class Leases:
    """The Leases of one installation's workers in one namespace. Blocks; ``timeout`` is each request's, in seconds."""

    def __init__(self, access: Access, namespace: str, installation: str, *, duration: float, timeout: float) -> None:
        self._connection = Connection(access, timeout=timeout)
        self._namespace = namespace
        self._path = f"/apis/{_GROUP}/v1/namespaces/{quote(namespace, safe='')}/leases"
        self._labels = {COMPONENT: WORKER, INSTALLATION: installation}
        self._selector = ",".join(f"{key}={value}" for key, value in self._labels.items())
        self._duration = math.ceil(duration)

    def create(self, member: Member, holder: str) -> Found:
        """Raises ``ConflictError`` if there is one of that name."""
        now = _now()
        lease = {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "Lease",
            "metadata": {"name": member.name, "labels": self._labels, "annotations": _annotations(member)},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": self._duration,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }
        return _found(self._asked(member.name, "create", "POST", body=lease))

    def renew(self, member: Member, version: str) -> Found:
        """Raises ``ConflictError`` if it has another version, ``AbsentError`` if there is none."""
        change = {
            "metadata": {"resourceVersion": version, "annotations": _annotations(member)},
            "spec": {"renewTime": _now()},
        }
        return self._patched(member.name, "renew", change)

    def declare_dead(self, found: Found, by: str) -> None:
        """Raises ``ConflictError`` if it is not as it was found, ``AbsentError`` if there is none."""
        change = {"metadata": {"resourceVersion": found.version, "annotations": {DECLARED_DEAD: by}}}
        self._patched(found.name, "declare dead", change)

    def read(self, name: str) -> Found | None:
        """None: there is none."""
        try:
            return _found(self._asked(name, "read", "GET"))
        except AbsentError:
            return None

    def list(self) -> Sequence[Found]:
        """All that were there when this was asked, or later."""
        with in_our_words(f"Leases of {self._namespace}: list"):
            answer = self._connection.ask("GET", self._path, query={"labelSelector": self._selector})
        return [_found(lease) for lease in answer["items"]]

    def delete(self, name: str, *, uid: str, version: str | None = None) -> None:
        """Only this very one, and only if it has this version. Raises ``ConflictError``, ``AbsentError``."""
        preconditions = {"uid": uid} if version is None else {"uid": uid, "resourceVersion": version}
        self._asked(name, "delete", "DELETE", body={"preconditions": preconditions})

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.close()

    def _patched(self, name: str, verb: str, change: dict[str, Any]) -> Found:
        return _found(self._asked(name, verb, "PATCH", body=change, content_type=_MERGE))

    def _asked(
        self, whose: str, verb: str, method: str, *, body: object = None, content_type: str = JSON
    ) -> dict[str, Any]:
        what = f"Lease {self._namespace}/{whose}: {verb}"
        path = self._path if verb == "create" else f"{self._path}/{quote(whose, safe='')}"
        with in_our_words(what):
            try:
                return self._connection.ask(method, path, body=body, content_type=content_type)
            except AnswerError as error:
                if error.status == HTTPStatus.CONFLICT:
                    raise ConflictError(what) from error
                # To create one in a namespace that is not there is answered in the same way.
                if error.status == HTTPStatus.NOT_FOUND and verb != "create":
                    raise AbsentError(what) from error
                raise translated(error, what) from error


def _annotations(member: Member) -> dict[str, str]:
    return {f"{PREFIX}{field}": text for field, text in member.texts().items()}


def _now() -> str:
    """For people who look; the API server wants all six digits of the fraction."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _found(lease: Mapping[str, Any]) -> Found:
    """``lease`` is the server's, which leaves out what is empty."""
    metadata, spec = lease["metadata"], lease.get("spec", {})
    annotations: Mapping[str, str] = metadata.get("annotations", {})
    texts = {key.removeprefix(PREFIX): text for key, text in annotations.items() if key.startswith(PREFIX)}
    return Found(
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        holder=spec.get("holderIdentity", ""),
        renewed_at=spec.get("renewTime", ""),
        is_dead=DECLARED_DEAD in annotations,
        member=Member.of_texts(metadata["name"], texts),
    )
