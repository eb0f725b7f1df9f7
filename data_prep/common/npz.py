"""`.npz` and `.npy` files from elsewhere, read without trusting them; needs no TensorFlow.

NumPy stores arrays of objects, such as sequences of different lengths, as pickles, and a pickle can
run any code when it is loaded. Here only the instructions that NumPy writes are accepted, and the
names in a pickle stand for functions of this module that check what they are given: it may hold
arrays of numbers and texts, and arrays of such arrays or of numbers. Nothing else is executed. Nor
may a few bytes, repeated or referred to over and over, stand for more memory than an honest file.
"""

import ast
import io
import math
import pickle
import pickletools
import re
import struct
from typing import Any

import numpy as np

from data_prep.common.raw_files import MAX_FILE_BYTES, FileFault
from data_prep.common.zips import in_short, read_zip

_NPY_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 10_000
_PLAIN_KINDS = "biufUS"
_SHOWN = 200  # characters
_DTYPE = re.compile(r"[<>|=]?[?biufcmMSUVO][0-9]{0,9}(\[\w+\])?")
_OBJECT_BYTES = 100  # roughly what a small object takes


def read_npz(data: bytes, names: list[str] | None = None) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` file by name, or those of `names`, in their order.

    Elements of arrays of objects are arrays themselves.

    Raises:
        FileFault: it is no such file, is damaged, lacks an array, or holds anything but arrays.
    """

    def choose(members: list[str]) -> list[str]:
        by_name = {member.removesuffix(".npy"): member for member in members}
        if len(by_name) < len(members):
            raise FileFault("holds two arrays of one name")
        for name in names or ():
            if name not in by_name:
                there = ", ".join(by_name) or "nothing"
                raise FileFault(f"has no array {name!r}, only {there[:_SHOWN]}")
        return members if names is None else [by_name[name] for name in names]

    arrays, allowance = {}, _Allowance()
    for member, content in read_zip(data, choose, max_bytes=MAX_FILE_BYTES):
        name = member.removesuffix(".npy")
        try:
            arrays[name] = _read_npy(content, allowance)
        except FileFault as fault:
            raise FileFault(f"array {name!r}: {fault}") from fault
    return arrays


def read_npy(data: bytes) -> np.ndarray:
    """Reads the array of an `.npy` file; otherwise as `read_npz`."""
    return _read_npy(data, _Allowance())


class _Allowance:
    """The memory that what the pickles of a file make may take."""

    def __init__(self):
        self._left = MAX_FILE_BYTES

    def spend(self, num_bytes: int) -> None:
        self._left -= num_bytes
        if self._left < 0:
            raise FileFault(f"its pickles make more than {MAX_FILE_BYTES} bytes")


def _read_npy(content: bytes, allowance: _Allowance) -> np.ndarray:
    """Reads one array in NumPy's `.npy` format, versions 1.0 to 3.0."""
    if content[:6] != _NPY_MAGIC or len(content) < 12 or content[6] not in (1, 2, 3):
        raise FileFault("not in the .npy format")
    width, code = (2, "<H") if content[6] == 1 else (4, "<I")
    (header_bytes,) = struct.unpack(code, content[8 : 8 + width])
    start = 8 + width + header_bytes
    if header_bytes > _MAX_HEADER_BYTES or start > len(content):
        raise FileFault("its header is damaged")
    try:
        header = ast.literal_eval(content[8 + width : start].decode("utf-8").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise FileFault("its header is damaged") from error
    dtype = _plain_dtype(descr, objects=True)
    if dtype.hasobject:
        return _unpickle(content[start:], allowance)
    return _from_bytes(content[start:], dtype, shape, fortran)


def _plain_dtype(descr: Any, objects: bool = False) -> np.dtype:
    """A dtype of numbers or texts (or, if `objects`, of objects) from its name, such as "<f4"."""
    try:
        dtype = np.dtype(descr) if isinstance(descr, str) and _DTYPE.fullmatch(descr) else None
    except (TypeError, ValueError, OverflowError) as error:
        raise FileFault(f"holds the unknown type {descr[:40]!r}") from error
    if dtype is None:
        raise FileFault(f"holds {str(descr)[:40]!r}; accepted: numbers, texts")
    # NumPy makes texts of no characters longer when it allocates them.
    if not (dtype.kind in _PLAIN_KINDS and dtype.itemsize) and not (objects and dtype.kind == "O"):
        raise FileFault(f"holds {dtype}; accepted: numbers, texts")
    return dtype


def _sizes(shape: Any) -> tuple[int, ...]:
    sizes = shape if isinstance(shape, tuple) else (-1,)
    if not all(type(size) is int and 0 <= size < 2**40 for size in sizes) or len(sizes) > 8:
        # Not the shape itself, which may have more digits than Python writes out.
        raise FileFault("has a shape that is not up to 8 whole numbers below 2^40")
    return sizes


def _from_bytes(data: Any, dtype: np.dtype, shape: Any, fortran: Any) -> np.ndarray:
    sizes = _sizes(shape)
    if not isinstance(data, bytes) or math.prod(sizes) * dtype.itemsize != len(data):
        raise FileFault(f"does not hold the {sizes} values of type {dtype} that it says")
    array = np.frombuffer(data, dtype)
    return array.reshape(sizes, order="F" if fortran is True else "C")


# ---------------------------------------------------------------------------------- pickles


# What NumPy writes. There are no dictionaries: they would set attributes of what is called.
_INSTRUCTIONS = frozenset(
    "PROTO FRAME MARK STOP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 BINFLOAT "
    "BINBYTES SHORT_BINBYTES BINSTRING SHORT_BINSTRING BINUNICODE SHORT_BINUNICODE TUPLE TUPLE1 "
    "TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST APPEND APPENDS PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET "
    "LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD".split()
)


def _unpickle(data: bytes, allowance: _Allowance) -> np.ndarray:
    try:
        for number, (instruction, argument, _) in enumerate(pickletools.genops(data)):
            allowance.spend(_OBJECT_BYTES)  # since one byte may make an object
            if instruction.name not in _INSTRUCTIONS:
                raise FileFault("its pickle holds something other than arrays")
            # The memo is as long as its largest number.
            if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > number:
                raise FileFault("its pickle is damaged (a number of its memo is too large)")
        result = _Unpickler(data, allowance).load()
        if not isinstance(result, _Array):
            raise FileFault("its pickle is no array")
        return result.value(allowance)
    except FileFault:
        raise
    except Exception as error:  # whatever a damaged pickle makes of Python's pickle machine
        reason = f"{type(error).__name__}: {in_short(error)}"
        raise FileFault(f"its pickle is damaged ({reason})") from error


class _Dtype:
    """Stands for a `numpy.dtype` in a pickle."""

    def __init__(self, name: Any, *_: Any):
        self.name = name
        self.byte_order = "="

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags, ...)
        if not isinstance(state, tuple) or len(state) < 8 or any(s is not None for s in state[2:5]):
            raise FileFault("its pickle holds a type that is neither numbers nor texts")
        self.byte_order = state[1]

    def value(self) -> np.dtype:
        dtype = _plain_dtype(self.name, objects=True)
        if self.byte_order not in ("<", ">", "=", "|"):
            raise FileFault(f"its pickle holds the byte order {str(self.byte_order)[:10]!r}")
        return dtype if self.byte_order in "=|" else dtype.newbyteorder(self.byte_order)


class _Array:
    """Stands for a `numpy.ndarray` in a pickle, which makes it only where it is in the result."""

    def __init__(self, *_: Any):
        self._state: tuple | None = None
        self._value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        # (version, shape, dtype, is Fortran order, bytes or list of elements)
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise FileFault("its pickle holds no proper array")
        self._state = state[1:]

    def value(self, allowance: _Allowance, is_element: bool = False) -> np.ndarray:
        if self._value is None:
            self._value = self._make(allowance, is_element)
        if is_element:
            # Each time anew: who reads the array may copy each of its elements.
            allowance.spend(_OBJECT_BYTES + self._value.nbytes)
        return self._value

    def _make(self, allowance: _Allowance, is_element: bool) -> np.ndarray:
        if self._state is None:
            raise FileFault("its pickle holds an array without content")
        shape, dtype, fortran, content = self._state
        dtype = dtype.value()
        if not dtype.hasobject:
            if isinstance(content, str):  # as Python 2 wrote bytes
                allowance.spend(len(content))
                content = content.encode("latin1")
            return _from_bytes(content, dtype, shape, fortran)
        if is_element:
            raise FileFault("its pickle holds arrays of arrays of arrays")
        kinds = set(map(type, content)) if isinstance(content, list) else {list}
        if kinds <= {_Array} and shape == (len(content),):
            array = np.empty(len(content), object)
            for index, item in enumerate(content):
                array[index] = item.value(allowance, is_element=True)
            return array
        # Sequences of one length, made an array of objects.
        if not kinds <= {int, float} or math.prod(_sizes(shape)) != len(content):
            raise FileFault("its pickle holds objects other than a row of arrays, or numbers")
        is_whole = kinds <= {int} and all(-(2**63) <= item < 2**63 for item in content)
        array = np.array(content, np.int64 if is_whole else np.float64)
        return array.reshape(shape, order="F" if fortran is True else "C")


class _Unpickler(pickle.Unpickler):
    """Reads a pickle with stand-ins in the place of NumPy's constructors."""

    def __init__(self, data: bytes, allowance: _Allowance):
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._allowance = allowance

    def _encode(self, text: Any = "", encoding: Any = "latin1") -> bytes:
        """How protocol 2 spells bytes: `_codecs.encode(text, "latin1")`, or `bytes()` of none."""
        if not isinstance(text, str) or encoding != "latin1":
            raise FileFault("its pickle holds something other than arrays")
        self._allowance.spend(len(text))
        return text.encode("latin1")

    def find_class(self, module: str, name: str) -> Any:
        names = {
            ("numpy", "ndarray"): None,  # an argument of the next two only
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy._core.multiarray", "_reconstruct"): _Array,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): self._encode,
            ("__builtin__", "bytes"): self._encode,
        }
        if (module, name) not in names:
            shown = f"{module}.{name}".encode("unicode_escape").decode()[:_SHOWN]
            raise FileFault(
                f"its pickle holds {shown}, which is no array: refused, nothing was executed"
            )
        return names[module, name]
