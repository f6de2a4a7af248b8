"""What a student is trained as and on, step by step, and which runs of a log stand for which."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from latentdc.bundle import Bundle, load_bundle, save_bundle
from latentdc.clusters import medoids
from latentdc.data.augment import DSA
from latentdc.data.cut_mix import CutMix
from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.errors import DivergenceError
from latentdc.evaluate import Protocol, baselines, evaluate, runs, training
from latentdc.evaluate.baselines import Candidate, candidates, encoded, random_real, real_medoids, undistilled
from latentdc.evaluate.compare import gains
from latentdc.evaluate.records import Row, Run
from latentdc.evaluate.sets import ImageSet, of_store, subject_of
from latentdc.evaluate.training import Settings, Task, train_run
from latentdc.networks import Network, build
from latentdc.networks.train import TrainSpec, embed, train_student
from latentdc.portable.bank import LatentBank
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.tiles import TilesFormation
from latentdc.seeding import stream

ODD = Protocol(
    "odd",
    epochs=5,
    image_budget=21,
    batch_size=4,
    lr=0.05,
    momentum=0.8,
    weight_decay=0.01,
    decay_factor=0.3,
    strategy="color_crop",
    mode="M",
)
"""No value is a default's: one that is not handed on is missed. A set of 7 images gets 3 epochs of its budget."""


