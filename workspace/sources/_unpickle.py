"""Pickled arrays, read without running anything that the file names and without numpy's own unpickling code.

An allow-list of names is not enough: `numpy.dtype.__setstate__` trusts the file, and a crafted one crashes the
interpreter. So each permitted name stands for a stand-in that only *records*; an array is made by `np.frombuffer`
once its shape, strides and size are checked. The unpickler is the standard library's pure-Python one, cut down to the
instructions that arrays need: the C one takes GiBs of memory at the word of a file of nine bytes.
"""

import io
import pickle
import struct
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from ._common import check_size, native

_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


class Stored:
    """An array as the file describes it.

    `data` is its bytes, or the key of the storage that holds them. `strides` and `offset` count elements.
    `bfloat16`, which numpy lacks, is held as uint16 and comes out as float32.
    """

    dtype = np.dtype(np.uint8)
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    offset = 0
    data: bytes | str = b""
    bfloat16 = False

    @property
    def final_dtype(self) -> np.dtype:
        return np.dtype(np.float32) if self.bfloat16 else self.dtype

    @property
    def span(self) -> int:
        """Bytes from the beginning of the storage to the end of the last element."""
        reach = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        return (self.offset + reach + 1) * self.dtype.itemsize

    def array(self, raw: bytes) -> np.ndarray:
        """The array, from the bytes of its storage; a copy, in native byte order."""
        check_size(self.shape, self.final_dtype)
        if len(raw) < self.span:
            raise ValueError(f"is cut short: its array needs {self.span} bytes, {len(raw)} are there")
        flat = np.frombuffer(raw, self.dtype, count=self.span // self.dtype.itemsize)[self.offset :]
        steps = [step * self.dtype.itemsize for step in self.strides]
        array = native(np.array(np.lib.stride_tricks.as_strided(flat, self.shape, steps), order="C"))
        return (array.astype(np.uint32) << 16).view(np.float32) if self.bfloat16 else array


def record(data: Any, dtype: Any, shape: Any, strides: Any, offset: Any = 0) -> Stored:
    """A Stored whose numbers are of the right kind, whoever wrote them."""
    stored = Stored()
    shape, strides = tuple(shape), tuple(strides)
    if len(shape) > 8 or len(strides) != len(shape):
        raise ValueError(f"describes an array of {len(shape)} axes and {len(strides)} strides")
    if any(type(n) is not int or not 0 <= n < 1 << 40 for n in (*shape, *strides, offset)):
        raise ValueError("describes an array with impossible sizes")
    if not isinstance(dtype, _Dtype):
        raise ValueError("describes an array without a type")
    stored.data, stored.shape, stored.strides, stored.offset = data, shape, strides, offset
    stored.dtype, stored.bfloat16 = dtype.numpy, dtype.bfloat16
    return stored


def contiguous(shape: tuple[int, ...], fortran: bool = False) -> tuple[int, ...]:
    """Strides in elements of a contiguous array, last axis fastest; first axis fastest if `fortran`."""
    if fortran:
        return contiguous(shape[::-1])[::-1]
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def largest(tree: Any) -> Stored:
    """The array with the most voxels among nested dicts, lists and tuples."""
    found, seen, waiting = [], set(), [tree]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Stored):
            found.append(node)
        elif isinstance(node, dict):
            waiting += node.values()
        elif isinstance(node, list | tuple):
            waiting += node
    if not found:
        raise ValueError("holds no array")
    return max(found, key=lambda stored: prod(stored.shape))


# ------------------------------------------------------------------------------------------------ stand-ins for numpy
class _Dtype:
    """Stands for numpy.dtype and, made by `torch_dtype`, for a torch type."""

    bfloat16 = False

    def __init__(self, code: Any, *_: Any):
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or code not in _NUMBERS:
            raise ValueError(f"holds numpy type {str(code)[:20]!r} instead of plain numbers")
        self.numpy = np.dtype(code).newbyteorder("<")

    def set_state(self, state: Any) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order == ">":
            self.numpy = self.numpy.newbyteorder(">")
        elif order not in ("<", "|", "="):
            raise ValueError("holds numbers of unknown byte order")


def torch_dtype(code: str, order: str = "<") -> _Dtype:
    """A recorded type from numpy's code, or "bfloat16"; `order` is "<" or ">"."""
    dtype = _Dtype("u2" if code == "bfloat16" else code)
    dtype.bfloat16 = code == "bfloat16"
    dtype.set_state((3, order))
    return dtype


