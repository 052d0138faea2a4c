"""What was last seen of the cluster: objects as they are told, never older than what was seen before.

Of our own kinds the JSON is kept, as bytes: ten thousand of them as Python's dictionaries would fill the memory. Of
everything else only what the plans need is kept. News are taken in any order and any number of times.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from stepwell_operator.cluster.writer import controller_of
from stepwell_operator.planning.drift import is_applied, owned_print
from stepwell_operator.planning.rollout import DeploymentSeen, Pods, PodSeen, deployment_seen, pod_seen
from stepwell_operator.specs.children import Child
from stepwell_operator.specs.names import MANAGER, WORKFLOW_LABEL


class Of(StrEnum):
    """What a key names."""

    WORKFLOW = "Workflow"
    RUN = "Run"


class Key(NamedTuple):
    """One object of ours, whether it exists or not."""

    of: Of
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Kept:
    """One object of ours."""

    uid: str
    version: str
    json: bytes

    def raw(self) -> dict[str, Any]:
        """The object, but for what the API server keeps of its history."""
        value: dict[str, Any] = json.loads(self.json)
        return value


@dataclass(frozen=True, slots=True)
class ChildSeen:
    """A child of a Workflow."""

    uid: str
    version: str
    owner: str
    """The uid of its controller."""
    owned: str
    """Digest of what the operator owns of it."""
    ours: bool
    """Whether the operator has applied it."""


class Cache:
    """For one event loop."""

    def __init__(self) -> None:
        self._ours: dict[Key, Kept] = {}
        self._counts: Counter[tuple[Of, str]] = Counter()
        self._runs_of: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._children: defaultdict[tuple[str, str], dict[Child, ChildSeen]] = defaultdict(dict)
        self._deployments: defaultdict[tuple[str, str], dict[str, DeploymentSeen]] = defaultdict(dict)
        self._pods: defaultdict[tuple[str, str], dict[str, tuple[str, PodSeen]]] = defaultdict(dict)
        self._workflow_of: dict[tuple[str, str, str], str] = {}
        """Of children and pods: a label may be changed, and then they are no longer that Workflow's."""

    # -- taking news --------------------------------------------------------------------------------------------------

    def see(self, raw: Mapping[str, Any], *, deleted: bool = False) -> list[Key]:
        """Note an object; the answer is what should be looked at because of it."""
        kind = raw["kind"]
        if kind in _OURS:
            return self._see_ours(Key(Of(kind), raw["metadata"]["namespace"], raw["metadata"]["name"]), raw, deleted)
        return self._see_other(kind, raw, deleted)

    def forget(self, kind: str, namespace: str, name: str) -> list[Key]:
        """There is no such object."""
        if kind in _OURS:
            return self._drop_ours(Key(Of(kind), namespace, name))
        workflow = self._workflow_of.pop((kind, namespace, name), None)
        if workflow is None:
            return []
        place = (namespace, workflow)
        self._children[place].pop(Child(kind, name), None)
        if kind == "Deployment":
            self._deployments[place].pop(name, None)
        if kind == "Pod":
            self._pods[place].pop(name, None)
        return [Key(Of.WORKFLOW, namespace, workflow)]

    def _see_ours(self, key: Key, raw: Mapping[str, Any], deleted: bool) -> list[Key]:  # noqa: FBT001  (private)
        before, metadata = self._ours.get(key), raw["metadata"]
        if before is not None and before.uid == metadata["uid"] and not newer(metadata, before.version):
            return []
        if deleted:
            return self._drop_ours(key) if before is None or before.uid == metadata["uid"] else []
        slim = {**raw, "metadata": {name: value for name, value in metadata.items() if name != "managedFields"}}
        data = json.dumps(slim, separators=(",", ":"), ensure_ascii=False).encode()
        self._counts[key.of, key.namespace] += key not in self._ours
        self._ours[key] = Kept(metadata["uid"], metadata["resourceVersion"], data)
        if key.of is Of.RUN:
            self._runs_of[key.namespace, _workflow_of(raw)].add(key.name)
            return [key]
        # Who waits for a Workflow is looked at when it comes, and when it is another one; not at each of its news.
        known = before is not None and before.uid == metadata["uid"]
        return [key, *([] if known else self.runs_of(key.namespace, key.name))]

    def _drop_ours(self, key: Key) -> list[Key]:
        before = self._ours.pop(key, None)
        if before is None:
            return []
        self._counts[key.of, key.namespace] -= 1
        if key.of is Of.RUN:
            self._runs_of[key.namespace, _workflow_of(before.raw())].discard(key.name)
            return [key]
        return [key, *self.runs_of(key.namespace, key.name)]

    def _see_other(self, kind: str, raw: Mapping[str, Any], deleted: bool) -> list[Key]:  # noqa: FBT001  (private)
        metadata = raw["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        workflow = (metadata.get("labels") or {}).get(WORKFLOW_LABEL)
        before = self._workflow_of.get((kind, namespace, name))
        if deleted or workflow is None:
            return self.forget(kind, namespace, name)
        changed = self.forget(kind, namespace, name) if before not in {None, workflow} else []
        self._workflow_of[kind, namespace, name] = workflow
        place = (namespace, workflow)
        fresh = self._put_pod(place, raw) if kind == "Pod" else self._put_child(place, kind, raw)
        return [*changed, *([Key(Of.WORKFLOW, namespace, workflow)] if fresh else [])]

    def _put_pod(self, place: tuple[str, str], raw: Mapping[str, Any]) -> bool:
        """Whether it differs in what the plans regard."""
        seen, before = pod_seen(raw), self._pods[place].get(raw["metadata"]["name"])
        self._pods[place][seen.name] = (raw["metadata"]["resourceVersion"], seen)
        return before is None or before[1] != seen

    def _put_child(self, place: tuple[str, str], kind: str, raw: Mapping[str, Any]) -> bool:
        metadata = raw["metadata"]
        child, before = Child(kind, metadata["name"]), self._children[place].get(Child(kind, metadata["name"]))
        if before is not None and before.uid == metadata["uid"] and not newer(metadata, before.version):
            return False
        seen = ChildSeen(
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            owner=controller_of(raw),
            owned=owned_print(raw, manager=MANAGER),
            ours=is_applied(raw, manager=MANAGER),
        )
        self._children[place][child] = seen
        same = before is not None and (before.uid, before.owner, before.owned) == (seen.uid, seen.owner, seen.owned)
        if kind == "Deployment":
            numbers, known = deployment_seen(raw), self._deployments[place].get(child.name)
            self._deployments[place][child.name] = numbers
            same = same and numbers == known
        return not same

    # -- telling ------------------------------------------------------------------------------------------------------

    def get(self, key: Key) -> Kept | None:
        """The object as it was last seen; None: there is none."""
        return self._ours.get(key)

    def keys(self, of: Of) -> list[Key]:
        """All objects of ours of a kind."""
        return [key for key in self._ours if key.of is of]

    def count(self, of: Of, namespace: str) -> int:
        """How many objects of ours of a kind a namespace has."""
        return self._counts[of, namespace]

    def runs_of(self, namespace: str, workflow: str) -> list[Key]:
        """The Runs of a Workflow."""
        return [Key(Of.RUN, namespace, name) for name in self._runs_of.get((namespace, workflow), ())]

    def children(self, namespace: str, workflow: str) -> Mapping[Child, ChildSeen]:
        """What is labelled as a Workflow's, whoever made it."""
        return self._children.get((namespace, workflow), {})

    def pods(self, namespace: str, workflow: str) -> Pods:
        """Its Deployments and pods."""
        place = (namespace, workflow)
        pods = [pod for _, pod in self._pods.get(place, {}).values()]
        return Pods(deployments=dict(self._deployments.get(place, {})), pods=pods)

    def known(self, kind: str) -> Iterator[tuple[str, str, str]]:
        """Namespace, name and version of all that is known of a kind."""
        if kind in _OURS:
            yield from ((key.namespace, key.name, self._ours[key].version) for key in self.keys(Of(kind)))
            return
        for (found, namespace, name), workflow in list(self._workflow_of.items()):
            if found == kind:
                yield namespace, name, self._version(kind, (namespace, workflow), name)

    def _version(self, kind: str, place: tuple[str, str], name: str) -> str:
        if kind == "Pod":
            return self._pods[place][name][0]
        return self._children[place][Child(kind, name)].version

    def uids(self, of: Of) -> Iterable[str]:
        """Of all objects of ours of a kind."""
        return (self._ours[key].uid for key in self.keys(of))


_OURS = frozenset({"Workflow", "Run"})


def newer(metadata: Mapping[str, Any], version: str) -> bool:
    """Whether an object is newer than a version of it.

    Versions of one kind are whole numbers that grow: https://kep.k8s.io/5504 . From a server that has others, the news
    are believed to come in their order.
    """
    fresh = str(metadata["resourceVersion"])
    if fresh.isdecimal() and version.isdecimal():
        return int(fresh) > int(version)
    return fresh != version


def _workflow_of(raw: Mapping[str, Any]) -> str:
    return str(((raw.get("spec") or {}).get("workflowRef") or {}).get("name", ""))