def _weighted(store: ClassStore) -> ImageSet:
    plain = of_store(store.subset([0, 1, 2, 12, 13, 24, 25]))
    soft = 0.7 * plain.y + 0.3 * torch.rand(7, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
    return dataclasses.replace(plain, y=soft, w=torch.arange(1.0, 8.0))


@pytest.mark.parametrize(
    ("protocol", "precision", "rates"),
    [
        (ODD, "fp32", (0.05, 0.05, 0.05, 0.015)),  # one pass more than epochs; momentum lost where the rate falls
        (dataclasses.replace(ODD, milestones=(0.4, 0.8)), "bf16", (0.05, 0.015, 0.0045)),
        (dataclasses.replace(ODD, milestones=(0.4, 0.8), cut_mix=0.5), "fp32", (0.05, 0.015, 0.0045)),
    ],
)
def test_a_student_is_the_protocols_loop_written_out(
    protocol: Protocol,
    precision: str,
    rates: tuple[float, ...],
    tiny_store: ClassStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[Network] = []
    monkeypatch.setattr(training, "accuracy", lambda net, *_: trained.append(net) or 50.0)
    images, spec = _weighted(tiny_store), tiny_store.spec
    (run,) = train_run(Task(images, [tiny_store], spec, "mlp", seed=3), Settings(protocol, precision, width=8))
    assert (run.seed, run.num_images, run.epochs) == (3, 7, 3)
    net, augment = build("mlp", spec, seed=3, width=8, purpose="student-network").train(), DSA("color_crop", mode="M")
    assert images.w is not None
    targets = images.y * (images.w / images.w.mean())[:, None]  # cross-entropy is linear in the target
    optimiser = torch.optim.SGD(net.parameters(), 0.05, 0.8, weight_decay=0.01)
    for epoch, rate in enumerate(rates):
        if epoch == len(rates) - 1 and protocol.milestones is None:
            optimiser = torch.optim.SGD(net.parameters(), rate, 0.8, weight_decay=0.01)
        optimiser.param_groups[0]["lr"] = rate
        order = torch.randperm(7, generator=stream(3, "student-shuffle", epoch))
        for number, rows in enumerate((order[:4], order[4:])):
            drawn = augment.draw(len(rows), (1, 8, 8), stream(3, "student-augment", epoch, number), shared=False)
            x, y = augment.apply(images.x[rows].float() / 255, drawn, spec), targets[rows]
            if protocol.cut_mix:
                x, y = CutMix(0.5)(x, y, stream(3, "student-mix", epoch, number))
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = net(x)
            loss = functional.cross_entropy(logits.float(), y)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
    for name, value in net.named_parameters():
        torch.testing.assert_close(trained[0].get_parameter(name), value, rtol=1e-4, atol=1e-6)


def test_a_short_training_that_diverges_is_told(tiny_store: ClassStore) -> None:
    net = build("mlp", tiny_store.spec, seed=0, width=8)
    with pytest.raises(DivergenceError, match="in pass 4"):
        train_student(net, tiny_store.images, tiny_store.labels, TrainSpec(epochs=4, lr=1e20), seed=0)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """What would be trained; nothing is."""
    found: list[Task] = []

    def note(task: Task, settings: Settings) -> tuple[Run, ...]:
        found.append(task)
        return tuple(Run(task.seed, 50.0, len(task.images), settings.protocol.epochs, 0.0) for _ in task.judges)

    monkeypatch.setattr(runs, "train_run", note)
    return found


def test_every_seed_draws_its_own_baselines_for_all_students(
    tiny_store: ClassStore, tiny_test_store: ClassStore, tasks: list[Task]
) -> None:
    given = tiny_store.limit(2)
    settings = {"students": ("mlp", "convnet"), "seeds": (4, 7), "baselines": ("random-real", "medoids"), "width": 8}
    evaluate(given, Data(tiny_store, tiny_test_store), "quick", progress=False, **settings)  # type: ignore[arg-type]
    expected = [of_store(given)] * 2
    expected += [random_real(tiny_store, (2, 2, 2), seed) for seed in (4, 7)]
    expected += [real_medoids(tiny_store, (2, 2, 2), seed, width=8) for seed in (4, 7)]
    assert len({images.sha256() for images in expected}) == 5
    pairs = list(zip(tasks[::2], tasks[1::2], strict=True))
    for images, seed, (one, other) in zip(expected, (4, 7) * 3, pairs, strict=True):
        assert (one.seed, other.seed, one.student, other.student) == (seed, seed, "mlp", "convnet")
        assert images.sha256() == one.images.sha256() == other.images.sha256()
        assert one.spec == tiny_store.spec
        assert [judge.fingerprint() for judge in one.judges] == [tiny_test_store.fingerprint()]


def test_medoids_are_of_candidates_and_a_network_of_their_seed(
    tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "MEDOID_CANDIDATES", 11)
    for seed in (4, 7):
        net, chosen = build("convnet", tiny_store.spec, seed=seed, width=8, purpose="medoids-network"), []
        for c in range(3):
            rng = stream(seed, "medoids", index=c)
            some = tiny_store.pick(c, 11, rng)
            chosen.append(some[medoids(embed(net, tiny_store.images[some]), 1, rng)])
        expected = of_store(tiny_store.subset(torch.cat(chosen)))
        assert real_medoids(tiny_store, (1, 1, 1), seed, width=8).sha256() == expected.sha256()


def test_no_baseline_of_a_selection_has_the_images_it_is_judged_on(tiny_store: ClassStore, tasks: list[Task]) -> None:
    kept, held = tiny_store.holdout()
    most = ("random-real", "medoids")  # eleven of a class, and there are twelve
    evaluate(kept, Data(tiny_store, None), split="held-out", seeds=1, baselines=most, width=8, progress=False)
    judged = {image.numpy().tobytes() for image in held.images}
    for task in tasks:
        assert len(task.images) == 33
        assert not judged & {image.numpy().tobytes() for image in task.images.x}
        assert task.judges[0].fingerprint() == held.fingerprint()
        assert task.spec == kept.spec


def test_other_test_images_are_other_runs_whatever_their_specification(
    tiny_store: ClassStore, tiny_test_store: ClassStore, tasks: list[Task], tmp_path: Path
) -> None:
    for number, part in enumerate((tiny_test_store, tiny_test_store, tiny_test_store.limit(5)), 1):
        judge = ClassStore(part.images, part.labels, tiny_store.spec)
        log = tmp_path / "runs.jsonl"
        evaluate(tiny_store.limit(1), Data(tiny_store, judge), seeds=1, baselines=(), width=8, runs=log, progress=False)
        assert len(tasks) == (1, 1, 2)[number - 1]


def test_a_run_is_known_by_all_that_decides_it(tiny_store: ClassStore) -> None:
    images = of_store(tiny_store.limit(1))
    others = [
        dataclasses.replace(images, x=255 - images.x),
        dataclasses.replace(images, y=images.y.flip(0)),
        dataclasses.replace(images, w=torch.ones(3)),
        dataclasses.replace(images, w=torch.arange(1.0, 4.0)),
    ]
    assert len({each.sha256() for each in (images, *others)}) == 5
    candidate = Candidate("bundle", "equal-images", (1, 1, 1), 1, 68, images.sha256(), lambda _: images)
    given = {"student": "mlp", "seed": 0, "judge_key": "test", "settings": Settings(ODD)}
    changes: list[dict[str, object]] = [
        {},
        {"student": "convnet"},
        {"seed": 1},
        {"judge_key": "held-out"},
        {"settings": Settings(ODD, precision="bf16")},
        {"settings": Settings(ODD, width=8)},
        {"settings": Settings(dataclasses.replace(ODD, cut_mix=0.5))},
        {"candidate": dataclasses.replace(candidate, name="random-real")},
        {"candidate": dataclasses.replace(candidate, counts=(1, 1, 2))},
        {"candidate": dataclasses.replace(candidate, key=others[0].sha256())},
    ]
    marks = [
        runs.identity(spec=tiny_store.spec, **{"candidate": candidate, **given, **change})  # type: ignore[arg-type]
        for change in changes
    ]
    assert len(set(marks)) == len(changes)
    fast = Settings(ODD, compile=True, device="cuda")
    same = runs.identity(candidate, "test", tiny_store.spec, fast, student="mlp", seed=0)
    assert same == marks[0], "where it was made does not decide"


def test_a_gain_is_over_the_random_images_of_the_same_student() -> None:
    def row(name: str, student: str, accuracy: float, basis: str = "equal-images") -> Row:
        return Row(name, basis, student, 1, 1, 68, (Run(0, accuracy, 3, 5, 0.0),))

    rows = [row("bundle", "mlp", 40.0), row("random-real", "mlp", 30.0), row("random-real", "mlp", 35.0, "equal-bytes")]
    rows += [row("bundle", "convnet", 80.0), row("medoids", "convnet", 20.0), row("random-real", "convnet", 50.0)]
    found = [(each.student, each.basis, round(each.gain_over_random, 6)) for each in gains(rows)]
    assert found == [("mlp", "equal-images", 0.1), ("mlp", "equal-bytes", 0.05), ("convnet", "equal-images", 0.3)]


@pytest.fixture
def make_bundle(tiny_store: ClassStore, tmp_path: Path) -> Callable[..., Bundle]:
    def make(storage: str = "fp32", tiles: int | None = None) -> Bundle:
        spec = tiny_store.spec
        bank = LatentBank.of({"x": torch.randn(9, 1, 8, 8, generator=stream(5, "latents"))}, (3, 3, 3))
        save_bundle(
            tmp_path / "set",
            bank=bank.quantise(storage),
            decoder=PixelsDecoder(spec.image_shape, spec.mean, spec.std),
            formation=None if tiles is None else TilesFormation(tiles),
            spec=spec,
            provenance={"seed": 0},
        )
        return load_bundle(tmp_path / "set")

    return make


def _levels(x: Tensor, owner: Tensor) -> int:
    return max(len(x[owner == c].unique()) for c in range(3))


def test_what_a_decoder_makes_undistilled_pays_for_the_storage_too(
    make_bundle: Callable[..., Bundle], tiny_store: ClassStore
) -> None:
    rough, fine = make_bundle("int4"), make_bundle()
    for made in (undistilled(rough, 0), encoded(rough, tiny_store, 0)):
        assert _levels(made.x, made.owner) <= 16, "four bits and one scale a class"
    for made in (undistilled(fine, 0), encoded(fine, tiny_store, 0)):
        assert _levels(made.x, made.owner) > 16


def test_encoded_images_are_packed_and_unpacked_as_the_set_is(
    make_bundle: Callable[..., Bundle], tiny_store: ClassStore
) -> None:
    bundle = make_bundle(tiles=2)
    assert encoded(bundle, tiny_store, 0).counts == (12, 12, 12)
    rows, notes = candidates(subject_of(bundle, tiny_store), tiny_store, ("encoded", "random-real"))
    assert [row.counts for row in rows] == [(12, 12, 12)] * 3, "all images of a class are not too many"
    assert {row.basis for row in rows} == {"equal-images"}, "nor is what three rows of floats weigh: 12 images"
    assert len(notes) == 1


def test_the_first_images_of_a_class_may_be_parts_of_a_row(
    make_bundle: Callable[..., Bundle], tiny_store: ClassStore
) -> None:
    bundle = make_bundle(tiles=2)
    whole, first = subject_of(bundle, tiny_store), subject_of(bundle, tiny_store, images_per_class=8)
    assert first.images.counts == (8, 8, 8)
    assert first.stored_per_class == 2
    kept = torch.cat([torch.arange(8) + start for start in (0, 12, 24)])
    assert torch.equal(first.images.x, whole.images.x[kept])
