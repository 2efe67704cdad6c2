"""Control messages: what docs/protocol.md shows is accepted, what it does not is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope import control
from calliope.errors import BadRequest, ClientError, TooLarge
from calliope.mixer.scene import Layout, Tile
from tests.protocol_examples import messages


@pytest.mark.parametrize("message", messages("Client to server"), ids=lambda m: str(m["type"]))
def test_every_documented_client_message_is_understood(message: dict[str, Any]) -> None:
    assert control.parse(json.dumps(message)) is not None


def test_the_documented_layout_is_what_the_server_writes() -> None:
    documented = next(m for m in messages("Server to client") if m["type"] == "layout")
    tiles = tuple(Tile(**tile) for tile in documented["tiles"])
    layout = Layout(documented["view"], documented["serial"], tuple(documented["canvas"]), tiles)
    assert control.layout_message(layout, documented["pts"]) == documented


def test_values_arrive_typed() -> None:
    assert control.parse('{"type":"chat","text":"  hi "}') == control.Chat("hi")
    assert control.parse(b'{"type":"state","muted":true}') == control.State(muted=True)
    assert control.parse('{"type":"volume","id":"p1","gain":1}') == control.Volume("p1", 1.0)
    assert control.parse('{"type":"view","name":"auto","later":1}') == control.View("auto")


def test_unknown_types_are_ignored() -> None:
    assert control.parse('{"type":"from-the-future","x":[1]}') is None


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "no json",
        "[]",
        '"chat"',
        "{}",
        '{"type":7}',
        '{"type":"chat"}',
        '{"type":"chat","text":""}',
        '{"type":"chat","text":"   "}',
        '{"type":"chat","text":["x"]}',
        json.dumps({"type": "chat", "text": "x" * 1001}),
        '{"type":"chat","text":"\\ud800"}',
        '{"type":"state","muted":1}',
        '{"type":"state","camera":"yes"}',
        '{"type":"reaction","emoji":""}',
        json.dumps({"type": "reaction", "emoji": "x" * 17}),
        '{"type":"volume","id":"p1"}',
        '{"type":"volume","id":"p1","gain":-0.1}',
        '{"type":"volume","id":"p1","gain":2.1}',
        '{"type":"volume","id":"p1","gain":true}',
        '{"type":"volume","id":"p1","gain":NaN}',
        '{"type":"volume","id":3,"gain":1}',
        '{"type":"view","name":"mosaic"}',
        '{"type":"view","name":["grid"]}',
        '{"type":"stats"}',
        b"\xff\xfe",
        "[" * 20_000,
    ],
)
def test_malformed_messages_are_refused_with_a_sentence(raw: str | bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        control.parse(raw)
    assert caught.value.code == "bad_message"
    assert caught.value.detail.endswith(".")


def test_a_message_over_60_kib_is_too_large() -> None:
    with pytest.raises(TooLarge):
        control.parse(json.dumps({"type": "chat", "text": "x" * 61_441}))


@given(st.one_of(st.text(), st.binary(), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
).map(json.dumps)))  # fmt: skip
def test_nothing_but_a_client_error_comes_of_garbage(raw: str | bytes) -> None:
    with contextlib.suppress(ClientError):
        control.parse(raw)


def test_a_long_chat_is_cut_into_runs_that_fit() -> None:
    chat = [{"id": i, "text": "ü" * 1000} for i in range(100)]
    runs = control.split_chat(chat, 3000, 61_000)
    assert [entry for run in runs for entry in run] == chat
    assert len(runs[0]) == 1
    assert all(len(control.dumps({"chat": list(run)}).encode()) < 61_440 for run in runs)


def test_an_empty_chat_is_one_empty_run() -> None:
    assert control.split_chat([], 100, 100) == [[]]
