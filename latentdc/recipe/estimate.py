"""What a run will take, before it is made: measured on two real steps, not guessed."""

from __future__ import annotations

import copy
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from latentdc.bundle import shared_bytes
from latentdc.condense import Step, condense
from latentdc.data.sampling import Sampler
from latentdc.data.store import ClassStore
from latentdc.devices import accelerator_on, device_of
from latentdc.initialise import initialise
from latentdc.labels import LearnedLabels, begun
from latentdc.latents import learns
from latentdc.portable.bank import LatentBank
from latentdc.recipe.build import Built, with_start
from latentdc.recipe.checks import learns_labels
from latentdc.recipe.real import fixed_pool, make_source
from latentdc.recipe.spec import SourceSpec
from latentdc.sketch import Sketch, sketch, sketch_bytes
from latentdc.source import Minibatches, Source

_TRIAL_STEPS = 3
_TRIAL_IMAGES = 500
_PROBE_IMAGES = 4


def dry_run(
    built: Built,
    store: ClassStore,
    *,
    given: Sketch | None = None,
    device: torch.device | None = None,
    copy_decoder: bool = True,
) -> dict[str, Any]:
    """The resolved recipe and what it will cost; JSON values only.

    Args:
        built: the parts.
        store: the real images.
        given: a sketch that exists already.
        device: where the trial steps run; None for the best there is.
        copy_decoder: False for a bundle that names its decoder instead of carrying it.

    Returns:
        ``recipe`` (flat), ``data``, ``decoder`` (name and latents of one row), ``rows_per_class``,
        ``images_per_class`` (after the formation), ``bytes_per_class``, ``step_seconds``, ``sketch_seconds``,
        ``network_seconds`` (of networks that a pool trains once), ``compile_seconds`` (of the networks as condensing
        sees them), ``condense_seconds``, ``total_seconds`` (what the start takes is not in it), ``peak_memory_bytes``
        (of this process after the trial), ``sketch_bytes``, ``checkpoint_bytes``, ``bundle_bytes``, ``disk_bytes`` (the
        most at any time), ``num_processes``.
    """
    device = device or device_of()
    recipe, wanted = built.recipe, built.recipe.source
    sketch_seconds = network_seconds = compile_seconds = step_seconds = 0.0
    sketch_bytes = state_bytes = 0
    if recipe.steps:
        if given is None and wanted.kind == "sketch":
            source, sketch_seconds, sketch_bytes = trial_sketch(built, store, device, wanted)
        else:
            source = make_source(built, store, given=given)
        network_seconds, look_seconds, state_bytes = _rehearsed(source, device)
        compile_seconds, step_seconds = _step_seconds(built, with_start(built, source, store, device=device), device)
        step_seconds += look_seconds
    shapes = built.decoder.latent_shapes
    row = sum(map(math.prod, shapes.values())) + (built.spec.num_classes if learns_labels(recipe) else 0)
    learned = 4 * row * sum(built.counts) + shared_bytes(built.decoder, built.formation)
    weights = built.decoder.state_dict().values() if isinstance(built.decoder, nn.Module) else ()
    decoder_bytes = sum(value.numel() * value.element_size() for value in weights) - shared_bytes(built.decoder)
    per_class = recipe.stored_bytes_per_class(shapes, built.shared_per_class, num_classes=built.spec.num_classes)
    # Two are kept; each holds the latents and up to two moments.
    checkpoint_bytes = 2 * (3 * learned + state_bytes) if recipe.steps else 0
    bundle_bytes = round(per_class * len(built.counts)) + (decoder_bytes if copy_decoder else 0)
    return {
        "recipe": recipe.flat(),
        "data": {"name": built.spec.name, "num_images": len(store), "num_classes": built.spec.num_classes},
        "decoder": {"name": built.decoder_name, "latents": {name: list(shape) for name, shape in shapes.items()}},
        "rows_per_class": built.counts[0],
        "images_per_class": built.counts[0] * (1 if built.formation is None else built.formation.expands),
        "bytes_per_class": per_class,
        "step_seconds": step_seconds,
        "sketch_seconds": sketch_seconds,
        "network_seconds": network_seconds,
        "compile_seconds": compile_seconds,
        "condense_seconds": step_seconds * recipe.steps,
        "total_seconds": sketch_seconds + network_seconds + compile_seconds + step_seconds * recipe.steps,
        "peak_memory_bytes": _peak_memory(device),
        "sketch_bytes": sketch_bytes,
        "checkpoint_bytes": checkpoint_bytes,
        "bundle_bytes": bundle_bytes,
        # The pairs of a sketch lie beside it until it is whole; checkpoints and bundle come afterwards.
        "disk_bytes": max(2 * sketch_bytes, sketch_bytes + checkpoint_bytes + bundle_bytes),
        "num_processes": accelerator_on(device).num_processes,
    }


