"""HTTP calls of handlers, on aiohttp: to services of the cluster and the world, never to this pod or its node."""

from stepwell.adapters.http.addresses import AddressPolicy
from stepwell.adapters.http.caller import AiohttpCaller

__all__ = ["AddressPolicy", "AiohttpCaller"]
