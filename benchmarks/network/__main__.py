"""What the network reaches: views, crowds, uploads under kills, updates, deltas, broadcasts, and the latency account.

    python -m benchmarks.network --json
    python -m benchmarks.network --parts views crowd --quick

Real servers and sockets on loopback; each part runs in a process of its own, one after the other. The models come from
runs/standard (`make run`) and runs/bench_artefacts (`python -m benchmarks.devices`).
"""

from benchmarks.parts import run_parts

PARTS = ("views", "crowd", "storm", "updates", "deltas", "broadcast", "simulation", "first_pixels", "account")

if __name__ == "__main__":
    run_parts("benchmarks.network", PARTS, about=__doc__ or "")
