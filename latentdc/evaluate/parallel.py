"""Trains several students at once, each in its own process: small sets leave most of a machine's cores idle."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

import torch

from latentdc.allocator import keep_freed_memory
from latentdc.evaluate.records import Run
from latentdc.evaluate.training import Settings, Task, train_run


def train_parallel(tasks: Iterator[Task], settings: Settings, workers: int) -> Iterator[tuple[Task, tuple[Run, ...]]]:
    """Finished runs as they come, with at most ``workers`` processes, which share this process's threads evenly.

    Sets are drawn as processes become free, not all at once. Accuracies may differ from one process's in the last
    digits, since sums are split over another number of threads.
    """
    threads = max(1, torch.get_num_threads() // workers)
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    running: dict[Future[tuple[Run, ...]], Task] = {}
    try:
        for task in tasks:
            running[pool.submit(_train, task, settings, threads)] = task
            if len(running) > workers:  # one task more than workers, so that none waits for the next draw
                yield from _finished(running)
        while running:
            yield from _finished(running)
    finally:
        pool.shutdown(wait=not running, cancel_futures=True)


def _finished(running: dict[Future[tuple[Run, ...]], Task]) -> list[tuple[Task, tuple[Run, ...]]]:
    """Wait for at least one run and take the finished ones out of ``running``."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    return [(running.pop(future), future.result()) for future in done]


def _train(task: Task, settings: Settings, threads: int) -> tuple[Run, ...]:
    """One run, in a process of its own."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    return train_run(task, settings)
