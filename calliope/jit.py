"""The one place that says how kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a hot function: no GIL, no allocation checks, C division, cached on disk."""
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))
