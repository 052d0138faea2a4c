"""One request at a time asked of the API server: an answer is JSON, and anything else an ``ApiError``.

Bodies are plain JSON on both ways. The models of the client library are left aside: they cost more than all the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from stepwell.errors import StepwellError

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
JSON = "application/json"
SECONDS = 10.0
_CONNECTIONS = 32
_NOT_FOUND, _CONFLICT, _GONE, _TOO_MANY = 404, 409, 410, 429
_SERVER = 500


class ApiError(StepwellError):
    """The API server refused a request, or could not be reached (``status`` 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"the API server answered {status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def missing(self) -> bool:
        """There is no such object (any more)."""
        return self.status in {_NOT_FOUND, _GONE}

    @property
    def conflict(self) -> bool:
        """The object is not the one, or not as, the request said."""
        return self.status == _CONFLICT

    @property
    def passing(self) -> bool:
        """Trying again may help."""
        return self.status in {0, _CONFLICT, _TOO_MANY} or self.status >= _SERVER


class Api:
    """For one event loop."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    @classmethod
    async def open(cls, kubeconfig: str | None) -> Self:
        """By a kubeconfig, or, without one, by the pod's ServiceAccount. Raises ``ApiError``."""
        configuration = client.Configuration()
        try:
            if kubeconfig is None:
                config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # (their types end here)
            else:
                await config.load_kube_config(kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]  # (too)
        except (config.ConfigException, OSError) as error:
            raise ApiError(0, "", f"no cluster is configured: {error}") from error
        configuration.connection_pool_maxsize = _CONNECTIONS
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]  # (too)

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """An object, or a list."""
        return await self.request("GET", path, query=query)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
        accept: str = JSON,
        seconds: float = SECONDS,
    ) -> dict[str, Any]:
        """The answer's JSON. Raises ``ApiError``."""
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "stepwell-operator"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            answer = await self._api.rest_client.request(  # type: ignore[no-untyped-call]  # (too)
                method, url, headers=headers, body=body, _request_timeout=aiohttp.ClientTimeout(total=seconds)
            )
            data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "", f"the API server cannot be reached: {type(error).__name__}") from error
        if not 200 <= answer.status < 300:  # noqa: PLR2004  (a success is any of these)
            raise _refused(answer.status, data)
        return _object(data)


def _refused(status: int, data: bytes) -> ApiError:
    told = _object(data)
    return ApiError(status, str(told.get("reason", "")), str(told.get("message", "")))


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data) if data else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
