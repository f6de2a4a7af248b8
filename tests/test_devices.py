"""The device a user named, and which process speaks."""

from __future__ import annotations

import pytest
import torch

from latentdc import devices
from latentdc.cli.app import emit, say
from latentdc.devices import check_precision, device_of, has_bf16, is_main_process
from latentdc.errors import InputError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_what_is_not_there_is_refused() -> None:
    assert device_of() == device_of("cpu") == device_of(torch.device("cpu")) == torch.device("cpu")
    for absent in ("cuda", "cuda:1"):
        with pytest.raises(InputError, match="sees no cuda device here"):
            device_of(absent)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cdua", 'Did you mean "cuda"'),
        ("gpu", "Known: cpu, cuda"),
        ("", "Known: cpu, cuda"),
        ("cuda:first", "number of the device"),
        ("cuda:", "number of the device"),
        ("cuda:2", "give cuda:0 to cuda:1"),
    ],
)
@pytest.mark.usefixtures("two_gpus")
def test_mistakes_are_explained(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        device_of(text)


@pytest.mark.usefixtures("two_gpus")
def test_numbers_are_honoured_and_processes_share_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of() == device_of("cuda") == torch.device("cuda")
    assert device_of("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of() == device_of("cuda") == torch.device("cuda", 1)
    assert device_of("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="2 processes cannot share it"):
        device_of("cuda:0")


@pytest.mark.usefixtures("no_gpu")
def test_mps_has_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_of() == torch.device("cpu")
    assert device_of("mps") == torch.device("mps")


def test_one_process_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert is_main_process(), "a rank without a world is somebody else's variable"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert devices.several_processes()
    assert not is_main_process()
    monkeypatch.setenv("RANK", "0")
    assert is_main_process()


def test_results_are_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        say("done")
        emit({"a": 1})
    assert capsys.readouterr().out == 'done\n{\n  "a": 1\n}\n'


@pytest.mark.parametrize("has", [True, False])
def test_slow_bf16_is_warned_of_once(
    has: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: has)
    devices._warn_of_bf16.cache_clear()
    cpu = torch.device("cpu")
    check_precision("fp32", cpu)
    check_precision("bf16")  # nobody said where
    assert not caplog.text
    for _ in range(2):
        check_precision("bf16", cpu)
    devices._warn_of_bf16.cache_clear()
    assert caplog.text.count("has no instructions for it") == (0 if has else 1)


@pytest.mark.parametrize("has", [True, False])
def test_bf16_of_a_gpu_is_its_own_not_imitated(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: has or including_emulation)
    assert has_bf16(torch.device("cuda:0")) is has


def test_bf16_of_a_cpu_without_onednn_is_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bf16(torch.device("cpu"))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match=r'precision = "bf61": no such precision. Did you mean "bf16"'):
        check_precision("bf61")
