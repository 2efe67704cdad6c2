"""ICE servers: what browsers are told to use, as JSON and as Link headers.

The server itself needs none: it has host candidates only, see ``sdp.finish_answer`` for its public
address. Credentials by ``ice.turn_secret`` are those of coturn's ``use-auth-secret``
(draft-uberti-behave-turn-rest-00): user "expiry:nonce", password base64(HMAC-SHA1(secret, user)).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass

from calliope.clock import Clock, SystemClock
from calliope.config import IceConfig


@dataclass(frozen=True, slots=True)
class IceServer:
    """One STUN or TURN server for a browser; ``username`` and ``credential`` for TURN only."""

    url: str
    username: str = ""
    credential: str = ""

    def as_json(self) -> dict[str, object]:
        """An ``RTCIceServer`` dictionary of the browser's."""
        if not self.username:
            return {"urls": [self.url]}
        return {"urls": [self.url], "username": self.username, "credential": self.credential}

    def as_link(self) -> str:
        """A ``Link`` header's value (RFC 9725 section 4.6)."""
        link = f'<{self.url}>; rel="ice-server"'
        if not self.username:
            return link
        return (
            f"{link}; username={_quoted(self.username)}; "
            f'credential={_quoted(self.credential)}; credential-type="password"'
        )


class IceServers:
    """The configured servers, with fresh credentials for each browser that asks."""

    def __init__(self, config: IceConfig, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()

    @property
    def ttl_s(self) -> int:
        """For how many seconds what :meth:`issue` says may be used."""
        return self._config.ttl_s

    def issue(self) -> list[IceServer]:
        """The servers for one browser."""
        username, credential = self._credentials()
        return [IceServer(url) for url in self._config.stun] + [
            IceServer(url, username, credential) for url in self._config.turn
        ]

    def _credentials(self) -> tuple[str, str]:
        config = self._config
        if not config.turn_secret:
            return config.turn_username, config.turn_credential
        expiry_s = self._clock.unix_ms() // 1000 + config.ttl_s
        username = f"{expiry_s}:{secrets.token_hex(8)}"
        digest = hmac.digest(config.turn_secret.encode(), username.encode(), hashlib.sha1)
        return username, base64.b64encode(digest).decode()


def _quoted(text: str) -> str:
    """A quoted-string (RFC 9110 section 5.6.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
