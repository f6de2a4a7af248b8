"""What every kind of fit is held to: a run that was cut off and taken up again ends where a straight one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentdc.atomic import read_tensors
from latentdc.data.store import ClassStore
from latentdc.fit import fit
from latentdc.fit.training import FitRecipe

WEIGHTS = "diffusion_pytorch_model.safetensors"
QUIET: dict[str, Any] = {"progress": False, "figures": False}


def resume_equals_straight(
    store: ClassStore,
    recipe: FitRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before_resuming: Callable[[], object] = lambda: None,
) -> dict[str, Tensor]:
    """Run six steps straight, and again with an interruption after three; the state at the end, which is the same."""
    straight = fit(store, recipe, out=tmp_path / "straight", steps=6, **QUIET)
    made = type(recipe.training(store, seed=0, device=torch.device("cpu"), bf16=False))
    whole = made.step
    with monkeypatch.context() as patch:

        def stops(self: Any, number: int, progress: float) -> Any:
            if number == 3:
                raise KeyboardInterrupt
            return whole(self, number, progress)

        patch.setattr(made, "step", stops)
        with pytest.raises(KeyboardInterrupt):
            fit(store, recipe, out=tmp_path / "broken", steps=6, **QUIET)
    assert not json.loads((tmp_path / "broken" / "card.json").read_text())["complete"]
    before_resuming()
    broken = fit(store, recipe, out=tmp_path / "broken", steps=6, resume=True, **QUIET)
    for name in (WEIGHTS, "samples.png"):
        assert (broken / name).read_bytes() == (straight / name).read_bytes()
    ours, theirs = (
        read_tensors(tmp_path / f"{name}.training" / "checkpoint-0000000006.safetensors")[0]
        for name in ("broken", "straight")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    return ours
