"""Which features of the feed-forward networks are at work: measured masks and published laws."""

from pimsim.workload.sparsity.spec import Sparsity, load_sparsity

__all__ = ["Sparsity", "load_sparsity"]
