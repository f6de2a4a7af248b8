"""Backbones that others trained, as networks ψ: from torchvision, from a folder of transformers, or from the Hub."""

from latentdc.networks.pretrained.pool import PretrainedPool, described_pool

__all__ = ["PretrainedPool", "described_pool"]
