"""What the API server or the way to it may answer instead of a result, sorted by what is to be done about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException

from stepwell.adapters.kubernetes.connection import AnswerError
from stepwell.errors import StoreError, StoreRefusedError, StoreUnavailableError

_MENDED_BY_SOMEBODY: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "it does not understand the request",
    HTTPStatus.UNAUTHORIZED: "the service account's token is not accepted: is it mounted, and of this cluster?",
    HTTPStatus.FORBIDDEN: "the service account must be allowed to get, list, create, patch and delete Leases there",
    HTTPStatus.NOT_FOUND: "there is no such namespace, or the API server has no Leases",
    HTTPStatus.UNPROCESSABLE_ENTITY: "the worker's name must be a DNS name, and what it holds must fit into 256 KiB",
}


@contextmanager
def in_our_words(what: str) -> Iterator[None]:
    """Translate what the client raises inside, except a conflict or an absence that the caller expects and catches.

    ``what`` names the object and what was done to it. The server's own text is not told: it may quote what was sent.
    """
    try:
        yield
    except (AnswerError, HTTPException, OSError) as error:
        raise translated(error, what) from error


def translated(error: Exception, what: str) -> StoreError:
    """A fault of the API server in the words of ``StoreError``."""
    status = error.status if isinstance(error, AnswerError) else 0
    remedy = _MENDED_BY_SOMEBODY.get(status)
    if remedy is not None:
        return StoreRefusedError(f"{what}: the API server answers {status}: {remedy}")
    told = f"status {status}" if status else type(error).__name__
    return StoreUnavailableError(f"{what}: the API server cannot do it now: {told}")
