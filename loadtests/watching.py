"""What counting images and taking feedback cost: V1 requests a second with both and with neither, both servers running, in turns.

    python -m loadtests.watching --bundle build/bundle --duels 3

The client is h2load (Debian's nghttp2-client), 64 connections of one image each; a second of load for one server and then for the
other, as `loadtests.peers` has it for close races. A JSON line; exit code 1 where the bar surely does not hold.
"""

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from loadtests.peers import h2load
from loadtests.peers.contestants import CONTESTANTS
from loadtests.peers.measure import Bench, Settings
from loadtests.peers.run import real_images
from model.bundle import Bundle

# Of the throughput without.
BAR = 0.95


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 95 % interval of the ratios' median, from their order (David and Nagaraja 2003): those at n/2 -+ 0.98 sqrt(n)."""
    ordered, count = sorted(ratios), len(ratios)
    low = max(int(count / 2 - 0.98 * count**0.5), 0)
    return ordered[low], ordered[count - 1 - low]


def main() -> int:
    """Measure, print, and hold the ratio against the bar."""
    parser = argparse.ArgumentParser(description="Measure what counting images costs.")
    parser.add_argument("--bundle", type=Path, default=Path("build/bundle"), help="The bundle's directory.")
    parser.add_argument("--root", type=Path, default=Path("build/watching-cost"), help="Directory of logs and request bodies.")
    parser.add_argument("--duels", type=int, default=3, help="Starts of both servers, each of seven turns.")
    parser.add_argument("--workers", type=int, default=2, help="Processes of each server.")
    arguments = parser.parse_args()
    if not h2load.available():
        parser.error("h2load: not found; it comes with Debian's package nghttp2-client")
    ours = CONTESTANTS["ours"]
    on, off = (
        replace(ours, name=f"watch-{value}", command=f"{ours.command} --watch {value} --feedback {value}")
        for value in ("true", "false")
    )
    settings = Settings(bundle=arguments.bundle, root=arguments.root, seconds=1, workers=arguments.workers)
    bench = Bench(settings=settings, truth=real_images(Bundle.load(arguments.bundle)))
    # Who is asked first in a turn changes from one duel to the next.
    ratios: list[float] = []
    for index in range(arguments.duels):
        ratios += bench.duel(on, off) if index % 2 == 0 else [1 / ratio for ratio in bench.duel(off, on)]
    low, high = interval(ratios)
    figures = {"turns": len(ratios), "median": statistics.median(ratios), "low": low, "high": high}
    print(json.dumps({"watched_of_unwatched": {name: round(value, 3) for name, value in figures.items()}, "bar": BAR}))
    return 1 if high < BAR else 0


if __name__ == "__main__":
    sys.exit(main())
