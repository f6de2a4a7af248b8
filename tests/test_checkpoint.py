"""Checkpoints: whole or absent, refused when damaged or another run's; a log that agrees with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdc.checkpoint import Checkpoints, RunState, StepLog, uninterrupted
from latentdc.errors import BundleError, InputError

TENSORS = {"z": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


def kept(folder: Path, **identity: object) -> Checkpoints:
    return Checkpoints(folder, identity, every_steps=None, every_seconds=None)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    kept(tmp_path, seed=1, betas=(0.9, 0.999)).save(7, TENSORS, {"seconds": 1.5})
    saved = kept(tmp_path, seed=1, betas=(0.9, 0.999)).load()
    assert saved is not None
    assert (saved.step, saved.state) == (7, {"seconds": 1.5})
    assert all(torch.equal(saved.tensors[name], TENSORS[name]) for name in TENSORS)
    assert kept(tmp_path / "empty").load() is None


def test_only_the_last_two_stay(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        kept(tmp_path).save(step, TENSORS, {})
    assert [path.name for path in kept(tmp_path).files()] == [
        "checkpoint-0000000010.safetensors",
        "checkpoint-0000000011.safetensors",
    ]


def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept(tmp_path).save(1, TENSORS, {})
    path = kept(tmp_path).save(2, TENSORS, {})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    saved = kept(tmp_path).load()
    assert saved is not None
    assert saved.step == 1
    assert "sha256" in caplog.text
    kept(tmp_path).discard_after(1)
    assert len(kept(tmp_path).files()) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "version"])
def test_nothing_intact_is_an_error(tmp_path: Path, damage: str) -> None:
    path = kept(tmp_path).save(1, TENSORS, {})
    data = path.read_bytes()
    if damage == "flip":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data.replace(b'\\"version\\": 1', b'\\"version\\": 9'))
    with pytest.raises(BundleError, match="no intact checkpoint"):
        kept(tmp_path).load()


@pytest.mark.parametrize("flip", [0x01, 0x03, 0x20, 0x80])
def test_no_changed_byte_makes_another_state(tmp_path: Path, flip: int) -> None:
    """Whatever byte is changed, the state itself or the older one is loaded."""
    for step in (1, 2):
        path = kept(tmp_path, seed=0).save(step, TENSORS, {"seconds": float(step)})
    data, taken = path.read_bytes(), set()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
        saved = kept(tmp_path, seed=0).load()
        assert saved is not None
        assert saved.state == {"seconds": float(saved.step)}, place
        assert saved.tensors.keys() == TENSORS.keys()
        assert all(torch.equal(saved.tensors[name], TENSORS[name]) for name in TENSORS)
        taken.add(saved.step)
    assert 1 in taken


def test_another_run_is_refused_by_its_differing_keys(tmp_path: Path) -> None:
    kept(tmp_path, data="a", lr=0.1).save(1, TENSORS, {})
    with pytest.raises(InputError, match=r"data is 'b', was 'a'; width is 3, was None") as caught:
        kept(tmp_path, data="b", lr=0.1, width=3).load()
    assert "lr is" not in str(caught.value)


def test_a_failed_save_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(tmp_path).save(1, TENSORS, {})

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        kept(tmp_path).save(2, TENSORS, {})
    saved = kept(tmp_path).load()
    assert saved is not None
    assert saved.step == 1
    assert not list(tmp_path.glob(".*"))


def test_killed_while_saving(tmp_path: Path) -> None:
    script = """
        import sys, torch
        from latentdc.checkpoint import Checkpoints
        kept = Checkpoints(sys.argv[1], {}, every_seconds=None)
        step = 0
        while True:
            step += 1
            kept.save(step, {"z": torch.full((300_000,), float(step))}, {})
            print(step, flush=True)
    """
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], stdout=subprocess.PIPE)
    assert run.stdout is not None
    done = [int(run.stdout.readline()) for _ in range(3)][-1]
    run.send_signal(signal.SIGKILL)
    run.stdout.close()
    run.wait()
    saved = kept(tmp_path).load()
    assert saved is not None
    assert saved.step >= done
    assert torch.equal(saved.tensors["z"], torch.full((300_000,), float(saved.step)))


def test_due_by_steps_and_by_time(tmp_path: Path) -> None:
    assert [step for step in range(1, 7) if Checkpoints(tmp_path, {}, every_steps=3, every_seconds=None).due(step)] == [
        3,
        6,
    ]
    assert Checkpoints(tmp_path, {}, every_seconds=1e-9).due(1)
    assert not Checkpoints(tmp_path, {}, every_seconds=1e9).due(1)
    with pytest.raises(InputError, match="every_steps = 0"):
        Checkpoints(tmp_path, {}, every_steps=0)


def test_log_is_cut_back_to_the_step(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = StepLog(path)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 0.5})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # The line a killed process was writing.
    StepLog(path, step=2).write({"step": 3, "loss": 0.25})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 0.25},
    ]


@pytest.fixture
def on_ctrl_c() -> Iterator[Callable[[Any], None]]:
    """Sets the handler of Ctrl-C for one test; a shell's background jobs begin with it ignored."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


def update(done: list[str]) -> None:
    with uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("update")


def test_ctrl_c_waits_for_the_end_of_an_update(on_ctrl_c: Callable[[Any], None]) -> None:
    on_ctrl_c(signal.default_int_handler)
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        update(done)
    assert done == ["update"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_was_ignored_stays_ignored(on_ctrl_c: Callable[[Any], None]) -> None:
    on_ctrl_c(signal.SIG_IGN)
    done: list[str] = []
    update(done)
    assert done == ["update"]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


class Counter:
    """Something with a state: one number, one tensor."""

    def __init__(self) -> None:
        self.number, self.tensor = 0, torch.zeros(2)

    def state_dict(self) -> dict:
        return {"number": self.number, "tensor": self.tensor}

    def load_state_dict(self, state: dict) -> None:
        self.number, self.tensor = state["number"], state["tensor"]


def test_run_state_round_trip(tmp_path: Path) -> None:
    def fresh() -> tuple[RunState, torch.nn.Parameter, Counter]:
        z, part = torch.nn.Parameter(torch.ones(3)), Counter()
        return RunState({"z": z}, torch.optim.Adam([z], lr=0.1), kept(tmp_path), part=part), z, part

    state, z, part = fresh()
    state.resume()
    part.number, part.tensor = 4, torch.ones(2)
    for _ in range(2):
        z.grad = torch.tensor([1.0, -2.0, 3.0])
        state.update()
    state.save()
    again, z_again, part_again = fresh()
    again.resume()
    assert again.step == 2
    assert torch.equal(z, z_again)
    assert part_again.number == 4
    assert torch.equal(part_again.tensor, torch.ones(2))
    for each, parameter in ((state, z), (again, z_again)):
        parameter.grad = torch.tensor([0.5, 0.5, 0.5])
        each.update()
    assert torch.equal(z, z_again)
