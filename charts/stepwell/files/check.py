"""A Workflow of rules alone is applied, a Run of it must come to its end; both are gone afterwards, whatever happened.

Speaks to the API server with the standard library alone, so that it shows the release and no client of it.
"""

# ruff: noqa: INP001, T201  (a script that stands alone and speaks to whoever runs it)

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FINAL = "Done"

Object = dict[str, Any]


class Cluster:
    """The two kinds of one namespace, over HTTP."""

    def __init__(self, namespace: str) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        host = f"[{host}]" if ":" in host else host
        self._url = f"https://{host}:{port}/apis/stepwell.dev/v1alpha1/namespaces/{namespace}"
        self._trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        """The answer; a refusal is told in the API server's words and ends the check."""
        request = urllib.request.Request(  # noqa: S310  (the scheme is above)
            f"{self._url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=10, context=self._trust) as answer:  # noqa: S310  (as above)
                found: Object = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            sys.exit(f"{method} {path}: {json.load(error).get('message', error.reason)}")


def conditions(found: Object) -> dict[str, Object]:
    """By their types."""
    return {condition["type"]: condition for condition in found.get("status", {}).get("conditions", [])}


def told(found: Object) -> str:
    """What an object says about itself, in one line."""
    said = "; ".join(
        f"{kind}={condition['status']} ({condition.get('reason', '')}: {condition.get('message', '')})"
        for kind, condition in conditions(found).items()
    )
    return f"{found['kind']} {found['metadata']['name']}: {said or 'no condition yet: is the operator running?'}"


def wait(cluster: Cluster, workflow: Object, run: Object, deadline: float) -> None:
    """Returns when the run has completed; exits with what is known if it does not."""
    name = run["metadata"]["name"]
    while time.monotonic() < deadline:
        run = cluster.call("GET", f"runs/{name}")
        finished = conditions(run).get("Finished", {}).get("status") == "True"
        if finished and run["status"].get("currentStatus") == FINAL:
            print(f"run {run['status'].get('runID', '')} came to {FINAL}")
            return
        if finished or conditions(run).get("Refused", {}).get("status") == "True":
            break
        time.sleep(0.5)
    workflow = cluster.call("GET", f"workflows/{workflow['metadata']['name']}")
    sys.exit(f"the run did not complete\n{told(workflow)}\n{told(run)}")


def main() -> None:
    """The whole check."""
    objects = json.loads(Path(__file__).with_name("objects.json").read_text())
    cluster = Cluster(objects["namespace"])
    deadline = time.monotonic() + objects["timeoutSeconds"]
    workflow = cluster.call("POST", "workflows?fieldValidation=Strict", objects["workflow"])
    path = f"workflows/{workflow['metadata']['name']}"
    print(f"{path} applied")
    try:
        run = cluster.call("POST", "runs?fieldValidation=Strict", objects["run"])
        try:
            wait(cluster, workflow, run, deadline)
        finally:
            cluster.call("DELETE", f"runs/{run['metadata']['name']}")
    finally:
        cluster.call("DELETE", path)


if __name__ == "__main__":
    main()
