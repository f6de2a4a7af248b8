"""Data fixtures shared by all tests: seeded synthetic images, separable by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from standin_hub import Hub, serve

from latentdc.data import named
from latentdc.data.store import ClassStore, from_arrays
from latentdc.types import DataSpec

# The tests' tensors are tiny: threads would only wait for each other, minutes long where cores are shared.
torch.set_num_threads(1)


def _make(per_class: int = 12, *, num_classes: int = 3, channels: int = 1, size: int = 8, seed: int = 0) -> ClassStore:
    rng = torch.Generator().manual_seed(seed)
    prototypes = torch.rand(num_classes, channels, size, size, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(num_classes).repeat_interleave(per_class)
    noise = torch.randn(len(labels), channels, size, size, generator=rng)
    images = (255 * (prototypes[labels] + 0.1 * noise)).clamp(0, 255).to(torch.uint8)
    return from_arrays(images, labels, [f"class-{c}" for c in range(num_classes)], name="tiny")


@pytest.fixture(scope="session")
def make_store() -> Callable[..., ClassStore]:
    """Factory ``(per_class=12, *, num_classes=3, channels=1, size=8, seed=0)``; another seed draws other noise."""
    return _make


@pytest.fixture(scope="session")
def tiny_store() -> ClassStore:
    """3 classes x 12 images of 1x8x8."""
    return _make()


@pytest.fixture(scope="session")
def tiny_test_store() -> ClassStore:
    """Fresh images of the same three classes."""
    return _make(8, seed=1)


@pytest.fixture(scope="session")
def tiny_spec(tiny_store: ClassStore) -> DataSpec:
    """Specification of ``tiny_store``."""
    return tiny_store.spec


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running stand-in of the Hub, which the client takes for the real one."""
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", "hf_none")
        yield running


@pytest.fixture
def no_data_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set of this machine is found by accident: only the environment variable and ``tmp_path / "debian"``."""
    monkeypatch.delenv("LATENTDC_DATA", raising=False)
    monkeypatch.setattr(named, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(named, "DEBIAN", tmp_path / "debian")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
