"""The page's files, as they go to browsers: scripts and style sheets without their comments.

A good quarter of the page's source is comments, the types of its functions among them. They are for
who reads the source; no browser needs them, and a page that is light is one of the goals.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from aiohttp import ETag, web

TYPES = {".js": "text/javascript", ".css": "text/css"}
_COMMENT = re.compile(r"^[ \t]*(?://[^\n]*|/\*.*?\*/)", re.MULTILINE | re.DOTALL)


def without_comments(source: str) -> str:
    """A script or style sheet without the comments that begin a line.

    The lines stay, so that an error is found where the browser says it is. What stands behind code
    stays too: to tell a comment there from a text that looks like one takes a parser.
    """
    return _COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), source)


def answer_file(request: web.Request, path: Path) -> web.StreamResponse:
    """One file of the page; 304 to who has it already."""
    content_type = TYPES.get(path.suffix)
    if content_type is None:
        return web.FileResponse(path)
    body = _read(path, path.stat().st_mtime_ns)
    tag = hashlib.sha256(body).hexdigest()[:16]
    if any(known.value == tag for known in request.if_none_match or ()):
        response = web.Response(status=304)
    else:
        response = web.Response(body=body, content_type=content_type, charset="utf-8")
    response.etag = ETag(value=tag)
    return response


@lru_cache(maxsize=64)
def _read(path: Path, modified_ns: int) -> bytes:  # noqa: ARG001 - read anew once it was changed
    return without_comments(path.read_text("utf-8")).encode()
