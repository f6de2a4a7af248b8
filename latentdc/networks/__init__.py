"""Networks ψ: the architectures, the pools that supply them step by step, and the one student trainer."""

from latentdc.networks.base import ARCHITECTURES, Network, build
from latentdc.networks.blended import BlendedPool
from latentdc.networks.pool import FixedPool, FreshPool, Pool, fingerprint
from latentdc.networks.pretrained import PretrainedPool, described_pool
from latentdc.networks.queued import QueuePool
from latentdc.networks.trained import TrainedPool, Trainer

POOLS: dict[str, type[Pool]] = {
    "fresh": FreshPool,
    "fixed": FixedPool,
    "trained": TrainedPool,
    "queue": QueuePool,
    "blended": BlendedPool,
    "pretrained": PretrainedPool,
}

__all__ = [
    "ARCHITECTURES",
    "POOLS",
    "BlendedPool",
    "FixedPool",
    "FreshPool",
    "Network",
    "Pool",
    "PretrainedPool",
    "QueuePool",
    "TrainedPool",
    "Trainer",
    "build",
    "described_pool",
    "fingerprint",
]
