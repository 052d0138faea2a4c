"""What the API server answers, as a value: whether it took an object, and else every field and rule that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
from tests.cluster.apiserver import ApiServer

PLURALS = {"Workflow": "workflows", "Run": "runs"}
JSON = "application/json"
YAML = "application/yaml"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
_UNCHECKED = "some validation rules were not checked"
"""What the API server adds when the schema was broken already."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One thing that is wrong; ``field`` is empty where the object could not be read at all."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to one request."""

    code: int
    object: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        return self.code in {200, 201}

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Why it was refused; empty if it was not."""
        if self.accepted:
            return ()
        found = (self.object.get("details") or {}).get("causes") or []
        named = [
            Cause(field=cause.get("field", ""), message=cause.get("message", ""))
            for cause in found
            if _UNCHECKED not in cause.get("message", "")
        ]
        return tuple(named) or (Cause(field="", message=self.object["message"]),)


class Door:
    """The way into one namespace for objects of ours, with strict field validation; keeps its connection open."""

    def __init__(self, server: ApiServer, namespace: str, *, group: str = "stepwell.dev") -> None:
        self._base = f"{server.url}/apis/{group}/v1alpha1/namespaces/{namespace}"
        self._pool = urllib3.PoolManager(
            ca_certs=str(server.ca_file),
            headers={"Authorization": f"Bearer {server.token}"},
            retries=False,
            timeout=90,
        )

    def create(self, kind: str, content: str | Mapping[str, Any], *, dry: bool = True, strict: bool = True) -> Answer:
        """Ask for an object, as a mapping or as YAML text; nothing is stored unless ``dry`` is false."""
        as_text = isinstance(content, str)
        body = content if isinstance(content, str) else json.dumps(content)
        return self._ask("POST", PLURALS[kind], body, YAML if as_text else JSON, dry=dry, strict=strict)

    def replace(self, kind: str, content: Mapping[str, Any], *, sub: str = "", dry: bool = False) -> Answer:
        """Update an object that is there, or its subresource ``sub``."""
        path = f"{PLURALS[kind]}/{content['metadata']['name']}" + (f"/{sub}" if sub else "")
        return self._ask("PUT", path, json.dumps(content), JSON, dry=dry)

    def patch(self, kind: str, name: str, change: Mapping[str, Any], *, sub: str = "", dry: bool = False) -> Answer:
        """Merge a change into an object, or into its subresource ``sub``."""
        path = f"{PLURALS[kind]}/{name}" + (f"/{sub}" if sub else "")
        return self._ask("PATCH", path, json.dumps(change), MERGE, dry=dry)

    def apply(self, kind: str, content: Mapping[str, Any], *, manager: str, force: bool = False) -> Answer:
        """Apply on the server's side."""
        more = f"&fieldManager={manager}&force={'true' if force else 'false'}"
        path = f"{PLURALS[kind]}/{content['metadata']['name']}"
        return self._ask("PATCH", path, json.dumps(content), APPLY, dry=False, more=more)

    def get(self, kind: str, name: str) -> Answer:
        """Read an object."""
        return self._ask("GET", f"{PLURALS[kind]}/{name}", "", JSON, dry=False)

    def delete(self, kind: str, name: str) -> Answer:
        """Delete an object."""
        return self._ask("DELETE", f"{PLURALS[kind]}/{name}", "", JSON, dry=False)

    def _ask(
        self, method: str, path: str, body: str, content_type: str, *, dry: bool, strict: bool = True, more: str = ""
    ) -> Answer:
        query = f"fieldValidation={'Strict' if strict else 'Warn'}" + ("&dryRun=All" if dry else "") + more
        headers = {**self._pool.headers, "Content-Type": content_type, "Accept": JSON}
        url = f"{self._base}/{path}" + (f"?{query}" if method in {"POST", "PUT", "PATCH"} else "")
        answer = self._pool.request(method, url, body=body.encode() or None, headers=headers)
        warnings = tuple(answer.headers.getlist("Warning"))
        # A path that is not served, yet or at all, is answered in plain text.
        told = JSON in answer.headers.get("Content-Type", "")
        content = json.loads(answer.data) if told else {"message": answer.data.decode()}
        return Answer(code=answer.status, object=content, warnings=warnings)
