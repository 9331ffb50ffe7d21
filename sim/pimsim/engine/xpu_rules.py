"""What is counted of a server beside the kernels themselves: rules that variants may change."""

from __future__ import annotations

from functools import cache

from pimsim.config.plugins import load_module
from pimsim.config.system import SystemConfig
from pimsim.mapping.kernels import Streamed

__all__ = ["CostRules", "cost_rules"]


class CostRules:
    """The usual ones. A cost rule is a subclass of it, ``Rules``."""

    def host_shares(self, config: SystemConfig) -> float:
        """Devices whose attention one socket of the host does, one after the other."""
        assert config.host is not None
        return max(1.0, config.devices / config.host.sockets)

    def energy_share(self, device_share: float) -> float:
        """Part of a product's energy that the device takes, which does ``device_share`` of it."""
        return device_share

    def hiding_softmax_s(self, softmax: Streamed, config: SystemConfig) -> float:
        """Seconds of softmax beside the program of the PIM stacks, which hide other work and are
        counted nowhere else; 0: the program has them all."""
        del softmax, config
        return 0.0


def cost_rules(config: SystemConfig) -> CostRules:
    """The rules that ``config`` asks for.

    Parameters
    ----------
    config
        Of the server.
    """
    return _made(tuple(config.cost_rules))


@cache
def _made(names: tuple[str, ...]) -> CostRules:
    bases = tuple(load_module("cost_rule", name).Rules for name in names)
    made: CostRules = type("Rules", bases, {})() if bases else CostRules()
    return made
