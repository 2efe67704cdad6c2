"""The exceptions Calliope raises, typed by who must act.

::

    CalliopeError
    ├── ConfigError          the operator: an option has a value that cannot be used
    ├── ClientError          the caller: a request or message is not acceptable
    │   ├── BadRequest           400  malformed
    │   │   └── BadOffer             the SDP offer cannot be answered
    │   ├── Unauthorized         401  no or wrong credentials
    │   ├── Forbidden            403  known, but not allowed
    │   ├── NotFound             404  no such session
    │   ├── RoomFull             409  every seat of the room is taken
    │   ├── TooLarge             413  more bytes than this resource takes
    │   ├── WrongType            415  a content type this resource does not speak
    │   ├── Unprocessable        422  well-formed, but cannot be done (an ICE restart)
    │   ├── TooMany              429  slow down; ``retry_after_s`` says until when
    │   └── Unavailable          503  the server cannot take a call now; ``retry_after_s``
    ├── MediaError           the sender of media: a packet or frame is not usable
    └── SeamError            the developer: a library changed under one of our seams

Every :class:`ClientError` carries a stable ``code`` for programs and a sentence for people; the
transport renders it as ``application/problem+json`` (RFC 9457), the control channel as ``error``.
"""

from __future__ import annotations

from typing import ClassVar


class CalliopeError(Exception):
    """Everything Calliope raises on purpose."""


class ConfigError(CalliopeError):
    """An option's value cannot be used; the message names option, value, range and origin."""


class ClientError(CalliopeError):
    """A request or message is not acceptable; nothing was changed by it."""

    status: ClassVar[int] = 400
    code: str = "bad_request"

    def __init__(
        self, detail: str, *, code: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code


class BadRequest(ClientError):
    """400: malformed."""


class BadOffer(BadRequest):
    """400: the SDP offer cannot be answered."""

    code = "bad_offer"


class Unauthorized(ClientError):
    """401: no or wrong credentials."""

    status = 401
    code = "unauthorized"


class Forbidden(ClientError):
    """403: known, but not allowed."""

    status = 403
    code = "forbidden"


class NotFound(ClientError):
    """404: no such session or resource."""

    status = 404
    code = "not_found"


class RoomFull(ClientError):
    """409: every seat of the room is taken."""

    status = 409
    code = "room_full"


class TooLarge(ClientError):
    """413: more bytes than this resource takes."""

    status = 413
    code = "too_large"


class WrongType(ClientError):
    """415: a content type this resource does not speak."""

    status = 415
    code = "wrong_type"


class Unprocessable(ClientError):
    """422: well-formed, but cannot be done."""

    status = 422
    code = "unprocessable"


class TooMany(ClientError):
    """429: slow down; ``retry_after_s`` says until when."""

    status = 429
    code = "too_many"


class Unavailable(ClientError):
    """503: the server cannot take a call now; ``retry_after_s`` says when to try again."""

    status = 503
    code = "unavailable"


class MediaError(CalliopeError):
    """A packet or frame from outside is not usable; it is dropped and counted."""


class SeamError(CalliopeError):
    """A library no longer has the private name one of our seams leans on."""
