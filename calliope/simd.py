"""Vectors for the kernels: 128 bits, which SSE and NEON both have, each with a twin in NumPy.

numba leaves vectorising to LLVM, which finds sums of rows but not the gathers of a column pass; so
the kernels name the operations they want. Each is one or two instructions in compiled code. With
the JIT disabled its Python body runs instead, which also says exactly what it does. Offsets count
elements and are not checked. A vector is ``Bytes`` (16 uint8), ``Words`` (8 int16) or ``Longs``
(4 int32).
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import llvmlite.binding
import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped_cgutils
from numba.extending import intrinsic, models, register_model
from numba.np import arrayobj as untyped_arrays

from calliope.media import Plane

Bytes: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.int16]
Longs: TypeAlias = npt.NDArray[np.int32]
F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T", bound=np.generic)


def _has_feature(name: str) -> bool:
    """Whether an x86 CPU that kernels are compiled for has this feature: this machine's, unless
    numba was told of another (``NUMBA_CPU_FEATURES``, ``NUMBA_CPU_NAME=generic``)."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    told = vars(numba.config).get("CPU_FEATURES")
    if told is not None:
        return f"+{name}" in told.split(",")
    return bool(llvmlite.binding.get_host_cpu_features().get(name))


HAS_SSSE3 = _has_feature("ssse3")
"""Whether two operations that LLVM cannot name portably are one instruction here."""


