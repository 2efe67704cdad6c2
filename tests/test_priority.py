"""Threads with deadlines go first where the system lets them, and nobody else does."""

from __future__ import annotations

import os
import threading

import pytest

from calliope.priority import TIMELY, go_first


def nice_of(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def test_a_thread_goes_before_the_others_of_its_process() -> None:
    found: list[tuple[bool, int]] = []

    def run() -> None:
        found.append((go_first(), nice_of(threading.get_native_id())))

    usual = nice_of(threading.get_native_id())
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    ((allowed, nice),) = found
    assert nice == (max(-20, usual + TIMELY) if allowed else usual)
    assert nice_of(threading.get_native_id()) == usual


def test_where_it_is_forbidden_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(which: int, who: int, priority: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refuse)
    assert go_first() is False
