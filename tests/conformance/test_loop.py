"""Laws of the loop, for every discrepancy and source: resume equals straight run, loss falls, decoder frozen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdc.checkpoint import Checkpoints
from latentdc.condense import Step, condense
from latentdc.data.store import ClassStore
from latentdc.decoders import FORMATIONS
from latentdc.discrepancies import DISCREPANCIES
from latentdc.latents import decode
from latentdc.objectives import PENALTIES
from latentdc.portable.bank import LatentBank
from latentdc.portable.gan import GanDecoder
from latentdc.recipe import Built, build, identity, make_bank, make_source, parse_recipe, with_start
from latentdc.source import Source

CASES = [
    (source, by, formation)
    for source in ("minibatches", "sketch")
    for by, part in DISCREPANCIES.items()
    for formation in (None, *FORMATIONS)
    if source == "minibatches" or part.sketchable
]
CASES += [("minibatches", "gradients", None), ("sketch", "gradients", None), ("sketch", "energy", None)]
CASES += [
    (source, name, None)
    for source in ("minibatches", "sketch")
    for name, penalty in PENALTIES.items()
    if source == "minibatches" or not penalty.needs_images
]
OBJECTIVE: dict[str, dict[str, Any]] = {
    **{by: {"by": by} for by in DISCREPANCIES},
    "gradients": {"see": "gradients", "by": "cosine"},
    **{name: {"penalties": [name]} for name in PENALTIES},
}
FLOORS = {"cross-entropy": 3 * math.log(3)}
"""What is left of the loss whatever the images: a random network tells three classes apart no better than by chance."""


def run(
    store: ClassStore,
    case: tuple[str, str, str | None],
    steps: int,
    folder: Path | None = None,
    *,
    width: int = 8,
    augment: str = "dsa",
) -> tuple[Built, Source, LatentBank, list[float]]:
    source, by, formation = case
    recipe = parse_recipe(
        {
            "images_per_class": 2,
            "augment": augment,
            "objective": OBJECTIVE[by],
            "init": "real" if by in PENALTIES else "prior",
            "optim": {"lr": 0.05},
            "source": {"kind": source, "arch": "mlp", "width": width, "num_pairs": 2, "num_per_class": 12},
        },
        overrides={"formation": formation, "source.landmarks": 6 if case[:2] == ("sketch", "energy") else None},
    )
    built = build(recipe, store.spec)
    plain = make_source(built, store, progress=False)
    real = with_start(built, plain, store)
    losses: list[float] = []

    def keep(now: Step) -> None:
        losses.append(now.loss)

    bank = condense(
        built.decoder,
        make_bank(built, store),
        built.objective,
        real,
        steps=steps,
        optim=recipe.optim,
        seed=0,
        formation=built.formation,
        checkpoints=None if folder is None else Checkpoints(folder, identity(built, source=plain)),
        on_step=(keep,),
        progress=False,
    )
    return built, real, bank, losses


def loss_of(bank: LatentBank, built: Built, source: Source) -> float:
    """Mean over the same few views, whatever the run saw."""
    syn = decode(built.decoder, bank, formation=built.formation)
    return sum(float(built.objective(source.view(step), syn)) for step in range(1000, 1006)) / 6


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(each) for each in case))
def test_twice_k_steps_equal_k_and_resume_and_k(
    case: tuple[str, str, str | None], tiny_store: ClassStore, tmp_path: Path
) -> None:
    _, _, straight, _ = run(tiny_store, case, 4)
    run(tiny_store, case, 2, tmp_path)
    _, _, resumed, losses = run(tiny_store, case, 4, tmp_path)
    assert len(losses) == 2
    assert torch.equal(straight.z["x"], resumed.z["x"])


@pytest.mark.parametrize("case", [case for case in CASES if case[2] is None], ids=lambda case: "-".join(case[:2]))
def test_loss_falls(case: tuple[str, str, str | None], tiny_store: ClassStore) -> None:
    # Kernels of bounded height fall slowly from noise, so the bar is low; means fall to less than half.
    built, source, bank, _ = run(tiny_store, case, 40, width=64, augment="none")
    before, after = (
        loss_of(each, built, source) - FLOORS.get(case[1], 0) for each in (make_bank(built, tiny_store), bank)
    )
    assert after < 0.95 * before


def test_the_decoder_stays_as_it_was(tiny_store: ClassStore) -> None:
    recipe = parse_recipe(
        {"images_per_class": 2, "source": {"arch": "mlp", "width": 8}, "augment": "none", "optim": {"lr": 0.1}}
    )
    decoder = GanDecoder(tiny_store.spec.image_shape, 3, z_dim=4, channels=(8, 8))
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    built = build(recipe, tiny_store.spec, decoder=decoder)
    bank = make_bank(built)
    start = bank.z["z"].detach().clone()
    source = make_source(built, tiny_store, progress=False)
    condense(decoder, bank, built.objective, source, steps=2, optim=recipe.optim, seed=0, progress=False)
    assert not torch.equal(start, bank.z["z"])
    assert all(torch.equal(before[name], value) for name, value in decoder.state_dict().items())


@pytest.mark.parametrize(("chunk", "calls"), [(None, 1), (6, 1), (3, 4), (4, 4)])
def test_decoder_calls_per_step(chunk: int | None, calls: int, tiny_store: ClassStore) -> None:
    recipe = parse_recipe({"images_per_class": 2, "source": {"arch": "mlp", "width": 8}, "augment": "none"})
    built = build(recipe, tiny_store.spec)
    assert isinstance(built.decoder, torch.nn.Module)
    seen: list[int] = []
    built.decoder.register_forward_hook(lambda _module, _inputs, x: seen.append(len(x)))
    source = make_source(built, tiny_store, progress=False)
    bank = make_bank(built)
    condense(
        built.decoder, bank, built.objective, source, steps=3, optim=recipe.optim, seed=0, chunk=chunk, progress=False
    )
    assert len(seen) == 3 * calls  # One forward where all rows fit a chunk, else two of each chunk.