class Vector(types.Type):
    """A 128-bit register as numba sees it."""

    def __init__(self, bits: int) -> None:
        super().__init__(f"vector{128 // bits}x{bits}")
        self.llvm = ir.VectorType(ir.IntType(bits), 128 // bits)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)  # type: ignore[no-untyped-call]


BYTES, WORDS, LONGS = Vector(8), Vector(16), Vector(32)
_I32 = ir.IntType(32)
cgutils: Any = untyped_cgutils
arrays: Any = untyped_arrays
pointer_to: Any = types.CPointer
_PLAIN = bool(vars(numba.config).get("DISABLE_JIT"))


def lowered(result: types.Type, emit: Callable[..., Any]) -> Callable[[F], F]:
    """Use ``emit`` in compiled code in place of the decorated body.

    ``emit(builder, *values)`` builds and returns the LLVM value; what :func:`start_of` gave comes
    to it as a pointer, an integer as 64 bits.
    """

    def replace(body: F) -> F:
        if _PLAIN:
            return body

        def typed(_typing: Any, *kinds: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                plain = []
                for kind, value in zip(signature.args, values, strict=True):
                    if isinstance(kind, types.Integer):
                        plain.append(context.cast(builder, value, kind, types.int64))
                    else:
                        plain.append(value)
                made = emit(builder, *plain)
                return context.get_dummy_value() if result is types.void else made

            return result(*kinds), generate

        typed.__name__ = typed.__qualname__ = body.__name__
        # numba folds arguments by the signature it sees, and would make a tuple of ``*kinds``.
        wanted = inspect.signature(body)
        context = inspect.Parameter("_typing", inspect.Parameter.POSITIONAL_ONLY)
        parameters = [
            parameter.replace(kind=inspect.Parameter.POSITIONAL_ONLY)
            for parameter in wanted.parameters.values()
        ]
        typed.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
        return cast(F, intrinsic(typed))

    return replace


def _constant(vector: ir.VectorType, values: list[int]) -> ir.Constant:
    return ir.Constant(vector, values)


def _load(kind: Vector) -> Callable[..., Any]:
    def emit(builder: Any, pointer: Any, offset: Any) -> Any:
        place = builder.bitcast(builder.gep(pointer, [offset]), kind.llvm.as_pointer())
        return builder.load(place, align=1)

    return emit


def _load_one(extend: str) -> Callable[..., Any]:
    def emit(builder: Any, pointer: Any, offset: Any) -> Any:
        return getattr(builder, extend)(
            builder.load(builder.gep(pointer, [offset])), ir.IntType(64)
        )

    return emit


def _cast(bits: int) -> Callable[..., Any]:
    def emit(builder: Any, pointer: Any, offset: Any) -> Any:
        return builder.bitcast(builder.gep(pointer, [offset]), ir.IntType(bits).as_pointer())

    return emit


def _load_half(builder: Any, pointer: Any, offset: Any) -> Any:
    half = ir.VectorType(ir.IntType(8), 8)
    place = builder.bitcast(builder.gep(pointer, [offset]), half.as_pointer())
    return _shuffle(*range(8), *[8] * 8)(
        builder, builder.load(place, align=1), ir.Constant(half, None)
    )


def _store_one(builder: Any, pointer: Any, offset: Any, value: Any) -> None:
    place = builder.gep(pointer, [offset])
    builder.store(builder.trunc(value, place.type.pointee), place)


def _copy(builder: Any, source: Any, begin: Any, target: Any, offset: Any, count: Any) -> None:
    cgutils.raw_memcpy(
        builder, builder.gep(target, [offset]), builder.gep(source, [begin]), count, 1
    )


def _store(builder: Any, pointer: Any, offset: Any, value: Any) -> None:
    place = builder.bitcast(builder.gep(pointer, [offset]), value.type.as_pointer())
    builder.store(value, place, align=1)


def _shuffle(*picks: int) -> Callable[..., Any]:
    def emit(builder: Any, a: Any, b: Any) -> Any:
        return builder.shuffle_vector(a, b, _constant(ir.VectorType(_I32, len(picks)), list(picks)))

    return emit


def picked(*picks: int) -> Callable[[Bytes], Bytes]:
    """A function that puts the bytes of a vector in this order."""

    def pick(samples: Bytes) -> Bytes:
        return np.take(samples, picks)

    return lowered(BYTES, lambda builder, value: _shuffle(*picks)(builder, value, value))(pick)


def constant_bytes(*values: int) -> Callable[[], Bytes]:
    """A function that gives these bytes, signed or not, repeated to fill a vector."""
    repeated = [value & 255 for value in values] * (16 // len(values))

    def constant() -> Bytes:
        return np.array(repeated, np.uint8)

    return lowered(BYTES, lambda _builder: ir.Constant(BYTES.llvm, repeated))(constant)


def _store_half(first: int) -> Callable[..., None]:
    def emit(builder: Any, pointer: Any, offset: Any, value: Any) -> None:
        half = _shuffle(*range(first, first + 8))(builder, value, value)
        _store(builder, pointer, offset, half)

    return emit


def _splat(kind: Vector) -> Callable[..., Any]:
    def emit(builder: Any, value: Any) -> Any:
        lanes = kind.llvm.count
        narrow = builder.trunc(value, kind.llvm.element)
        empty = ir.Constant(kind.llvm, ir.Undefined)
        one = builder.insert_element(empty, narrow, ir.Constant(_I32, 0))
        return builder.shuffle_vector(
            one, empty, _constant(ir.VectorType(_I32, lanes), [0] * lanes)
        )

    return emit


def _widened(kind: Vector, extend: str) -> Callable[..., Any]:
    """Double the width of a vector's lanes."""

    def emit(builder: Any, value: Any) -> Any:
        lanes = kind.llvm.count
        wide = ir.VectorType(ir.IntType(256 // lanes), lanes)
        return getattr(builder, extend)(value, wide)

    return emit


def _packed(name: str, lowest: int, highest: int) -> Callable[..., Any]:
    """Two vectors to one of half the lanes' width, saturated; ``name`` is its x86 intrinsic.

    Spelt out in portable operations, LLVM widens them and their neighbours to 256 bits, which
    costs more on CPUs of 128-bit lanes.
    """

    def emit(builder: Any, a: Any, b: Any) -> Any:
        wide, lanes = a.type.element.width, 2 * a.type.count
        result = ir.VectorType(ir.IntType(wide // 2), lanes)
        if HAS_SSSE3:
            kind = ir.FunctionType(result, [a.type, a.type])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b])
        value = _shuffle(*range(lanes))(builder, a, b)
        low = _constant(value.type, [lowest] * lanes)
        high = _constant(value.type, [highest] * lanes)
        value = builder.select(builder.icmp_signed("<", value, low), low, value)
        value = builder.select(builder.icmp_signed(">", value, high), high, value)
        return builder.trunc(value, result)

    return emit


def _emit_high_product(builder: Any, a: Any, b: Any) -> Any:
    wide = builder.mul(_widened(WORDS, "zext")(builder, a), _widened(WORDS, "zext")(builder, b))
    half = _constant(wide.type, [16] * 8)
    return builder.trunc(builder.lshr(wide, half), WORDS.llvm)


def _emit_dot_words(builder: Any, a: Any, b: Any) -> Any:
    wide = builder.mul(_widened(WORDS, "sext")(builder, a), _widened(WORDS, "sext")(builder, b))
    return builder.add(
        _shuffle(0, 2, 4, 6)(builder, wide, wide), _shuffle(1, 3, 5, 7)(builder, wide, wide)
    )


def _emit_dot_bytes(builder: Any, a: Any, b: Any) -> Any:
    if HAS_SSSE3:
        call = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(WORDS.llvm, [BYTES.llvm, BYTES.llvm]),
            "llvm.x86.ssse3.pmadd.ub.sw.128",
        )
        return builder.call(call, [a, b])
    wide = builder.mul(_widened(BYTES, "zext")(builder, a), _widened(BYTES, "sext")(builder, b))
    even = _shuffle(*range(0, 16, 2))(builder, wide, wide)
    return builder.add(even, _shuffle(*range(1, 16, 2))(builder, wide, wide))


def _emit_gather(builder: Any, value: Any, picks: Any) -> Any:
    value = builder.bitcast(value, BYTES.llvm)
    if HAS_SSSE3:
        call = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(BYTES.llvm, [BYTES.llvm, BYTES.llvm]),
            "llvm.x86.ssse3.pshuf.b.128",
        )
        return builder.bitcast(builder.call(call, [value, picks]), WORDS.llvm)
    gathered = ir.Constant(BYTES.llvm, ir.Undefined)
    for lane in range(16):
        at = ir.Constant(_I32, lane)
        picked = builder.extract_element(value, builder.extract_element(picks, at))
        gathered = builder.insert_element(gathered, picked, at)
    return builder.bitcast(gathered, WORDS.llvm)


def _emit_scaled(builder: Any, a: Any, b: Any) -> Any:
    if HAS_SSSE3:
        kind = ir.FunctionType(WORDS.llvm, [WORDS.llvm, WORDS.llvm])
        name = "llvm.x86.ssse3.pmul.hr.sw.128"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b])
    wide = builder.mul(_widened(WORDS, "sext")(builder, a), _widened(WORDS, "sext")(builder, b))
    wide = builder.add(wide, _constant(wide.type, [1 << 14] * 8))
    return builder.trunc(builder.ashr(wide, _constant(wide.type, [15] * 8)), WORDS.llvm)


def _emit_average(builder: Any, a: Any, b: Any) -> Any:
    wide = builder.add(_widened(BYTES, "zext")(builder, a), _widened(BYTES, "zext")(builder, b))
    one = _constant(wide.type, [1] * 16)
    return builder.trunc(builder.lshr(builder.add(wide, one), one), BYTES.llvm)


def _emit_prefetch(builder: Any, pointer: Any, offset: Any) -> None:
    place = builder.bitcast(builder.gep(pointer, [offset]), ir.IntType(8).as_pointer())
    call = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [place.type, _I32, _I32, _I32]),
        "llvm.prefetch.p0",
    )
    builder.call(call, [place, *(ir.Constant(_I32, flag) for flag in (0, 3, 1))])


