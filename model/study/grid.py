"""Which learning rates to try: a ladder of half decades, climbed until the best rung has a worse one on either side. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

# Rungs beyond the first three; more would mean that a method does not work at all.
MOST_EXTENSIONS = 4


def rate_at(rung: int) -> float:
    """The learning rate at a rung: ..., -2: 0.1, -1: 0.3, 0: 1, 1: 3, ..."""
    decade, is_half = divmod(rung, 2)
    return float(f"{3 if is_half else 1}e{decade}")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A search around ``middle``; ``losses`` are validation losses by rung, infinite where training diverged."""

    middle: int
    losses: Mapping[int, float]

    @property
    def best(self) -> int:
        """The rung of least loss."""
        return min(self.losses, key=lambda rung: (self.losses[rung], rung))

    @property
    def is_edge(self) -> bool:
        """Whether the best rung is the lowest or highest that was tried."""
        return self.best in (min(self.losses), max(self.losses))

    def missing(self) -> list[int]:
        """The rungs to try next; none where the best is known, or the ladder may not be extended any more."""
        first = [rung for rung in range(self.middle - 1, self.middle + 2) if rung not in self.losses]
        if first:
            return first
        if not self.is_edge or len(self.losses) >= 3 + MOST_EXTENSIONS:
            return []
        return [min(self.losses) - 1] if self.best == min(self.losses) else [max(self.losses) + 1]
