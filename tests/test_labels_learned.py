"""Labels that are learned with the set: where they start, how they move, what they cost, and where they cannot."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli_run import run, write
from torch import Tensor

from latentdc.bundle import load_bundle
from latentdc.checkpoint import Checkpoints
from latentdc.condense import Step, condense
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Norm
from latentdc.errors import DivergenceError, InputError
from latentdc.labels import LearnedLabels, Lesson, TeacherLabels, as_logits, begun, logits_of, relabelled
from latentdc.latents import decoded
from latentdc.networks import build as build_network
from latentdc.objectives import CrossEntropy, Match
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.portable.bank import LatentBank
from latentdc.portable.pixels import PixelsDecoder
from latentdc.recipe import build, citations, dry_run, identity, make_bank, make_source, parse_recipe, to_toml
from latentdc.representations import Gradients

TINY: dict[str, Any] = {
    "images_per_class": 1,
    "steps": 2,
    "init": "real",
    "decoder": "pixels",
    "labels": "learned",
    "storage": "fp16",
    "augment": "none",
    "objective": {"see": "gradients", "by": "cosine"},
    "optim": {"kind": "sgd", "lr": {"x": 0.1, "labels": 2.0}},
    "source": {"arch": "mlp", "width": 8, "num_per_class": 6},
}


def _built(store: ClassStore, **changes: Any) -> Any:
    return build(parse_recipe({**TINY, **changes}), store.spec)


def _condensed(
    store: ClassStore, steps: int, folder: Path | None = None, *, bank: LatentBank | None = None, **changes: Any
) -> LatentBank:
    built = _built(store, **changes)
    return condense(
        built.decoder,
        make_bank(built, store) if bank is None else bank,
        built.objective,
        make_source(built, store, progress=False),
        steps=steps,
        optim=built.recipe.optim,
        seed=0,
        checkpoints=None if folder is None else Checkpoints(folder, identity(built)),
        progress=False,
    )


class _Real:
    """A view of a few real images under one network, not augmented."""

    def __init__(self, store: ClassStore) -> None:
        self.net = build_network("mlp", store.spec, seed=0, width=6).double().requires_grad_(False).eval()
        self._batch = store.batch(list(range(0, 36, 3)))

    def augment(self, batch: Any) -> Any:
        return batch

    def real(self, looks: Any, classes: list[int]) -> Any:
        del classes
        ((see, by),) = looks
        batch = self._batch._replace(x=self._batch.x.double(), y=self._batch.y.double())
        layers = see(self.net, batch, differentiable=False)
        return (tuple(by.summarise(layer, torch.arange(3), 3) for layer in layers),)


def _double(store: ClassStore) -> tuple[PixelsDecoder, LatentBank]:
    """Three classes of 2, 1 and 2 rows with soft labels, in float64."""
    spec, x = store.spec, store.batch([0, 1, 14, 30, 31]).x
    decoder = PixelsDecoder(spec.image_shape, spec.mean, spec.std)
    soft = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    bank = LatentBank.of(decoder.encode(x, torch.arange(5)), [2, 1, 2], y=soft / soft.sum(1, keepdim=True))
    torch.nn.Module.to(bank, torch.float64)
    return torch.nn.Module.to(decoder, torch.float64), bank


def _loss(objective: Any, view: _Real, decoder: PixelsDecoder, bank: LatentBank, *, pull: bool = False) -> float:
    with decoded(decoder, bank, bank.rows()) as syn:
        loss = objective(view, syn)
        if pull:
            loss.backward()
    return float(loss.detach())


def test_the_gradient_to_the_logits_of_matched_gradients_is_the_difference_quotient(tiny_store: ClassStore) -> None:
    objective, view, (decoder, bank) = Match(Gradients(), Norm()), _Real(tiny_store), _double(tiny_store)
    with as_logits(bank):
        logits = logits_of(bank)
        assert logits is not None
        _loss(objective, view, decoder, bank, pull=True)
        assert logits.grad is not None
        for row in range(5):
            for cls in range(3):
                sides = []
                for step in (1e-5, -1e-5):
                    with torch.no_grad():
                        logits[row, cls] += step
                        sides.append(_loss(objective, view, decoder, bank))
                        logits[row, cls] -= step
                assert float(logits.grad[row, cls]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-9)


def test_the_gradient_to_the_logits_of_cross_entropies_as_it_reads(tiny_store: ClassStore) -> None:
    """∂/∂ℓ_j of −Σ_c y_c log p_c is y_j (Σ_c y_c log p_c − log p_j), over the rows of the class."""
    view, (decoder, bank) = _Real(tiny_store), _double(tiny_store)
    chances = view.net.observe(decoder(bank.latents(), bank.owner)).logits.softmax(1).detach()
    with as_logits(bank):
        _loss(CrossEntropy(weight=3.0), view, decoder, bank, pull=True)
        logits: Any = logits_of(bank)
        y = bank.y.detach()
    for row, owner in enumerate((0, 0, 1, 2, 2)):
        mean = sum(float(y[row, c]) * math.log(chances[row, c]) for c in range(3))
        for j in range(3):
            expected = 3 / (2, 1, 2)[owner] * float(y[row, j]) * (mean - math.log(chances[row, j]))
            assert float(logits.grad[row, j]) == pytest.approx(expected, rel=1e-9)


def test_they_start_at_the_rows_classes_or_at_what_a_teacher_says(tiny_store: ClassStore) -> None:
    bank = make_bank(_built(tiny_store, labels={"kind": "learned", "smoothing": 0.3}), tiny_store)
    assert isinstance(bank, LatentBank)
    torch.testing.assert_close(bank.y.detach(), 0.7 * torch.eye(3) + 0.1)
    plain = make_bank(_built(tiny_store, labels="hard", optim={}), tiny_store)
    assert isinstance(plain, LatentBank)
    assert torch.equal(plain.z["x"], bank.z["x"])
    teacher = {"arch": "mlp", "width": 16, "epochs": 5, "temperature": 3.0}
    options = {"kind": "learned", "start": "teacher", "smoothing": 0.0, **teacher}
    built = _built(tiny_store, labels=options, formation="tiles", images_per_class=2)
    taught, lesson = make_bank(built, tiny_store), Lesson(tiny_store, 0)
    assert isinstance(taught, LatentBank)
    told = relabelled(TeacherLabels(**teacher), taught, built.decoder, built.formation, lesson)  # type: ignore[arg-type]
    assert torch.equal(taught.y, told.y)
    assert float((taught.y.detach() - 0.9 * torch.eye(3).repeat_interleave(2, 0)).abs().max()) > 0.05
    with pytest.raises(InputError, match=r'labels\.start = "teacher": it is trained on real images, and none were'):
        begun(LearnedLabels(start="teacher"), taught, built.decoder, None, None)


def test_labels_move_and_stay_distributions_and_the_bank_is_as_it_was(tiny_store: ClassStore) -> None:
    bank = _condensed(tiny_store, 3)
    assert type(bank) is LatentBank
    assert dict(bank.named_parameters()).keys() == {"z.x", "soft"}
    assert logits_of(bank) is None
    start = 0.9 * torch.eye(3) + 0.1 / 3
    assert float((bank.y.detach() - start).abs().max()) > 1e-3
    torch.testing.assert_close(bank.y.detach().sum(1), torch.ones(3))
    assert float(bank.y.detach().min()) > 0


def test_each_rate_is_its_own(tiny_store: ClassStore) -> None:
    """Adam's first step is as long as its rate; of labels, that of their logits."""
    seen: list[Step] = []
    built = _built(tiny_store, optim={"lr": {"x": 0.01, "labels": 0.5}})
    bank = make_bank(built, tiny_store)
    assert isinstance(bank, LatentBank)
    source = make_source(built, tiny_store, progress=False)
    before = bank.y.detach().log()
    condense(
        built.decoder, bank, built.objective, source, steps=1, optim=built.recipe.optim, seed=0,
        on_step=(seen.append,), progress=False,
    )  # fmt: skip
    moves = bank.y.detach().log() - before  # of logits, up to a number that a row's have in common
    assert float((moves.amax(1) - moves.amin(1)).max()) == pytest.approx(1.0, rel=1e-3)
    assert seen[0].lr == {"x": 0.01, "labels": 0.5}


