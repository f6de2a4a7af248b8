"""The loop: it learns, resumes bit for bit, survives interruption and says why it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from latentdc import sharing
from latentdc.checkpoint import Checkpoints
from latentdc.condense import Optim, Step, condense
from latentdc.data.augment import NoAugment
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Mean
from latentdc.errors import DivergenceError, InputError
from latentdc.networks.pool import FixedPool, FreshPool
from latentdc.objectives import Match
from latentdc.portable.bank import LatentBank
from latentdc.portable.pixels import PixelsDecoder
from latentdc.representations import Features
from latentdc.source import Minibatches

SGD = Optim(kind="sgd", lr=1.0, momentum=0.5)


class Parts:
    """Fresh parts of one tiny run."""

    def __init__(self, store: ClassStore, counts: tuple[int, ...] = (2, 1, 2)) -> None:
        spec = store.spec
        self.decoder = PixelsDecoder(spec.image_shape, spec.mean, spec.std)
        self.bank = LatentBank({"x": list(spec.image_shape)}, list(counts))
        self.objective = Match(Features(), Mean())
        pool = FreshPool("mlp", spec, seed=1, width=8)
        self.source = Minibatches(store, UniformSampler(store, 12), pool, NoAugment(), seed=1)

    def condense(
        self,
        steps: int,
        *,
        optim: Optim = SGD,
        folder: Path | None = None,
        every: int | None = None,
        on_step: tuple = (),
        identity: dict | None = None,
        chunk: int | None = None,
        progress: bool = False,
        precision: str | None = None,
    ) -> torch.Tensor:
        kept = None if folder is None else Checkpoints(folder, identity or {}, every_steps=every, every_seconds=None)
        bank = condense(
            self.decoder,
            self.bank,
            self.objective,
            self.source,
            steps=steps,
            optim=optim,
            seed=1,
            chunk=chunk,
            checkpoints=kept,
            on_step=on_step,
            progress=progress,
            precision=precision,
        )
        assert bank is self.bank
        return bank.z["x"].detach().clone()


def stop_at(step: int):
    def call(now: Step) -> None:
        if now.step == step:
            raise KeyboardInterrupt

    return call


def test_loss_falls(tiny_store: ClassStore) -> None:
    losses: list[float] = []
    parts = Parts(tiny_store)
    parts.source.pool = FixedPool("mlp", tiny_store.spec, seed=1, num=2, width=8)
    parts.condense(60, optim=Optim(lr=0.1), on_step=(lambda now: losses.append(now.loss),))
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_chunks_do_not_matter(tiny_store: ClassStore) -> None:
    whole = Parts(tiny_store).condense(3)
    chunked = Parts(tiny_store).condense(3, chunk=2)
    torch.testing.assert_close(whole, chunked, rtol=1e-5, atol=1e-6)


def test_passes_over_blocks_of_classes_do_not_matter(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for one graph is taken a few classes at a time, and makes the same set."""
    together = Parts(tiny_store).condense(5)
    seen: list[int] = []
    monkeypatch.setitem(sharing._PIXELS_AT_ONCE, "cpu", 2 * 8 * 8)
    parts = Parts(tiny_store)
    parts.objective.register_forward_hook(lambda part, given, out: seen.append(len(given[1].x)))
    torch.testing.assert_close(parts.condense(5), together)
    assert seen == [2, 1, 2] * 5


@pytest.mark.parametrize(
    ("num_classes", "images", "expected"),
    [
        (10, 1, [10]),
        (10, 490, [2] * 5),
        (10, 100_000, [1] * 10),
        (7, 300, [4, 3]),
        (6, 400, [3] * 2),
        (101, 14, [51, 50]),
        (0, 0, []),
    ],
)
def test_blocks_are_as_few_as_fit(num_classes: int, images: int, expected: list[int]) -> None:
    classes = list(range(num_classes))
    blocks = sharing.passes(classes, [images] * num_classes, 28 * 28, torch.device("cpu"))
    assert [len(block) for block in blocks] == expected
    assert [cls for block in blocks for cls in block] == classes


def test_a_step_that_breaks_off_half_way_is_not_kept(tiny_store: ClassStore, tmp_path: Path) -> None:
    """A network that diverges after the set has moved: the checkpoint stays that of the step before."""
    parts = Parts(tiny_store)

    def advance(step: int, decode: object = None) -> None:
        if step == 3:
            raise DivergenceError("a network of the pool diverged")

    parts.source.advance = advance
    with pytest.raises(DivergenceError, match="of the pool"):
        parts.condense(8, folder=tmp_path, every=2)
    assert sorted(file.name for file in tmp_path.glob("checkpoint-*")) == ["checkpoint-0000000002.safetensors"]