def _emit_add_bytes(builder: Any, a: Any, b: Any) -> Any:
    kind = ir.FunctionType(a.type, [a.type, a.type])
    call = cgutils.get_or_insert_function(builder.module, kind, "llvm.uadd.sat.v16i8")
    return builder.call(call, [a, b])


def _emit_interleaved(first: int) -> Callable[..., Any]:
    picks = [pick for lane in range(first, first + 8) for pick in (lane, lane + 16)]
    return _shuffle(*picks)


def _emit_raised(first: int) -> Callable[..., Any]:
    def emit(builder: Any, value: Any) -> Any:
        zero = ir.Constant(BYTES.llvm, None)
        return builder.bitcast(_emit_interleaved(first)(builder, zero, value), WORDS.llvm)

    return emit


@lowered(BYTES, _load(BYTES))
def load_bytes(array: Plane, offset: int) -> Bytes:
    """16 elements of a uint8 array."""
    return array[offset : offset + 16].copy()


@lowered(BYTES, _load_half)
def load_half(array: Plane, offset: int) -> Bytes:
    """8 elements of a uint8 array, then 8 times 0."""
    return np.concatenate((array[offset : offset + 8], np.zeros(8, np.uint8)))


@lowered(WORDS, _load(WORDS))
def load_words(array: Words, offset: int) -> Words:
    """8 elements of an int16 array."""
    return array[offset : offset + 8].copy()


