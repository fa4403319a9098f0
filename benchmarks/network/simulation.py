"""A crowd of ten thousand, simulated: what a broadcast of one megabyte takes, and how soon a flash crowd is served.

The simulation's losses, codes and order of symbols are those of the real carousel; tests hold it against real sockets.
"""

from typing import Any

import numpy as np

from crowdnerf_lab.network.delivery.losses import GilbertElliott, bursts, independent
from crowdnerf_lab.network.delivery.objects import SYMBOL_BYTES
from crowdnerf_lab.network.delivery.simulation import (
    WAYS,
    Broadcast,
    CrowdLinks,
    Delivery,
    simulate_broadcast,
    simulate_flash_crowd,
)

RECEIVERS, OBJECT_BYTES = 10_000, 1_000_000
SENT_OVER_K, COMPLETE = 1.15, 0.999
LARGE_SYMBOL_BYTES = 1280
"""Fewer and larger symbols than the carousel's own: headers take 1 % less, the luckless stray farther from the mean."""
CASES: tuple[tuple[str, GilbertElliott, int], ...] = (
    ("10 %", independent(0.1), SYMBOL_BYTES),
    ("10 %", independent(0.1), LARGE_SYMBOL_BYTES),
    ("10 %", independent(0.1), 512),
    ("1 %", independent(0.01), SYMBOL_BYTES),
    ("30 %", independent(0.3), SYMBOL_BYTES),
    ("10 % in bursts of 5", bursts(0.1, 5), SYMBOL_BYTES),
    ("10 % in bursts of 20", bursts(0.1, 20), SYMBOL_BYTES),
)


def measure(*, quick: bool) -> dict[str, Any]:
    """broadcast_complete_fraction: of the UEs after 1.15 K symbols at 10 % loss, without repair.
    broadcast_symbols_over_k: symbols sent until 99.9 % were complete, over K. broadcast_received_over_k: symbols beyond
    K that a UE took, mean and worst."""
    receivers = RECEIVERS // 10 if quick else RECEIVERS
    seen = [
        simulate_broadcast(receivers, object_bytes=OBJECT_BYTES, loss=loss, symbol_bytes=size, rounds=2.5, seed=6)
        for _, loss, size in CASES
    ]
    shortened = simulate_broadcast(
        receivers,
        object_bytes=OBJECT_BYTES,
        loss=independent(0.1),
        symbol_bytes=SYMBOL_BYTES,
        rounds=1.0 / 0.9,
        repair_mbit_s=100.0,
        seed=6,
    )
    first = seen[0]
    over = first.received - first.source_symbols
    return {
        "broadcast_complete_fraction": first.complete_after(SENT_OVER_K * first.source_symbols),
        "broadcast_symbols_over_k": first.symbols_for(COMPLETE) / first.source_symbols,
        "broadcast_received_over_k_mean": float(over.mean()),
        "broadcast_received_over_k_most": int(over.max()),
        "broadcast_within_k_plus_2": float(np.mean(over <= 2)),
        "broadcast_receivers": receivers,
        "repair_after_k_over_0.9_bytes_per_ue": shortened.carried["repair"] / receivers,
        "repair_after_k_over_0.9_share": float(np.mean(shortened.repaired > 0)),
        "broadcasts": [
            {"loss": name, "symbol bytes": size} | _row(loss, one)
            for (name, loss, size), one in zip(CASES, seen, strict=True)
        ],
        "flash_crowds": [
            _served(simulate_flash_crowd(receivers, object_bytes=size, way=way, links=CrowdLinks(), seed=6), size)
            for size in (150_000, OBJECT_BYTES)
            for way in WAYS
        ],
    }


def _row(loss: GilbertElliott, seen: Broadcast) -> dict[str, Any]:
    symbols = seen.source_symbols
    return {
        "K": symbols,
        "complete after 1.15 K": seen.complete_after(SENT_OVER_K * symbols),
        "sent/K until 99.9 %": seen.symbols_for(COMPLETE) / symbols,
        "until all": seen.symbols_for(1.0) / symbols if seen.complete_fraction == 1 else None,
        "what loss takes": 1 / (1 - loss.mean_loss),
        "received - K, mean": float(np.mean(seen.received - symbols)),
        "most": int(np.max(seen.received - symbols)),
    }


def _served(crowd: Delivery, size: int) -> dict[str, Any]:
    median, p99 = np.quantile(crowd.waited, (0.5, 0.99))
    return {
        "kB": size / 1e3,
        "way": crowd.way,
        "median s": float(median),
        "p99 s": float(p99),
        "within 1 s": crowd.share_within(1.0),
        "within 10 s": crowd.share_within(10.0),
        "MB carried": ", ".join(f"{link} {carried / 1e6:,.0f}" for link, carried in crowd.carried.items()),
    }


if __name__ == "__main__":
    from benchmarks.parts import run_parts

    run_parts("benchmarks.network", ("simulation",), about=__doc__ or "")
