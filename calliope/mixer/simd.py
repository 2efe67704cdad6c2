"""What the kernels need from the machine that numba does not say by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from calliope.media import Plane


def _flat(plane: Plane) -> Plane:
    """The memory of a 2-D array from its first to its last element, as one contiguous row.

    Rows may be strided, elements of a row must be adjacent; element ``(r, c)`` is found at
    ``r * plane.strides[0] + c`` (uint8). Padding between rows is part of the view.
    """
    length = (plane.shape[0] - 1) * plane.strides[0] + plane.shape[1]
    return np.lib.stride_tricks.as_strided(plane, (length,), (1,))


if TYPE_CHECKING or numba.config.DISABLE_JIT:
    flat = _flat
else:

    @intrinsic
    def flat(_typing: Any, plane: Any) -> Any:
        view = types.Array(plane.dtype, 1, "C")

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            source = make_array(signature.args[0])(context, builder, arguments[0])
            stride = cgutils.unpack_tuple(builder, source.strides)[0]
            rows, columns = cgutils.unpack_tuple(builder, source.shape)
            one = context.get_constant(types.intp, 1)
            length = builder.add(builder.mul(builder.sub(rows, one), stride), columns)
            result = make_array(view)(context, builder)
            populate_array(
                result,
                data=source.data,
                shape=[length],
                strides=[one],
                itemsize=source.itemsize,
                meminfo=source.meminfo,
                parent=source.parent,
            )
            return impl_ret_borrowed(context, builder, view, result._getvalue())

        return view(plane), generate
