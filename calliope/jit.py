"""The one place that says how kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

import numba
from numba.core.dispatcher import Dispatcher

from calliope.kernel_cache import cache_of

F = TypeVar("F", bound=Callable[..., object])


@overload
def kernel(function: F) -> F: ...


@overload
def kernel(
    *, signature: Any = None, nogil: bool = True, inline: bool = False, fastmath: bool = False
) -> Callable[[F], F]: ...


def kernel(
    function: F | None = None,
    *,
    signature: Any = None,
    nogil: bool = True,
    inline: bool = False,
    fastmath: bool = False,
) -> F | Callable[[F], F]:
    """Compile a hot function: no GIL, no allocation checks, C division, cached on disk.

    With ``signature`` it is compiled when its module is imported, for these types alone, and
    never again. ``nogil=False`` keeps the GIL: for a call of a few nanoseconds, after which
    getting the GIL back could cost milliseconds. ``inline`` writes a helper into its callers
    before they are typed; ``fastmath`` lets floating-point sums be reordered.
    """

    def compile_kernel(function: F) -> F:
        dispatcher: Any = numba.njit(
            nogil=nogil,
            error_model="numpy",
            inline="always" if inline else "never",
            fastmath=fastmath,
        )(function)
        if not isinstance(dispatcher, Dispatcher):  # NUMBA_DISABLE_JIT: plain Python
            return function
        # numba's ``cache=True`` would choose a folder by its own rules, see kernel_cache.py; the
        # attribute is what it sets itself. May go when a function can be given a locator.
        cache = cache_of(function)
        if cache is not None:
            dispatcher._cache = cache  # type: ignore[attr-defined]
        if signature is not None:
            for types in signature if isinstance(signature, list) else [signature]:
                dispatcher.compile(types)
            dispatcher.disable_compile()
        return cast(F, dispatcher)

    return compile_kernel if function is None else compile_kernel(function)
