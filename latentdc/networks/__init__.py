"""Networks ψ: the architectures, the pools that supply them step by step, and the one student trainer."""

from latentdc.networks.base import ARCHITECTURES, Network, build
from latentdc.networks.pool import FixedPool, FreshPool, Pool, fingerprint

POOLS: dict[str, type[Pool]] = {"fresh": FreshPool, "fixed": FixedPool}

__all__ = ["ARCHITECTURES", "POOLS", "FixedPool", "FreshPool", "Network", "Pool", "build", "fingerprint"]
