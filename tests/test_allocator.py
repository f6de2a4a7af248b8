from __future__ import annotations

import pytest

from latentdc import allocator


def test_keeping_freed_memory_turns_off_mappings_and_trimming(monkeypatch: pytest.MonkeyPatch) -> None:
    class Glibc:
        def __init__(self, name: None) -> None:
            self.mallopt = lambda option, value: asked.update({option: value}) or 1

    asked: dict[int, int] = {}
    monkeypatch.setattr(allocator.ctypes, "CDLL", Glibc)
    assert allocator.keep_freed_memory()
    assert asked == {-4: 0, -1: 2**31 - 1, -2: 64 * 2**20}
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
