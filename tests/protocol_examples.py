"""The examples of docs/protocol.md: every fenced ``json`` block is one valid message."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_PROTOCOL = Path(__file__).parents[1] / "docs" / "protocol.md"


def messages(direction: str) -> list[dict[str, Any]]:
    """The messages under the heading "### {direction}", e.g. "Client to server"."""
    text = _PROTOCOL.read_text(encoding="utf-8")
    section = text.split(f"### {direction}\n", 1)[1].split("\n### ", 1)[0]
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", section, re.S)]
