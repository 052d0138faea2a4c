"""Leases as the API server keeps them: every change names the version that it changes, so of two one is refused.

Annotations hold what the spec of a Lease has no field for. Foreign annotations and labels are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from kubernetes import client

from stepwell.adapters.kubernetes.errors import in_our_words, translated
from stepwell.ports.membership import Member

PREFIX = "stepwell.dev/"
COMPONENT = f"{PREFIX}component"
WORKER = "worker"
INSTALLATION = f"{PREFIX}installation"
DECLARED_DEAD = f"{PREFIX}declared-dead"
"""By whom. Whoever is told so is dead, and renews no more."""

RULES = (("coordination.k8s.io", ("leases",), ("get", "list", "create", "patch", "delete")),)
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
    renewed_at: datetime | None
    """By the holder's own clock: compared with nothing but its value of before."""
    is_dead: bool
    member: Member


class Leases:
    """The Leases of one installation's workers in one namespace. Blocks; ``timeout`` is each request's, in seconds."""

    def __init__(
        self, configuration: client.Configuration, namespace: str, installation: str, *, duration: float, timeout: float
    ) -> None:
        # The next beat is the repetition; ``False`` is urllib3's.
        configuration.retries = False
        self._client = client.ApiClient(configuration)
        self._api = client.CoordinationV1Api(self._client)
        self._namespace = namespace
        self._labels = {COMPONENT: WORKER, INSTALLATION: installation}
        self._selector = ",".join(f"{key}={value}" for key, value in self._labels.items())
        self._duration = math.ceil(duration)
        self._options: dict[str, Any] = {"_request_timeout": (timeout, timeout)}

    def create(self, member: Member, holder: str) -> Found:
        """Raises ``ConflictError`` if there is one of that name."""
        now = _now()
        lease = client.V1Lease(
            api_version="coordination.k8s.io/v1",
            kind="Lease",
            metadata=client.V1ObjectMeta(name=member.name, labels=self._labels, annotations=_annotations(member)),
            spec=client.V1LeaseSpec(
                holder_identity=holder,
                lease_duration_seconds=self._duration,
                acquire_time=now,
                renew_time=now,
                lease_transitions=0,
            ),
        )
        return _found(self._asked(member.name, "create", self._api.create_namespaced_lease, body=lease))

    def renew(self, member: Member, version: str) -> Found:
        """Raises ``ConflictError`` if it has another version, ``AbsentError`` if there is none."""
        change = {
            "metadata": {"resourceVersion": version, "annotations": _annotations(member)},
            "spec": {"renewTime": _now().isoformat()},
        }
        return self._patched(member.name, "renew", change)

    def declare_dead(self, found: Found, by: str) -> None:
        """Raises ``ConflictError`` if it is not as it was found, ``AbsentError`` if there is none."""
        change = {"metadata": {"resourceVersion": found.version, "annotations": {DECLARED_DEAD: by}}}
        self._patched(found.name, "declare dead", change)

    def read(self, name: str) -> Found | None:
        """None: there is none."""
        try:
            return _found(self._asked(name, "read", self._api.read_namespaced_lease, name=name))
        except AbsentError:
            return None

    def list(self) -> Sequence[Found]:
        """All that were there when this was asked, or later."""
        what = f"Leases of {self._namespace}: list"
        with in_our_words(what):
            answer = self._api.list_namespaced_lease(self._namespace, label_selector=self._selector, **self._options)
        return [_found(lease) for lease in answer.items]

    def delete(self, name: str, *, uid: str, version: str | None = None) -> None:
        """Only this very one, and only if it has this version. Raises ``ConflictError``, ``AbsentError``."""
        preconditions = client.V1Preconditions(uid=uid, resource_version=version)
        body = client.V1DeleteOptions(preconditions=preconditions)
        self._asked(name, "delete", self._api.delete_namespaced_lease, name=name, body=body)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()  # type: ignore[no-untyped-call]  # (their types end here)

    def _patched(self, name: str, verb: str, change: dict[str, Any]) -> Found:
        patch = self._api.patch_namespaced_lease
        return _found(self._asked(name, verb, patch, name=name, body=change, _content_type=_MERGE))

    def _asked(self, whose: str, verb: str, call: Any, **arguments: Any) -> Any:
        what = f"Lease {self._namespace}/{whose}: {verb}"
        with in_our_words(what):
            try:
                return call(namespace=self._namespace, **arguments, **self._options)
            except client.ApiException as error:
                if error.status == HTTPStatus.CONFLICT:
                    raise ConflictError(what) from error
                # To create one in a namespace that is not there is answered in the same way.
                if error.status == HTTPStatus.NOT_FOUND and verb != "create":
                    raise AbsentError(what) from error
                raise translated(error, what) from error


def _annotations(member: Member) -> dict[str, str]:
    return {f"{PREFIX}{field}": text for field, text in member.texts().items()}


def _now() -> datetime:
    """For people who look. The API server wants a fraction, which a whole second would be written without."""
    now = datetime.now(UTC)
    return now.replace(microsecond=max(1, now.microsecond))


def _found(lease: Any) -> Found:
    """``lease`` is a ``V1Lease`` of the server's, so nothing of it is missing that its type lets be missing."""
    annotations: dict[str, str] = lease.metadata.annotations or {}
    texts = {key.removeprefix(PREFIX): text for key, text in annotations.items() if key.startswith(PREFIX)}
    return Found(
        name=lease.metadata.name,
        uid=lease.metadata.uid,
        version=lease.metadata.resource_version,
        holder=lease.spec.holder_identity or "",
        renewed_at=lease.spec.renew_time,
        is_dead=DECLARED_DEAD in annotations,
        member=Member.of_texts(lease.metadata.name, texts),
    )