@lowered(types.int64, _load_one("zext"))
def byte_at(array: Plane, offset: int) -> int:
    """One element of a uint8 array."""
    return int(array[offset])


@lowered(types.int64, _load_one("zext"))
def unsigned_at(array: npt.NDArray[np.uint16], offset: int) -> int:
    """One element of a uint16 array."""
    return int(array[offset])


@lowered(types.int64, _load_one("sext"))
def long_at(array: Longs, offset: int) -> int:
    """One element of an int32 array."""
    return int(array[offset])


@lowered(types.int64, lambda builder, pointer, offset: builder.load(builder.gep(pointer, [offset])))
def number_at(array: npt.NDArray[np.int64], offset: int) -> int:
    """One element of an int64 array."""
    return int(array[offset])


@lowered(pointer_to(types.int64), _cast(64))
def numbers_in(array: Plane, offset: int) -> npt.NDArray[np.int64]:
    """The memory from a byte on, as int64; it must be aligned to that, as for those below."""
    return array[offset:].view(np.int64)


@lowered(pointer_to(types.int32), _cast(32))
def longs_in(array: Plane, offset: int) -> Longs:
    """The memory from a byte on, as int32."""
    return array[offset:].view(np.int32)


@lowered(pointer_to(types.int16), _cast(16))
def words_in(array: Plane, offset: int) -> Words:
    """The memory from a byte on, as int16."""
    return array[offset:].view(np.int16)


@lowered(pointer_to(types.uint16), _cast(16))
def unsigned_in(array: Plane, offset: int) -> npt.NDArray[np.uint16]:
    """The memory from a byte on, as uint16."""
    return array[offset:].view(np.uint16)


@lowered(types.void, _store_one)
def put_byte(array: Plane, offset: int, value: int) -> None:
    """Put one element into a uint8 array, modulo 256."""
    array[offset] = value & 255


@lowered(types.void, _store_one)
def put_word(array: Words, offset: int, value: int) -> None:
    """Put one element into an int16 array; it must fit."""
    array[offset] = value


@lowered(types.void, _copy)
def copy_bytes(source: Plane, begin: int, target: Plane, offset: int, count: int) -> None:
    """Copy ``count`` elements between uint8 arrays that do not overlap."""
    target[offset : offset + count] = source[begin : begin + count]


@lowered(types.void, _store)
def store_words(array: Words, offset: int, value: Words) -> None:
    """Put 8 words into an int16 array."""
    array[offset : offset + 8] = value


@lowered(types.void, _store_half(0))
def store_low(array: Plane, offset: int, value: Bytes) -> None:
    """Put the first 8 bytes into a uint8 array."""
    array[offset : offset + 8] = value[:8]


@lowered(types.void, _store_half(8))
def store_high(array: Plane, offset: int, value: Bytes) -> None:
    """Put the last 8 bytes into a uint8 array."""
    array[offset : offset + 8] = value[8:]


@lowered(types.void, _emit_prefetch)
def prefetch(array: Plane, offset: int) -> None:
    """Ask for a cache line early; harmless beyond the array."""


@lowered(WORDS, _splat(WORDS))
def splat_words(value: int) -> Words:
    """The same word, modulo 2^16, in all lanes."""
    return np.full(8, np.int64(value).astype(np.int16))


