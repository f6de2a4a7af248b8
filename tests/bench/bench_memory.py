"""Memory of the pull-back through heavy decoders at 256 pixels: flat in the number of latents and of steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bench.saved import autoencoder, diffusion, growth, pulled_back

SIDE = 256
CHUNK = 2


@pytest.mark.parametrize("name", ["diffusion", "autoencoder"])
def test_memory_is_flat_in_the_number_of_latents(name: str, benchmark: Any) -> None:
    torch.set_num_threads(1)
    decoder = diffusion(SIDE, 10) if name == "diffusion" else autoencoder(SIDE)
    few = pulled_back(decoder, 2 * CHUNK, CHUNK)
    many = benchmark.pedantic(pulled_back, (decoder, 8 * CHUNK, CHUNK), rounds=1, iterations=1)
    benchmark.extra_info.update(rows=[2 * CHUNK, 8 * CHUNK], chunk=CHUNK, few=few, many=many)
    assert many["saved_bytes"] <= few["saved_bytes"] + growth(decoder, 6 * CHUNK)
    assert many["live_bytes"] <= few["live_bytes"] + growth(decoder, 6 * CHUNK)


def test_memory_is_flat_in_the_number_of_steps(benchmark: Any) -> None:
    torch.set_num_threads(1)
    short, plain = diffusion(SIDE, 2), diffusion(SIDE, 10, recompute=False)
    two = pulled_back(short, 2 * CHUNK, CHUNK)
    ten = benchmark.pedantic(pulled_back, (diffusion(SIDE, 10), 2 * CHUNK, CHUNK), rounds=1, iterations=1)
    kept = pulled_back(plain, 2 * CHUNK, CHUNK)
    benchmark.extra_info.update(steps=[2, 10], chunk=CHUNK, two=two, ten=ten, ten_without_recomputing=kept)
    assert ten["live_bytes"] <= 1.05 * two["live_bytes"]
    assert ten["saved_bytes"] < 0.1 * kept["saved_bytes"]
