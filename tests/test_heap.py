"""Large blocks go back to the system, whatever was freed before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# hblks of struct mallinfo2 is how many blocks are mapped on their own.
PROGRAM = """
import ctypes, sys
from calliope import heap
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "a b c hblks e f g h i j".split()]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype, libc.malloc.restype = Info, ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[1] == "tuned":
    assert heap.return_large_blocks()
libc.free(libc.malloc(8 << 20))
before = libc.mallinfo2().hblks
block = libc.malloc(1 << 20)
print(libc.mallinfo2().hblks - before)
"""


def mapped(way: str) -> str:
    command = [sys.executable, "-c", PROGRAM, way]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps them")
def test_a_large_block_is_mapped_on_its_own_even_after_a_larger_one_was_freed() -> None:
    assert mapped("tuned") == "1"
    assert mapped("as it is") == "0"
