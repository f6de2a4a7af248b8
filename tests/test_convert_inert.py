"""The inert unpickler: what it rebuilds, that it runs nothing whatever the file says, its limits."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from foreign_checkpoints import RAN, alarm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentdc.convert.inert import Limits, Stub, read_inert
from latentdc.errors import BundleError, InputError


class Bomb:
    """Calls something when it is unpickled."""

    def __init__(self, target: Any = alarm, arguments: tuple[Any, ...] = ("boom",), state: Any = None) -> None:
        self.parts = (target, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


def opened(content: bytes, folder: Path, limits: Limits | None = None) -> Any:
    (folder / "x.pkl").write_bytes(content)
    return read_inert(folder / "x.pkl", limits)


def test_rebuilds_tensors_arrays_and_containers(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    value = {
        "plain": [1, 2.5, "a", None, True, b"b", (3, {4})],
        "ordered": OrderedDict(a=base, b=base.T, c=base[1:, 2], d=torch.zeros(0, 3), e=torch.tensor(7)),
        "parameter": torch.nn.Parameter(base.half()),
        "types": [torch.tensor([1, 2], dtype=torch.int64), torch.tensor([True]), base.bfloat16()],
        "arrays": [numpy.arange(6).reshape(2, 3), numpy.asfortranarray(numpy.eye(3, dtype=">f4")), numpy.float64(2.5)],
        "size": torch.Size([1, 2]),
    }
    for protocol in (2, 3, 4, 5):
        back = opened(pickle.dumps(value, protocol), tmp_path)
        assert back["plain"] == [1, 2.5, "a", None, True, b"b", [3, [4]]]
        for name, want in value["ordered"].items():
            assert torch.equal(back["ordered"][name], want)
        assert torch.equal(back["parameter"], value["parameter"])
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(back["types"], value["types"], strict=True))
        assert torch.equal(back["arrays"][0], torch.arange(6).reshape(2, 3))
        assert torch.equal(back["arrays"][1], torch.eye(3))
        assert float(back["arrays"][2]) == 2.5
        assert back["size"] == [1, 2]


@pytest.mark.parametrize("target", [alarm, os.system, exec, eval, getattr, os.putenv, __import__])
def test_runs_nothing(target: Any, tmp_path: Path) -> None:
    RAN.clear()
    for state in (None, {"a": 1}):
        back = opened(pickle.dumps([Bomb(target, ("raise SystemExit",), state), 3]), tmp_path)
        assert isinstance(back[0], Stub)
        assert back[0].origin.endswith(target.__name__)
        assert back[1] == 3
    assert not RAN


def test_numpy_arrays_of_objects_are_none(tmp_path: Path) -> None:
    back = opened(pickle.dumps([numpy.array([Bomb()], dtype=object), numpy.array(["text"])]), tmp_path)
    assert back == [None, None]
    assert not RAN


def test_a_cycle_is_kept(tmp_path: Path) -> None:
    loop: list[Any] = [torch.ones(2)]
    loop.append(loop)
    back = opened(pickle.dumps(loop), tmp_path)
    assert back[1] is back


class Typed:
    """A storage of some floats, as torch pickles it inside a tensor."""

    def __init__(self, count: int = 4) -> None:
        self.count = count

    def __reduce__(self) -> Any:
        untyped = torch.arange(float(self.count)).untyped_storage()
        stored = torch.storage.TypedStorage(wrap_storage=untyped, dtype=torch.float32, _internal=True)
        stream = io.BytesIO()
        torch.save(stored, stream, _use_new_zipfile_serialization=False)
        return torch.storage._load_from_bytes, (stream.getvalue(),)


@pytest.mark.parametrize(
    ("offset", "size", "stride", "said"),
    [
        (0, (5,), (1,), "reaches beyond its storage"),
        (2, (2, 2), (2, 1), "reaches beyond its storage"),
        (0, (2,), (10**15,), "reaches beyond its storage"),
        (-1, (2,), (1,), "no sensible shape"),
        (0, (-2,), (1,), "no sensible shape"),
        (0, (2, 2), (1,), "no sensible shape"),
        (0, (1.5,), (1,), "no sensible shape"),
    ],
)
def test_refuses_tensors_outside_their_storage(offset: int, size: Any, stride: Any, said: str, tmp_path: Path) -> None:
    call = Bomb(torch._utils._rebuild_tensor_v2, (Typed(), offset, size, stride, False, OrderedDict()))
    with pytest.raises(BundleError, match=said):
        opened(pickle.dumps(call), tmp_path)


LIMITS = {
    "file_bytes": ("bytes; at most 10 are read", Limits(file_bytes=10)),
    "opcodes": ("more than 10 steps", Limits(opcodes=10)),
    "tensors": ("more than 2 tensors", Limits(tensors=2)),
    "numbers": ("more than 5 numbers", Limits(numbers=5)),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_limits(limit: str, tmp_path: Path) -> None:
    said, limits = LIMITS[limit]
    with pytest.raises(InputError, match=said):
        opened(pickle.dumps([torch.ones(2), torch.ones(2), torch.ones(2)]), tmp_path, limits)


def test_a_tensor_that_shows_one_number_a_billion_times_is_counted(tmp_path: Path) -> None:
    call = Bomb(torch._utils._rebuild_tensor_v2, (Typed(), 0, (2**40,), (0,), False, OrderedDict()))
    with pytest.raises(InputError, match="numbers in the pickle"):
        opened(pickle.dumps(call), tmp_path)


def test_a_storage_counts_before_a_tensor_is_made_of_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 1,000 numbers in the pickle"):
        opened(pickle.dumps([Typed(2000)]), tmp_path, Limits(numbers=1000))


def test_a_storage_may_not_unfold(tmp_path: Path) -> None:
    whole, small = io.BytesIO(), io.BytesIO()
    untyped = torch.zeros(100_000).untyped_storage()
    torch.save(torch.storage.TypedStorage(wrap_storage=untyped, dtype=torch.float32, _internal=True), whole)
    with zipfile.ZipFile(whole) as read, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in read.namelist():
            packed.writestr(name, read.read(name))
    assert len(small.getvalue()) < 10_000
    with pytest.raises(BundleError, match="storage in the pickle is compressed"):
        opened(pickle.dumps(Bomb(torch.storage._load_from_bytes, (small.getvalue(),))), tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x02\x82\x01.", "uses EXT1, which reaches outside"),
        (b"\x80\x02K\x01Q.", "uses BINPERSID"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memory cell 2,147,483,647 in 4 steps"),
        (b"", "no readable pickle"),
        (b"hello", "no readable pickle"),
        (b"\x80\x04]\x94(K\x01", "no readable pickle"),
    ],
)
def test_refuses_hostile_and_broken_programs(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=said):
        opened(content, tmp_path)


def test_rebuilders_cannot_be_changed(tmp_path: Path) -> None:
    """BUILD on a name that is known would set attributes of this process's own functions."""
    build = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb."
    with pytest.raises(BundleError, match="rebuilder's state is set"):
        opened(build, tmp_path)


