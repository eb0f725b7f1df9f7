"""`.npz` files from elsewhere, read without trusting them; needs no TensorFlow.

NumPy stores arrays of objects, such as sequences of different lengths, as pickles, and a pickle can
run any code when it is loaded. Here a pickle is read by an unpickler that knows arrays of numbers
and texts, and arrays of such arrays, and nothing else: of Python's pickle machine it has only the
instructions that NumPy writes, and in place of NumPy's constructors functions that check what they
are given. A file with anything else is refused; nothing of it is executed. Nor may a few bytes,
compressed, repeated or referred to over and over, stand for more memory than an honest file takes.
"""

import ast
import io
import math
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from data_prep.common.raw_files import MAX_FILE_BYTES, FileFault

_NPY_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 10_000
_PLAIN_KINDS = "biufUS"
_MAX_NAME = 200  # characters
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DTYPE = re.compile(r"[<>|=]?[?biufcmMSUVO][0-9]{0,9}(\[\w+\])?")
_OBJECT_BYTES = 100  # roughly what a small object takes


def read_npz(data: bytes, names: list[str] | None = None) -> dict[str, np.ndarray]:
    """Reads arrays of an `.npz` file.

    Args:
        data: the file's bytes.
        names: of the arrays that are wanted; None: all there are.

    Returns:
        The arrays by name, in the order of `names` or of the file. Elements of arrays of objects
        are arrays themselves.

    Raises:
        FileFault: it is no such file, is damaged, lacks an array, or holds anything but arrays.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for name in members:
                if not name.isprintable() or len(name) > _MAX_NAME:
                    raise FileFault(f"holds the name {name[:40]!r}")
            if len(members) < len(archive.infolist()):
                raise FileFault("holds two arrays of one name")
            if names is None:
                names = list(members)
            missing = [name for name in names if name not in members]
            if missing:
                there = ", ".join(members) or "nothing"
                raise FileFault(f"has no array {missing[0]!r}, only {there[:_MAX_NAME]}")
            for name in names:
                # Others than those that NumPy writes would be unpacked without a limit.
                if members[name].compress_type not in _COMPRESSIONS:
                    raise FileFault(f"array {name!r}: its kind of compression is not NumPy's")
            size = sum(members[name].file_size for name in names)
            # A few bytes of a ZIP can stand for gigabytes.
            if size > MAX_FILE_BYTES:
                raise FileFault(
                    f"its arrays have {size} bytes, at most {MAX_FILE_BYTES} are accepted"
                )
            arrays, allowance = {}, _Allowance()
            for name in names:
                with archive.open(members[name]) as member:
                    content = member.read(members[name].file_size + 1)
                try:
                    arrays[name] = _read_npy(content, allowance)
                except FileFault as fault:
                    raise FileFault(f"array {name!r}: {fault}") from fault
            return arrays
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,  # impossible offsets
        NotImplementedError,  # strong encryption
        RuntimeError,  # encryption
        ValueError,
        struct.error,
    ) as error:
        if isinstance(error, FileFault):
            raise
        raise FileFault(f"not a readable .npz file ({_in_short(error)})") from error


def _in_short(error: Exception) -> str:
    """What an exception says, which may quote the file at any length."""
    return " ".join(str(error).split())[:200]


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


def _from_bytes(data: Any, dtype: np.dtype, shape: Any, fortran: Any) -> np.ndarray:
    sizes = shape if isinstance(shape, tuple) else (-1,)
    if not all(type(size) is int and 0 <= size < 2**40 for size in sizes) or len(sizes) > 8:
        raise FileFault(f"has the shape {repr(shape)[:40]}")
    if not isinstance(data, bytes) or math.prod(sizes) * dtype.itemsize != len(data):
        raise FileFault(f"does not hold the {sizes} values of type {dtype} that it says")
    array = np.frombuffer(data, dtype)
    return array.reshape(sizes, order="F" if fortran is True else "C")


# ---------------------------------------------------------------------------------- pickles


def _unpickle(data: bytes, allowance: _Allowance) -> np.ndarray:
    try:
        result = _Unpickler(data, allowance).load()
    except FileFault:
        raise
    except KeyError as error:  # of an instruction that is not in `_Unpickler.dispatch`
        raise FileFault("its pickle holds something other than arrays") from error
    except Exception as error:  # whatever a damaged pickle makes of Python's pickle machine
        reason = f"{type(error).__name__}: {_in_short(error)}"
        raise FileFault(f"its pickle is damaged ({reason})") from error
    if not isinstance(result, _Array):
        raise FileFault("its pickle is no array")
    return result.value(allowance)


class _Dtype:
    """Stands for a `numpy.dtype` in a pickle."""

    def __init__(self, name: Any, *_: Any):
        self.name = name
        self.byte_order = "="

    def set_state(self, state: Any) -> None:
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

    def set_state(self, state: Any) -> None:
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
        if (
            not isinstance(content, list)
            or not all(isinstance(item, _Array) for item in content)
            or shape != (len(content),)
        ):
            raise FileFault("its pickle holds objects other than a row of arrays")
        array = np.empty(len(content), object)
        for index, item in enumerate(content):
            array[index] = item.value(allowance, is_element=True)
        return array


class _Constructor:
    """A name in a pickle that may be called: makes the stand-in of a NumPy object."""

    def __init__(self, kind: type):
        self.kind = kind


_NAMES = {
    ("numpy", "ndarray"): None,  # an argument of the next two only
    ("numpy.core.multiarray", "_reconstruct"): _Constructor(_Array),
    ("numpy._core.multiarray", "_reconstruct"): _Constructor(_Array),
    ("numpy", "dtype"): _Constructor(_Dtype),
}


def _encode(text: Any = "", encoding: Any = "latin1") -> bytes:
    """How protocol 2 spells bytes: `_codecs.encode(text, "latin1")`, or `bytes()` of no bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise FileFault("its pickle holds something other than arrays")
    return text.encode("latin1")


