"""The one place that says how kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

import numba

F = TypeVar("F", bound=Callable[..., object])


@overload
def kernel(function: F) -> F: ...


@overload
def kernel(*, signature: Any = None, nogil: bool = True) -> Callable[[F], F]: ...


def kernel(
    function: F | None = None, *, signature: Any = None, nogil: bool = True
) -> F | Callable[[F], F]:
    """Compile a hot function: no GIL, no allocation checks, C division, cached on disk.

    With ``signature`` it is compiled when its module is imported, for these types alone, and
    never again. ``nogil=False`` keeps the GIL: for a call of a few nanoseconds, after which
    getting the GIL back could cost milliseconds.
    """
    compile_kernel = numba.njit(signature, nogil=nogil, cache=True, error_model="numpy")
    if function is None:
        return cast(Callable[[F], F], compile_kernel)
    return cast(F, compile_kernel(function))