def test_resumed_bit_for_bit(tiny_store: ClassStore, tmp_path: Path) -> None:
    straight = _condensed(tiny_store, 4)
    _condensed(tiny_store, 2, tmp_path)
    resumed = _condensed(tiny_store, 4, tmp_path)
    assert torch.equal(straight.soft, resumed.soft)
    assert torch.equal(straight.z["x"], resumed.z["x"])
    with pytest.raises(InputError, match=r"labels\.options\.smoothing is 0\.2, was None"):
        _condensed(tiny_store, 4, tmp_path, labels={"kind": "learned", "smoothing": 0.2})


def test_other_labels_are_no_part_of_a_runs_identity(tiny_store: ClassStore) -> None:
    known = [
        {name for name in identity(_built(tiny_store, labels=labels, optim={})) if name.startswith("labels")}
        for labels in ("learned", "teacher", "hard")
    ]
    assert known == [{"labels.kind"}, set(), set()]


def test_labels_that_need_no_gradient_stay(tiny_store: ClassStore) -> None:
    bank = make_bank(_built(tiny_store), tiny_store)
    assert isinstance(bank, LatentBank)
    bank.soft.requires_grad_(False)
    before = bank.soft.clone()
    _condensed(tiny_store, 2, bank=bank, labels="hard", optim={})
    assert torch.equal(bank.soft, before)


def test_a_label_that_is_no_number_is_blamed(tiny_store: ClassStore) -> None:
    bank = make_bank(_built(tiny_store), tiny_store)
    assert isinstance(bank, LatentBank)
    with torch.no_grad():
        bank.soft[1, 0] = torch.nan
    with pytest.raises(DivergenceError, match=r"step 0: the loss is nan \(class 1\)"):
        _condensed(tiny_store, 2, bank=bank)


