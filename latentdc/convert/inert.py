"""Reads a pickle without running anything it asks for: tensors, arrays and plain containers; the rest are stubs.

A pickle is a program: it names callables and calls them. Here every name resolves to a stub that only remembers its
arguments, but for a handful of rebuilders of tensors and arrays, which are this file's own and check what they are
given. Sizes are limited before anything is built.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from latentdc.errors import BundleError, InputError

_REFUSED = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
"""Opcodes that reach outside the file: registered extensions and persistent ids."""
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


@dataclass(frozen=True)
class Limits:
    """How large a pickle may be."""

    file_bytes: int = 4 << 30
    opcodes: int = 5_000_000
    """Steps of the pickle's program; a StyleGAN2 file has some ten thousand."""
    tensors: int = 100_000
    numbers: int = 2 << 30
    """Numbers in all storages, and in all tensors and arrays made of them, and entries of copied containers."""


class Stub:
    """What stands for an object that is not built: who asked for it, with what; never any behaviour."""

    origin = ""

    def __new__(cls, *args: Any, **_: Any) -> Stub:
        """Remember the arguments."""
        stub = object.__new__(cls)
        stub.__dict__.update(args=args, state={}, items={}, entries=[])
        return stub

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__["items"][key] = value

    def __call__(self, *args: Any) -> Stub:
        """Calling a stub gives another one."""
        return Stub(self, *args)

    def append(self, value: Any) -> None:
        """Remember an entry."""
        self.__dict__["entries"].append(value)


class _Sealed:
    """Something a pickle may hold but not change."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a tensor's or rebuilder's state is set")


class _Rebuilder(_Sealed):
    """A callable of this file under the name a pickle knows."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        return self.value(*args)


class _Array(Stub):
    """A numpy array or scalar as its pickled state."""


class _Dict(dict[Any, Any]):
    """An ordered dictionary; a class of its own, so that attributes set on it reach nobody else."""


def read_inert(path: Path, limits: Limits | None = None) -> Any:
    """The content of a pickle file: plain values, tensors on the CPU, and stubs for everything else.

    Arrays and numpy scalars become tensors.

    Raises:
        InputError: the file is larger than ``limits`` allow, or does not exist.
        BundleError: no intact pickle, or one that asks for something no checkpoint needs.
    """
    limits = limits or Limits()
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a checkpoint's file.")
    if (size := path.stat().st_size) > limits.file_bytes:
        raise InputError(f"{path}: {size:,} bytes; at most {limits.file_bytes:,} are read (Limits.file_bytes).")
    data = path.read_bytes()
    try:
        _survey(data, limits)
        return _opened(_Inert(data, limits).load(), limits)
    except (InputError, BundleError) as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:  # whatever a broken or hostile program provokes
        raise BundleError(f"{path}: no readable pickle ({type(error).__name__}: {error}).") from error


def _survey(data: bytes, limits: Limits) -> None:
    """Read the program without running it: its length, its opcodes, its memory cells."""
    largest = number = 0
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data), 1):
        if number > limits.opcodes:
            raise InputError(f"more than {limits.opcodes:,} steps in the pickle (Limits.opcodes); no checkpoint.")
        if opcode.name in _REFUSED:
            raise BundleError(f"the pickle uses {opcode.name}, which reaches outside the file; refused.")
        if opcode.name in _PUTS and isinstance(argument, int):
            largest = max(largest, argument)
    if largest > number:
        raise BundleError(f"the pickle asks for memory cell {largest:,} in {number:,} steps; refused.")