def seeds() -> list[bytes]:
    values = [
        {"a": torch.arange(6.0).reshape(2, 3), "b": [numpy.arange(3), OrderedDict(x=1)]},
        [Bomb(), Bomb(os.system)],
    ]
    return [pickle.dumps(value, protocol) for value in values for protocol in (0, 2, 4)]


SEEDS = seeds()
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survive(content: bytes, folder: Path) -> None:
    RAN.clear()
    with suppress(InputError, BundleError):
        opened(content, folder, Limits(numbers=10_000, opcodes=10_000))
    assert not RAN


@FUZZ
@given(data=st.data())
def test_mutated_pickles_run_nothing(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        content = content or bytearray(b".")
    survive(bytes(content), tmp_path)


CALLS = st.sampled_from([alarm, os.system, OrderedDict, set, exec, torch._utils._rebuild_tensor_v2, torch.Size])
LEAVES = st.none() | st.integers() | st.text(max_size=3) | st.binary(max_size=3) | st.floats(allow_nan=False)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(Bomb, CALLS, st.lists(inner, max_size=3).map(tuple), st.none() | inner)
    ),
    max_leaves=12,
)


@FUZZ
@given(tree=TREES, protocol=st.integers(0, 5))
def test_random_pickles_run_nothing(tree: Any, protocol: int, tmp_path: Path) -> None:
    survive(pickle.dumps(tree, protocol), tmp_path)


@FUZZ
@given(content=st.binary(max_size=80))
def test_random_bytes_run_nothing(content: bytes, tmp_path: Path) -> None:
    survive(content, tmp_path)