@lowered(BYTES, lambda builder, value: builder.bitcast(_splat(WORDS)(builder, value), BYTES.llvm))
def splat_pairs(value: int) -> Bytes:
    """Two bytes, ``second << 8 | first``, over and over."""
    return np.full(8, np.int64(value).astype(np.int16)).view(np.uint8)


@lowered(BYTES, _emit_interleaved(0))
def interleave_low(a: Bytes, b: Bytes) -> Bytes:
    """``a0 b0 a1 b1 .. a7 b7``."""
    return np.stack((a[:8], b[:8]), axis=1).reshape(16)


@lowered(BYTES, _emit_interleaved(8))
def interleave_high(a: Bytes, b: Bytes) -> Bytes:
    """``a8 b8 .. a15 b15``."""
    return np.stack((a[8:], b[8:]), axis=1).reshape(16)


@lowered(WORDS, _emit_raised(0))
def raise_low(value: Bytes) -> Words:
    """The first 8 bytes times 256, modulo 2^16."""
    return (value[:8].astype(np.uint16) << 8).view(np.int16)


@lowered(WORDS, _emit_raised(8))
def raise_high(value: Bytes) -> Words:
    """The last 8 bytes times 256, modulo 2^16."""
    return (value[8:].astype(np.uint16) << 8).view(np.int16)


@lowered(WORDS, lambda builder, a, b: builder.add(a, b))
def add_words(a: Words, b: Words) -> Words:
    """Lane by lane, modulo 2^16."""
    return a + b


@lowered(LONGS, lambda builder, a, b: builder.add(a, b))
def add_longs(a: Longs, b: Longs) -> Longs:
    """Lane by lane."""
    return a + b


@lowered(WORDS, lambda builder, a: builder.lshr(a, _constant(WORDS.llvm, [8] * 8)))
def upper_bytes(a: Words) -> Words:
    """The upper 8 bits of unsigned words."""
    return (a.view(np.uint16) >> 8).view(np.int16)


@lowered(WORDS, lambda builder, a: builder.shl(a, _constant(WORDS.llvm, [8] * 8)))
def raise_words(a: Words) -> Words:
    """Lane by lane times 256, modulo 2^16."""
    return a << 8


@lowered(WORDS, lambda builder, a, b: builder.sub(a, b))
def subtract_words(a: Words, b: Words) -> Words:
    """Lane by lane, modulo 2^16."""
    return a - b


@lowered(BYTES, _emit_add_bytes)
def add_bytes(a: Bytes, b: Bytes) -> Bytes:
    """Lane by lane, saturated."""
    return np.asarray(np.minimum(a.astype(np.int16) + b, 255), np.uint8)


@lowered(BYTES, _packed("llvm.x86.sse2.packuswb.128", 0, 255))
def pack_unsigned(a: Words, b: Words) -> Bytes:
    """Sixteen words as unsigned bytes, saturated."""
    return np.clip(np.concatenate((a, b)), 0, 255).astype(np.uint8)


@lowered(LONGS, lambda builder, a: builder.ashr(a, _constant(LONGS.llvm, [21] * 4)))
def shift_longs(a: Longs) -> Longs:
    """Lane by lane, 21 bits to the right."""
    return a >> 21


@lowered(WORDS, _emit_high_product)
def high_product(a: Words, b: Words) -> Words:
    """The upper 16 bits of the unsigned 32-bit products."""
    product = a.view(np.uint16).astype(np.uint32) * b.view(np.uint16)
    return (product >> 16).astype(np.uint16).view(np.int16)


@lowered(WORDS, _emit_dot_bytes)
def dot_bytes(a: Bytes, b: Bytes) -> Words:
    """Sums of pairs of products, ``a`` unsigned, ``b`` signed; they must fit 16 bits signed."""
    products = a.astype(np.int16) * b.view(np.int8)
    return np.asarray(products.reshape(8, 2).sum(axis=1), np.int16)