def trial_sketch(
    built: Built, store: ClassStore, device: torch.device, wanted: SourceSpec
) -> tuple[Source, float, int]:
    """A sketch of a few images under one pair; seconds and bytes of the real one."""
    recipe, pool = built.recipe, fixed_pool(built, 1)

    def take(per_class: int) -> tuple[Sketch, float]:
        few = store.limit(min(per_class, *store.counts))
        started = time.perf_counter()
        taken = sketch(
            few,
            pool,
            built.augment,
            built.see,
            built.by,
            num_pairs=1,
            seed=recipe.seed,
            landmarks=wanted.landmarks,
            plus=built.plus,
            batch_size=wanted.batch_size,
            precision=recipe.precision,
            device=device,
            progress=False,
        )
        return taken, time.perf_counter() - started

    _, overhead = take(_PROBE_IMAGES)
    # Twice as many as there are landmarks are clustered; what that takes grows with the images.
    per_class = max(_TRIAL_IMAGES // built.spec.num_classes, 2 * _PROBE_IMAGES, 2 * (wanted.landmarks or 0))
    taken, seconds = take(per_class)
    num_trial = sum(min(per_class, *store.counts) for _ in store.counts) - len(store.counts) * _PROBE_IMAGES
    per_image = max(seconds - overhead, 0.0) / max(num_trial, 1)
    num_images = sum(min(count, wanted.images_per_pair or count) for count in store.counts)
    return taken, (per_image * num_images + overhead) * wanted.num_pairs, size_of_sketch(built, store)


def size_of_sketch(built: Built, store: ClassStore) -> int:
    """Bytes of the sketch that a recipe takes of some images, before it is taken."""
    wanted = built.recipe.source
    return sketch_bytes(
        fixed_pool(built, 1),
        built.see,
        built.by,
        store.counts,
        num_pairs=wanted.num_pairs,
        images_per_pair=wanted.images_per_pair,
        landmarks=wanted.landmarks,
        plus=built.plus,
    )


def _rehearsed(source: Source, device: torch.device) -> tuple[float, float, int]:
    """What mini-batches take besides a plain step: seconds of networks trained once, seconds a step of what a sampler

    does now and then, and bytes of a pool's state.
    """
    if not isinstance(source, Minibatches):
        return 0.0, 0.0, 0
    source.to(device)
    started = time.perf_counter()
    times = source.pool.rehearse()
    network_seconds = times * (time.perf_counter() - started)
    look_seconds = 0.0
    if source.sampler.period:
        started = time.perf_counter()
        source.view(0)  # the sampler's first look; the loop's own first step is not among those measured
        look_seconds = time.perf_counter() - started
        look_seconds *= float(missed_looks(source.sampler, range(1, _TRIAL_STEPS)))
    return network_seconds, look_seconds, source.pool.state_bytes()


def missed_looks(sampler: Sampler, steps: range) -> Fraction:
    """Looks a step that a sampler takes in a long run, less those that it takes a step among the trial's ``steps``."""
    if not sampler.period:
        return Fraction()
    taken = sum(step % sampler.period == 0 for step in steps)
    return Fraction(1, sampler.period) - Fraction(taken, len(steps))


def _step_seconds(built: Built, source: Source, device: torch.device) -> tuple[float, float]:
    """Seconds of compiling, if the recipe does, and of one step, the first (which warms up) left out."""
    ends = [time.perf_counter()]

    def stamp(now: Step) -> None:
        del now
        ends.append(time.perf_counter())

    trial(built, source, device, _TRIAL_STEPS, compile=built.recipe.compile, on_step=stamp)
    start, first, *_, last = ends
    seconds = (last - first) / (_TRIAL_STEPS - 1)
    return max(first - start - seconds, 0.0) if built.recipe.compile else 0.0, seconds


def trial(
    built: Built,
    source: Source,
    device: torch.device,
    steps: int,
    *,
    compile: bool = False,
    on_step: Callable[[Step], None] | None = None,
) -> None:
    """Some steps of a run from its prior, which leave no trace in parts that are learned with the set."""
    bank = initialise("prior", built.decoder, built.counts, seed=built.recipe.seed)
    assert isinstance(bank, LatentBank)
    if learns_labels(built.recipe):
        bank = begun(LearnedLabels(), bank, built.decoder, built.formation, None)
    condense(
        copy.deepcopy(built.decoder) if learns(built.decoder) else built.decoder,
        bank,
        built.objective,
        source,
        steps=steps,
        optim=replace(built.recipe.optim, schedule="constant"),
        seed=built.recipe.seed,
        chunk=built.recipe.chunk,
        device=device,
        precision=built.recipe.precision,
        compile=compile,
        formation=copy.deepcopy(built.formation),
        on_step=() if on_step is None else (on_step,),
        progress=False,
    )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