class _Inert(pickle.Unpickler):
    """The unpickler: names become stubs or this file's rebuilders."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        super().__init__(io.BytesIO(data))
        self.limits, self.tensors, self.numbers = limits, 0, 0
        self.stubs: dict[tuple[str, str], type[Stub]] = {}
        known: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": self._dictionary,
            "builtins.set": self._copied(set),
            "__builtin__.set": self._copied(set),
            "torch.Size": self._copied(tuple),
            "torch.storage._load_from_bytes": self._storage,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "_codecs.encode": _latin,
        }
        self.known = {name: _Rebuilder(rebuild) for name, rebuild in known.items()}

    def find_class(self, module: str, name: str) -> Any:
        """Nothing is imported: a rebuilder of this file, or a stub class."""
        origin = f"{module}.{name}"
        if origin in self.known:
            return self.known[origin]
        if (module, name) not in self.stubs:
            numeric = re.fullmatch(r"numpy\.(_?core)\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)", origin)
            bases = (_Array,) if numeric else (Stub,)
            self.stubs[module, name] = type("Stub", bases, {"origin": origin})
        return self.stubs[module, name]

    def _spend(self, count: int) -> None:
        self.numbers += count
        if self.numbers > self.limits.numbers:
            raise InputError(f"more than {self.limits.numbers:,} numbers in the pickle (Limits.numbers).")

    def _dictionary(self, entries: Any = ()) -> _Dict:
        self._spend(len(entries))
        return _Dict(entries)

    def _copied(self, kind: type[Any]) -> Callable[..., Any]:
        def build(entries: Any = ()) -> Any:
            self._spend(len(entries))
            return kind(entries)

        return build

    def _storage(self, content: bytes) -> _Sealed:
        if content[:2] == b"PK":  # a zip archive may unfold to a thousand times its size
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = archive.infolist()
            if any(entry.compress_type for entry in entries) or sum(each.file_size for each in entries) > len(content):
                raise BundleError("a storage in the pickle is compressed, which torch never writes; refused.")
        stored: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(stored, torch.TypedStorage):
            raise BundleError("a storage in the pickle is none; refused.")
        flat = torch.empty(0, dtype=stored.dtype).set_(stored._untyped_storage)
        self._spend(flat.numel())
        return _Sealed(flat)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Sealed:
        flat = storage.value
        numbers = [offset, *size, *stride]
        if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(stride):
            raise BundleError("a tensor in the pickle has no sensible shape; refused.")
        count, last = 1, offset
        for side, step in zip(size, stride, strict=True):
            count, last = count * side, last + (side - 1) * step
        if count and last >= flat.numel():
            raise BundleError("a tensor in the pickle reaches beyond its storage; refused.")
        self.tensors += 1
        if self.tensors > self.limits.tensors:
            raise InputError(f"more than {self.limits.tensors:,} tensors in the pickle (Limits.tensors).")
        self._spend(count)
        # A copy: a file may show one storage many times over, and views would keep all of it.
        return _Sealed(flat.as_strided(size, stride, offset).clone() if count else flat.new_empty(tuple(size)))


def _latin(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise BundleError(f"the pickle encodes text as {encoding!r}; refused.")
    return text.encode("latin-1")


def _opened(root: Any, limits: Limits) -> Any:
    """The tree with tensors in place of their sealed forms, shared parts still shared, cycles kept."""
    done: dict[int, tuple[Any, Any]] = {}
    holder = [root]
    waiting: list[Any] = [holder]
    while waiting:
        node = waiting.pop()
        for key, value in list(_children(node)):
            if not isinstance(value, (_Sealed, Stub, dict, list, tuple, set, frozenset)):
                continue
            if id(value) not in done:
                # The original is kept beside its form: freed, its id would come back as another object's.
                done[id(value)] = (value, _value(value, limits))
                if len(done) > limits.opcodes:
                    raise InputError(f"more than {limits.opcodes:,} objects in the pickle (Limits.opcodes).")
                waiting.append(done[id(value)][1])
            _place(node, key, done[id(value)][1])
    return holder[0]


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, Stub):
        yield from node.__dict__.items()
    elif isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, list):
        yield from enumerate(node)


def _place(node: Any, key: Any, value: Any) -> None:
    if isinstance(node, Stub):
        node.__dict__[key] = value
    else:
        node[key] = value


def _value(value: Any, limits: Limits) -> Any:
    if isinstance(value, _Rebuilder):
        return None
    if isinstance(value, _Sealed):
        return value.value
    if isinstance(value, _Array):
        return _numbers(value, limits)
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def _numbers(array: Stub, limits: Limits) -> Tensor | None:
    """A pickled numpy array or scalar as a tensor; None for an array of anything but numbers."""
    data: Any
    shape: Any
    dtype: Any
    if array.origin.endswith("scalar"):
        (dtype, data), shape, fortran = array.__dict__["args"][:2], (), False
    elif array.origin.endswith("_frombuffer"):  # pickle protocol 5
        data, dtype, shape, order = array.__dict__["args"]
        data, fortran = bytes(data) if type(data) is bytearray else data, order == "F"
    else:
        _, shape, dtype, fortran, data = array.__dict__["state"]
    code, swap = dtype.__dict__["args"][0], (dtype.__dict__["state"] or (3, "="))[1]
    if type(code) is not str or not _NUMBERS.fullmatch(swap + code) or type(data) is not bytes:
        return None
    kind = numpy.dtype(swap + code)
    sides = [side if type(side) is int and side >= 0 else -1 for side in shape]
    if min(sides, default=0) < 0 or math.prod(sides) > limits.numbers or math.prod(sides) * kind.itemsize != len(data):
        raise BundleError("an array in the pickle has another size than its data; refused.")
    flat = numpy.frombuffer(data, kind).reshape(sides, order="F" if fortran else "C")
    return torch.from_numpy(flat.astype(kind.newbyteorder("="), order="C"))
