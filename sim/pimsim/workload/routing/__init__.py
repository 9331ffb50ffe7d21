"""Where tokens go in a mixture of experts: traces of real runs, and generators for large models."""

from pimsim.workload.routing.spec import load_routing

__all__ = ["load_routing"]