def test_a_bundle_carries_what_was_learned_and_counts_it(tiny_store: ClassStore, tmp_path: Path) -> None:
    last: list[Tensor] = []
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml(parse_recipe(TINY)))
    pipe = CondensationPipeline(device="cpu")
    pipe.set_progress_bar_config(disable=True)
    made = pipe(tiny_store, file, out=tmp_path / "set", on_step=(lambda now: last.append(now.bank.y.detach().clone()),))
    bank = load_bundle(tmp_path / "set").bank
    assert torch.equal(bank.soft, last[-1].half())
    assert not torch.equal(last[0], last[1])
    assert made.bundle.storage.labels == 4 * 3 + 3 * 3 * 2
    told = dry_run(_built(tiny_store), tiny_store)
    assert made.bundle.storage.bytes_per_class == pytest.approx(told["bytes_per_class"])
    hard = dry_run(_built(tiny_store, labels="hard", optim={}), tiny_store)
    assert told["checkpoint_bytes"] - hard["checkpoint_bytes"] == 2 * 3 * 4 * 3 * 3
    assert told["bytes_per_class"] - hard["bytes_per_class"] == 2 * 3
    within = {"images_per_class": None, "bytes_per_class": 700}
    assert _built(tiny_store, **within).counts[0] == (700 - 4) // (128 + 6)


def test_two_steps_through_the_command(tiny_store: ClassStore, tmp_path: Path) -> None:
    write(tiny_store, tmp_path / "data" / "train")
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml(parse_recipe(TINY)))
    budget = ("--images-per-class", 2, "--set", "labels.smoothing=0.2")
    run("condense", "--data", tmp_path / "data", "--recipe", file, *budget, "--out", tmp_path / "set", "--json")
    facts = json.loads(run("inspect", tmp_path / "set", "--json"))
    assert facts["storage"]["labels"] == 4 * 3 + 6 * 3 * 2
    bank = load_bundle(tmp_path / "set").bank
    assert torch.equal(bank.y.argmax(1), bank.owner)
    assert float(bank.y.max()) != pytest.approx(0.8 + 0.2 / 3, abs=1e-4), "they moved"


READING: list[dict[str, Any]] = [
    {"see": "gradients", "by": "cosine"},
    {"see": "head-variance"},
    {"penalties": ["cross-entropy"]},
    {"plus": [{"see": "gradients"}]},
    {"kind": "prefixes", "see": "gradients"},
]


@pytest.mark.parametrize("objective", READING)
def test_whatever_looks_at_labels_moves_them(objective: dict[str, Any], tiny_store: ClassStore) -> None:
    bank = _condensed(tiny_store, 1, objective=objective, images_per_class=2)
    assert float((bank.y.detach() - 0.9 * torch.eye(3).repeat_interleave(2, 0) - 0.1 / 3).abs().max()) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {}}, r'labels = "learned" and objective\.see = "features": nothing in the objective looks at'),
        ({"objective": {"plus": [{"see": "logits"}]}}, r'objective\.see = "features", "logits": nothing in'),
        ({"objective": {"penalties": ["intra-inter"]}}, r'Use see = "gradients", or add penalties = \["cross-entropy"'),
        ({"steps": 0}, r'labels = "learned" and steps = 0: labels are learned in steps\. Use labels = "teacher"'),
        ({"optim": {"lr": {"x": 0.1}}}, r"optim\.lr has no rate for labels\. Give one number for all, or"),
        ({"labels": "hard"}, r"optim\.lr\.labels: nothing of that name is learned here"),
        ({"labels": {"kind": "learned", "start": "row"}}, r'labels\.start = "row": give "class" or "teacher"'),
        ({"labels": {"kind": "learned", "smoothing": 0.0}}, r"labels\.smoothing = 0\.0: give a share below 1, and"),
        ({"labels": {"kind": "learned", "smoothing": 1.0}}, r"labels\.smoothing = 1\.0: give a share below 1"),
        (
            {"labels": {"kind": "learned", "epochs": 5}},
            r'labels\.epochs is a teacher\'s: set labels\.start = "teacher"',
        ),
        ({"init": "statistics", "steps": 0}, r'labels = "learned": a distribution has no rows to label'),
    ],
)
def test_mistakes_are_refused(changes: dict[str, Any], message: str, tiny_store: ClassStore) -> None:
    with pytest.raises(InputError, match=message):
        _built(tiny_store, **changes)


def test_an_objective_that_never_looks_at_them_is_refused_in_the_loop_too(tiny_store: ClassStore) -> None:
    bank = make_bank(_built(tiny_store), tiny_store)
    assert isinstance(bank, LatentBank)
    with pytest.raises(InputError, match=r"the labels are to be learned, and nothing in the objective looks at them"):
        _condensed(tiny_store, 1, bank=bank, labels="hard", objective={}, optim={})
    assert type(bank) is LatentBank


def test_works_are_credited() -> None:
    assert {"sucholutsky2021soft", "bohdal2020labels", "guo2024datm"} <= set(citations(parse_recipe(TINY)))
