"""Which threads go first where there are more of them than cores.

A mixer has a deadline at every tick; the event loop and the decoders only have work. Where all
share one core, a mixer that is not preferred begins late whenever a packet or a camera is being
dealt with. Linux keeps a nice value for each thread (sched(7)), so a thread can ask for itself.
"""

from __future__ import annotations

import os
import sys
import threading

TIMELY = -5
"""The nice value of threads that have deadlines, relative to that of the process: three times the
share of a core, and it takes the core over from others when its tick is due."""


def go_first() -> bool:
    """Prefer the calling thread to the process's others; False where the system forbids it.

    Going first takes rights: root's, CAP_SYS_NICE, or a ``RLIMIT_NICE`` (``LimitNICE=`` of
    systemd). Without them nothing changes, and a busy machine ticks less evenly.
    """
    if sys.platform != "linux":  # elsewhere the value belongs to the process
        return False
    thread = threading.get_native_id()
    try:
        own = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, own + TIMELY)
    except OSError:
        return False
    return True