class _Instructions(dict[int, Callable]):
    """What each instruction does; each one taken is paid for, since one byte may make an object."""

    def __init__(self, instructions: dict[int, Callable], allowance: _Allowance):
        super().__init__(instructions)
        self._allowance = allowance

    def __getitem__(self, code: int) -> Callable:
        self._allowance.spend(_OBJECT_BYTES)
        return super().__getitem__(code)


# The pure Python unpickler, because its instructions can be chosen. (The one in C would also
# let a few bytes reserve gigabytes for its memo.)
class _Unpickler(pickle._Unpickler):
    """Reads what NumPy pickles of arrays, and nothing else."""

    dispatch = {
        code[0]: pickle._Unpickler.dispatch[code[0]]
        for code in (
            *(pickle.PROTO, pickle.FRAME, pickle.MARK, pickle.STOP, pickle.NONE),
            *(pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2),
            *(pickle.LONG1, pickle.INT, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINSTRING),
            *(pickle.SHORT_BINSTRING, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.TUPLE),
            *(pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_TUPLE, pickle.EMPTY_LIST),
            *(pickle.APPEND, pickle.APPENDS, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT),
            *(pickle.MEMOIZE, pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.GLOBAL),
            pickle.STACK_GLOBAL,
        )
    }

    def __init__(self, data: bytes, allowance: _Allowance):
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._allowance = allowance
        self.dispatch = _Instructions(type(self).dispatch, allowance)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("_codecs", "encode"), ("__builtin__", "bytes")):
            return _encode
        if (module, name) not in _NAMES:
            shown = f"{module}.{name}".encode("unicode_escape").decode()[:_MAX_NAME]
            raise FileFault(
                f"its pickle holds {shown}, which is no array: refused, nothing was executed"
            )
        return _NAMES[module, name]

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if isinstance(function, _Constructor) and isinstance(arguments, tuple):
            self.stack[-1] = function.kind(*arguments)
        elif function is _encode and isinstance(arguments, tuple) and len(arguments) in (0, 2):
            self.stack[-1] = _encode(*arguments)
            self._allowance.spend(len(self.stack[-1]))
        else:
            raise FileFault("its pickle calls something other than NumPy's constructors")

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, _Dtype)):
            raise FileFault("its pickle sets the state of something other than an array")
        self.stack[-1].set_state(state)

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.BUILD[0]] = _build