class _Array(Stored):
    """Stands for an empty numpy array, whose content follows as its state."""

    def set_state(self, state: Any) -> None:
        shape, dtype, fortran, raw = state[-4:]
        if isinstance(raw, str):  # Python 2 wrote bytes as text
            raw = raw.encode("latin1")
        if not isinstance(raw, bytes | bytearray):
            raise ValueError("holds an array of Python objects instead of numbers")
        vars(self).update(vars(record(raw, dtype, shape, contiguous(tuple(shape), bool(fortran)))))


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _ndarray:
        raise ValueError("holds a subclass of numpy.ndarray")
    return _Array()


def _ndarray(*_: Any) -> None:
    raise ValueError("builds an array in a way that numpy does not")


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Stored:
    if not isinstance(raw, bytes | bytearray):
        raise ValueError("holds an array without bytes")
    strides = contiguous(tuple(shape), fortran=order == "F")
    if axes is not None:
        shape, strides = [shape[axis] for axis in axes], [strides[axis] for axis in axes]
    return record(raw, dtype, shape, strides)


def _scalar(dtype: Any, raw: Any = b"") -> Stored:
    return record(raw, dtype, (), ())


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", b"latin1"):
        raise ValueError("names a text encoding that arrays do not use")
    return text.encode("latin1")


def _bytes(*given: Any) -> bytes:
    if given:
        raise ValueError("builds bytes in a way that numpy does not")
    return b""


_NUMPY: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _ndarray,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _bytes,
    ("builtins", "bytes"): _bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _NUMPY[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _NUMPY[f"{_core}.multiarray", "scalar"] = _scalar
    _NUMPY[f"{_core}.numeric", "_frombuffer"] = _frombuffer


# ------------------------------------------------------------------------------------------------ the unpickler
class _Instructions(dict):
    def __missing__(self, code: int) -> None:
        raise ValueError(f"is refused: pickle instruction 0x{code:02x} has no place in a file of arrays")


_ALLOWED = """
    PROTO FRAME GLOBAL STACK_GLOBAL BINPUT LONG_BINPUT PUT MEMOIZE BINGET LONG_BINGET GET MARK TUPLE EMPTY_TUPLE TUPLE1
    TUPLE2 TUPLE3 REDUCE STOP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING
    BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT POP DUP BINPERSID
"""
_CODES = [getattr(pickle, name)[0] for name in _ALLOWED.split()]
_Unpickler: Any = getattr(pickle, "_Unpickler")  # noqa: B009  private, and in every CPython: pickle's own fallback


class _Reader(_Unpickler):
    dispatch = _Instructions((code, _Unpickler.dispatch[code]) for code in _CODES)

    def __init__(self, data: bytes, names: Mapping[tuple[str, str], Any], storage: Callable[..., Any] | None):
        super().__init__(io.BytesIO(data), encoding="latin1")  # latin1: for arrays that Python 2 wrote
        self.names, self.storage = names, storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.names:
            raise ValueError(f"is refused: loading it would run {module[:60]}.{name[:60]}; save it as plain arrays")
        return self.names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self.storage is None or not isinstance(pid, tuple):
            raise ValueError("is refused: it points to something outside the file")
        return self.storage(*pid)

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Dtype | _Array) or not isinstance(state, tuple):
            raise ValueError("is refused: it sets the state of something that is not an array")
        self.stack[-1].set_state(state)

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(struct.unpack("<Q", self.read(8))[0])))

    def load_setitem(self) -> None:
        self._fill(self.stack.pop(-2), self.stack.pop())

    def load_setitems(self) -> None:
        self._fill(*self.pop_mark())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._fill(*items)

    def _fill(self, *items: Any) -> None:
        target = self.stack[-1]
        if type(target) is not dict or any(isinstance(key, tuple) for key in items[::2]):
            raise ValueError("is refused: it fills something that is not a plain dictionary")
        target.update(zip(items[::2], items[1::2], strict=True))

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict


def loads(
    data: bytes, names: Mapping[tuple[str, str], Any] | None = None, storage: Callable[..., Any] | None = None
) -> Any:
    """What a pickle describes: nested dicts, lists and tuples with `Stored` where an array is.

    Args:   names: stand-ins for further names that the file may use.  storage: called with a persistent id's parts.
    Raises: ValueError: the file names anything else, or uses an instruction that arrays do not need.
    """
    return _Reader(data, {**_NUMPY, **(names or {})}, storage).load()