@pytest.mark.parametrize(
    "optim", [SGD, Optim(lr=0.05), Optim(lr=0.05, schedule="cosine")], ids=["sgd", "adam", "cosine"]
)
def test_resume_is_bit_equal(tiny_store: ClassStore, tmp_path: Path, optim: Optim) -> None:
    straight = Parts(tiny_store).condense(8, optim=optim, folder=tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        Parts(tiny_store).condense(8, optim=optim, folder=tmp_path / "resumed", on_step=(stop_at(4),))
    resumed = Parts(tiny_store).condense(8, optim=optim, folder=tmp_path / "resumed")
    assert torch.equal(straight, resumed)
    first, second = (read_log(tmp_path / name / "log.jsonl") for name in ("straight", "resumed"))
    assert [line["step"] for line in second] == list(range(1, 9))
    assert [(line["loss"], line["lr"]) for line in first] == [(line["loss"], line["lr"]) for line in second]


def test_constant_schedule_may_go_on_for_longer(tiny_store: ClassStore, tmp_path: Path) -> None:
    straight = Parts(tiny_store).condense(6)
    Parts(tiny_store).condense(3, folder=tmp_path)
    assert torch.equal(straight, Parts(tiny_store).condense(6, folder=tmp_path))


def test_kill_loses_at_most_the_last_interval(tiny_store: ClassStore, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(now: Step) -> None:
        if now.step == 5:
            raise Killed  # Nothing in the loop may catch this: it stands for SIGKILL.

    straight = Parts(tiny_store).condense(8)
    with pytest.raises(Killed):
        Parts(tiny_store).condense(8, folder=tmp_path, every=2, on_step=(kill,))
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5]
    (tmp_path / ".checkpoint-0000000006.safetensors.1.part").write_bytes(b"half a file")
    steps: list[int] = []
    again = Parts(tiny_store).condense(8, folder=tmp_path, every=2, on_step=(lambda now: steps.append(now.step),))
    assert steps == [5, 6, 7, 8]
    assert torch.equal(straight, again)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == list(range(1, 9))
    assert not list(tmp_path.glob(".*.part"))


def test_finished_run_returns_at_once(tiny_store: ClassStore, tmp_path: Path) -> None:
    first = Parts(tiny_store).condense(3, folder=tmp_path)
    calls: list[Step] = []
    assert torch.equal(first, Parts(tiny_store).condense(3, folder=tmp_path, on_step=(calls.append,)))
    assert not calls


def test_divergence_names_step_class_and_remedy(tiny_store: ClassStore, tmp_path: Path) -> None:
    parts = Parts(tiny_store)

    def poison(now: Step) -> None:
        if now.step == 3:
            with torch.no_grad():
                now.bank.z["x"][2] = float("inf")  # The only row of class 1.

    with pytest.raises(DivergenceError, match=r"step 3: the loss is .*class 1.*optim\.lr \(now 1\)"):
        parts.condense(8, folder=tmp_path, every=2, on_step=(poison,))
    saved = Checkpoints(tmp_path, {**_identity(tmp_path)}).load()
    assert saved is not None
    assert saved.step == 2
    assert all(bool(torch.isfinite(value).all()) for value in saved.tensors.values())


def test_huge_learning_rate_diverges_with_a_reason(tiny_store: ClassStore) -> None:
    with pytest.raises(DivergenceError, match=r"lower optim\.lr"):
        Parts(tiny_store).condense(50, optim=Optim(kind="sgd", lr=1e30, momentum=0.0))


def test_another_recipe_is_refused(tiny_store: ClassStore, tmp_path: Path) -> None:
    Parts(tiny_store).condense(2, folder=tmp_path, identity={"data": "a", "by": "mean"})
    with pytest.raises(InputError, match="data is 'b', was 'a'") as caught:
        Parts(tiny_store).condense(4, folder=tmp_path, identity={"data": "b", "by": "mean"})
    assert "by is" not in str(caught.value)
    with pytest.raises(InputError, match=r"optim\.lr is 0.5, was 1.0"):
        Parts(tiny_store).condense(
            4, folder=tmp_path, identity={"data": "a", "by": "mean"}, optim=Optim(kind="sgd", lr=0.5, momentum=0.5)
        )
    with pytest.raises(InputError, match="precision is 'bf16', was 'fp32'"):
        Parts(tiny_store).condense(4, folder=tmp_path, identity={"data": "a", "by": "mean"}, precision="bf16")


def test_one_bar_on_standard_error_with_loss_and_rate(
    tiny_store: ClassStore, capsys: pytest.CaptureFixture[str]
) -> None:
    Parts(tiny_store).condense(3, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    last = err.split("\r")[-1]
    assert "condense: 100%" in last
    assert "3/3" in last
    assert "loss=" in last
    assert "step/s" in last or "s/step" in last


def test_bad_arguments_are_refused(tiny_store: ClassStore) -> None:
    with pytest.raises(InputError, match=r'"adma": no such optimiser. Did you mean "adam"'):
        Optim(kind="adma")
    with pytest.raises(InputError, match=r"optim\.lr"):
        Optim(lr=float("nan"))
    with pytest.raises(InputError, match="steps = 0"):
        Parts(tiny_store).condense(0)
    parts = Parts(tiny_store)
    parts.bank = parts.bank.quantise("int8")
    with pytest.raises(InputError, match="nothing to learn"):
        parts.condense(1)


def read_log(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _identity(folder: Path) -> dict:
    from safetensors import safe_open

    with safe_open(Checkpoints(folder, {}).files()[-1], framework="pt") as file:
        return json.loads(file.metadata()["latentdc"])["identity"]