@lowered(LONGS, _emit_dot_words)
def dot_words(a: Words, b: Words) -> Longs:
    """Sums of pairs of signed products."""
    return np.asarray((a.astype(np.int32) * b).reshape(4, 2).sum(axis=1), np.int32)


@lowered(WORDS, _emit_gather)
def gather(value: Words, picks: Bytes) -> Words:
    """Any of the 16 bytes of ``value`` in any order; ``picks`` are 0..15."""
    return value.view(np.uint8)[picks].view(np.int16)


@lowered(WORDS, _emit_scaled)
def scale_words(a: Words, b: Words) -> Words:
    """Signed products as fractions of 2^15, rounded to the nearest, ties up; modulo 2^16."""
    return np.asarray((a.astype(np.int32) * b + (1 << 14)) >> 15).astype(np.int16)


@lowered(BYTES, _emit_average)
def average_bytes(a: Bytes, b: Bytes) -> Bytes:
    """Means of unsigned bytes, lane by lane, halves rounded up."""
    return np.asarray((a.astype(np.uint16) + b + 1) >> 1).astype(np.uint8)


@lowered(WORDS, _shuffle(0, 1, 2, 3, 8, 9, 10, 11))
def first_halves(a: Words, b: Words) -> Words:
    """``a0 a1 a2 a3 b0 b1 b2 b3``."""
    return np.concatenate((a[:4], b[:4]))


@lowered(WORDS, _shuffle(4, 5, 6, 7, 12, 13, 14, 15))
def last_halves(a: Words, b: Words) -> Words:
    """``a4 a5 a6 a7 b4 b5 b6 b7``."""
    return np.concatenate((a[4:], b[4:]))


@lowered(LONGS, _shuffle(0, 2, 4, 6))
def evens(a: Longs, b: Longs) -> Longs:
    """``a0 a2 b0 b2``."""
    return np.concatenate((a[::2], b[::2]))


@lowered(LONGS, _shuffle(1, 3, 5, 7))
def odds(a: Longs, b: Longs) -> Longs:
    """``a1 a3 b1 b3``."""
    return np.concatenate((a[1::2], b[1::2]))


@lowered(WORDS, _packed("llvm.x86.sse2.packssdw.128", -32768, 32767))
def pack_words(a: Longs, b: Longs) -> Words:
    """Eight longs as words, saturated."""
    return np.clip(np.concatenate((a, b)), -32768, 32767).astype(np.int16)


@lowered(BYTES, _packed("llvm.x86.sse2.packsswb.128", -128, 127))
def pack_bytes(a: Words, b: Words) -> Bytes:
    """Sixteen words as signed bytes, saturated."""
    return np.clip(np.concatenate((a, b)), -128, 127).astype(np.int8).view(np.uint8)


@lowered(BYTES, lambda builder, a: builder.xor(a, _constant(BYTES.llvm, [128] * 16)))
def centre_bytes(a: Bytes) -> Bytes:
    """Signed bytes plus 128, as unsigned bytes."""
    return np.bitwise_xor(a, np.uint8(128))


def _start_of(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """The memory of an array from its first element on, to be read and written by offset.

    Rows of a 2-D array may be strided, elements of a row must be adjacent: uint8 element
    ``(r, c)`` is at ``r * array.strides[0] + c``. The array must outlive the result. Compiled, it
    is a bare pointer: no reference counts, no negative offsets, nothing that costs.
    """
    if array.ndim == 1:
        return array
    length = (array.shape[0] - 1) * array.strides[0] // array.itemsize + array.shape[1]
    return np.lib.stride_tricks.as_strided(array, (length,), (array.itemsize,))


def _typed_start_of(_typing: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arrays.make_array(signature.args[0])(context, builder, arguments[0]).data

    return pointer_to(array.dtype)(array), generate


def _skip(array: npt.NDArray[T], count: int) -> npt.NDArray[T]:
    """The memory ``count`` elements further on."""
    return array[count:]


def _typed_skip(_typing: Any, array: Any, count: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return array(array, count), generate


skip = _skip if _PLAIN else cast(Any, intrinsic(_typed_skip))
start_of = _start_of if _PLAIN else cast(Any, intrinsic(_typed_start_of))
