"""Errors as ``application/problem+json`` (RFC 9457): one shape for everything that is refused."""

from __future__ import annotations

import http
import json

from aiohttp import web

from calliope.errors import ClientError

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "wrong_type",
    500: "internal",
}
_SENTENCES = {
    400: "The request is malformed.",
    404: "There is nothing at this address.",
    405: "This method does not work here; see the Allow header.",
    408: "The request did not arrive in time.",
    413: "The request is too large.",
    500: "The server failed to handle this request. It has been logged; please try again.",
}


def problem(
    status: int, code: str, detail: str, *, retry_after_s: int | None = None
) -> web.Response:
    """A refusal with a stable ``code`` for programs and a sentence for people."""
    body = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    headers = {"Cache-Control": "no-store"}
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return web.Response(
        status=status,
        text=json.dumps(body),
        content_type="application/problem+json",
        headers=headers,
    )


def from_client_error(error: ClientError) -> web.Response:
    """One of our own refusals."""
    return problem(error.status, error.code, error.detail, retry_after_s=error.retry_after_s)


def from_status(status: int) -> web.Response:
    """A refusal of the HTTP library's (no such route, wrong method, ...)."""
    status = status if status in CODES else 400 if status < 500 else 500
    detail = _SENTENCES.get(status, http.HTTPStatus(status).phrase + ".")
    return problem(status, CODES[status], detail)
