"""The replica that has most of a prompt's beginning in its cache."""

from __future__ import annotations

from pimsim.serving.routers import Router

__all__ = ["ROUTER", "PrefixAware"]


class PrefixAware(Router):
    """Of several that have as much the one with the fewest requests that have not ended."""

    needs_prefixes = True

    def replica(self, request: int) -> int:
        """Where the most blocks are found."""
        return min(
            range(len(self.schedulers)),
            key=lambda number: (
                -self.schedulers[number].cached_blocks(request),
                self.schedulers[number].outstanding,
            ),
        )


ROUTER = PrefixAware
