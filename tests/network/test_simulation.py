"""The simulated crowd against closed forms, against the real decoder, and against real sockets."""

import asyncio
import random
import socket
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import raptorq
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from crowdnerf_lab.network.delivery.carousel import broadcast, packets_of
from crowdnerf_lab.network.delivery.fair_sharing import fair_share
from crowdnerf_lab.network.delivery.losses import bursts, fates, independent
from crowdnerf_lab.network.delivery.objects import PAYLOAD_IDENTIFIER, block_sizes, describe
from crowdnerf_lab.network.delivery.peer_rounds import exchange_pieces
from crowdnerf_lab.network.delivery.receiver import Received, receive
from crowdnerf_lab.network.delivery.simulation import (
    FAILURE,
    HEADERS_BYTES,
    WAYS,
    CrowdLinks,
    Way,
    _order,
    simulate_broadcast,
    simulate_flash_crowd,
)

MEGABYTE = 1_000_000


@pytest.mark.row("S33", "S54")
@given(st.integers(1, 40), st.floats(0.5, 20.0), st.integers(0, 2**31))
def test_fair_sharing_serves_all_bytes_at_the_rate_and_nobody_faster_than_it_can_take(
    count: int, most_each: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    begins, sizes = generator.uniform(0, 5, count), generator.uniform(0.1, 30, count)
    ends = fair_share(begins, sizes, rate=10.0, most_each=most_each)
    assert (ends >= begins + sizes / min(10.0, most_each) - 1e-9).all()
    assert ends.max() <= begins.max() + sizes.sum() / min(10.0, most_each) + 1e-9
    at_once = fair_share(np.zeros(count), np.full(count, 3.0), rate=10.0, most_each=most_each)
    assert at_once == pytest.approx(np.full(count, 3.0 / min(most_each, 10.0 / count)))


def test_fair_sharing_of_two_by_hand() -> None:
    """The first is alone for 1 s, shares then; the small one ends, and the first has the rate for itself again."""
    ends = fair_share(np.array([0.0, 1.0]), np.array([30.0, 10.0]), rate=10.0)
    assert ends == pytest.approx([4.0, 3.0])


@pytest.mark.row("S54")
def test_a_receiver_needs_as_many_symbols_as_the_loss_makes_it() -> None:
    """Symbols sent until K + h are heard: a negative binomial law."""
    seen = simulate_broadcast(4000, object_bytes=64 * 200, symbol_bytes=64, loss=independent(0.2), rounds=3, seed=5)
    assert seen.source_symbols == 200
    assert seen.complete_fraction == 1
    law = stats.nbinom(200, 0.8)
    assert abs(seen.whole_after.mean() - 200 - law.mean() - 0.0126) < 4 * law.std() / np.sqrt(4000)
    assert (
        stats.kstest(seen.whole_after - 200 + np.random.default_rng(0).random(4000) - 1, _smoothed(law)).pvalue > 1e-3
    )


def _smoothed(law):
    """The law of a count less a uniform fraction, so that a continuous test applies."""

    def cdf(values):
        whole = np.floor(values)
        return law.cdf(whole) + (values - whole) * law.pmf(whole + 1)

    return cdf


@pytest.mark.row("S33", "S54", "S72")
def test_ten_thousand_receive_a_megabyte_at_ten_per_cent_loss() -> None:
    seen = simulate_broadcast(10_000, object_bytes=MEGABYTE, symbol_bytes=1024, loss=independent(0.1), rounds=1.3)
    assert seen.complete_after(1.15 * seen.source_symbols) >= 0.999
    assert seen.symbols_for(0.999) <= 1.15 * seen.source_symbols
    over = seen.received - seen.source_symbols
    assert np.mean(over <= 2) >= 0.9999
    assert np.mean(over > 0) == pytest.approx(FAILURE, rel=0.5)
    bursty = simulate_broadcast(10_000, object_bytes=MEGABYTE, symbol_bytes=1024, loss=bursts(0.1, 5), rounds=1.5)
    assert bursty.symbols_for(0.999) > seen.symbols_for(0.999)


def test_the_real_decoder_fails_no_more_often_than_the_simulated_one() -> None:
    generator = random.Random(0)
    content = generator.randbytes(8 * 40)
    symbols = [
        packet[PAYLOAD_IDENTIFIER.size :]
        for packet in raptorq.Encoder.with_defaults(content, 8).get_encoded_packets(160)
    ]
    k, trials = len(content) // 8, 1500
    failed = 0
    for _ in range(trials):
        decoder = raptorq.Decoder.with_defaults(len(content), 8)
        taken = generator.sample(range(200), k)
        answers = [decoder.decode(PAYLOAD_IDENTIFIER.pack(esi) + symbols[esi]) for esi in taken]
        failed += answers[-1] is None
    assert failed <= FAILURE * trials + 4 * np.sqrt(FAILURE * trials)


@pytest.mark.parametrize("size", [64 * 50, 16 * 5000])
def test_symbols_are_sent_in_the_carousel_s_order(size: int) -> None:
    content = random.Random(0).randbytes(size)
    session = describe(
        content, name="m", event="e", version=1, port=4000, symbol_bytes=16, addresses=[("127.0.0.1", 4000)]
    )
    sizes = block_sizes(session.source_symbols, session.source_blocks)
    count = int(1.5 * session.source_symbols)
    packets = list(islice(packets_of(session, content), count))
    header = len(packets[0]) - 16
    identifiers = [
        PAYLOAD_IDENTIFIER.unpack(packet[header - PAYLOAD_IDENTIFIER.size : header])[0] for packet in packets
    ]
    assert [(identifier >> 24, identifier & 0xFFFFFF) for identifier in identifiers] == _order(sizes, count, 16)
    assert header + 28 == HEADERS_BYTES


class Counted:
    """The losses of a receiver, and how many packets came by until its object was whole."""

    def __init__(self, losses: Iterator[bool]) -> None:
        self._losses, self.packets = losses, 0

    def __iter__(self) -> "Counted":
        return self

    def __next__(self) -> bool:
        self.packets += 1
        return next(self._losses)


async def received_by(count: int, content: bytes, loss, folder: Path) -> tuple[list[Received], list[int], float]:
    """Send to so many real sockets: what each got, after how many packets, and how many there are of them at once."""
    sockets = []
    for _ in range(count):
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        sockets.append(listener)
    session = describe(
        content,
        name="model",
        event="concert",
        version=1,
        port=sockets[0].getsockname()[1],
        addresses=[listener.getsockname() for listener in sockets],
        symbol_bytes=64,
        rate_mbit_s=40.0,
        rounds=3.0,
    )
    losses = [Counted(fates(loss, seed=seed)) for seed in range(count)]
    receiving = [
        asyncio.create_task(
            receive(
                session, folder=folder / str(number), listener=listener, loss_injection=losses[number], listen_s=20.0
            )
        )
        for number, listener in enumerate(sockets)
    ]
    await asyncio.sleep(0.05)
    await broadcast(session, content)
    got = await asyncio.gather(*receiving)
    return got, [each.packets for each in losses], session.source_symbols


@pytest.mark.row("S32", "S33", "S54")
@pytest.mark.parametrize("loss", [independent(0.1), bursts(0.2, 3.0)], ids=["independent", "bursts"])
def test_thirty_real_sockets_are_as_late_as_the_simulated_ones(loss, tmp_path: Path) -> None:
    """Packets sent until an object is whole, and packets heard of them: one law (two-sample Kolmogorov-Smirnov), and
    for each socket just what its own losses make of it."""
    content = random.Random(1).randbytes(64 * 150)
    got, packets, symbols = asyncio.run(received_by(30, content, loss, tmp_path))
    simulated = simulate_broadcast(10_000, object_bytes=len(content), symbol_bytes=64, loss=loss, rounds=3)
    assert stats.ks_2samp(packets, simulated.whole_after).pvalue > 0.01
    assert simulated.complete_fraction == 1
    # Thirty addresses share the sender's rate. A busy machine's packets come later than simulated, never sooner.
    in_time = simulate_broadcast(
        1000, object_bytes=len(content), symbol_bytes=64, loss=loss, rounds=3, rate_mbit_s=40.0 / 30
    )
    took, simulated_s = (float(np.median(times)) for times in ([each.seconds for each in got], in_time.seconds))
    assert took > 0.9 * simulated_s
    heard = np.array([each.symbols_received for each in got]) - symbols
    assert heard.min() >= 0
    assert heard.max() <= 3
    assert abs(heard.mean() - (simulated.received - symbols).mean()) < 0.2
    for seed, count in enumerate(packets):
        own = np.flatnonzero(~np.array(list(islice(fates(loss, seed=seed), 3 * symbols))))
        assert own[symbols - 1] + 1 <= count <= own[symbols + 2] + 1


def test_late_joiners_need_a_round_of_their_own_and_repair_finishes_the_rest() -> None:
    joins = np.where(np.arange(2000) < 1000, 0.0, 1.2)
    size = {
        "object_bytes": 64 * 300,
        "symbol_bytes": 64,
        "rate_mbit_s": 0.2736,
        "loss": independent(0.1),
    }  # 1 s a round
    seen = simulate_broadcast(2000, rounds=3.0, joins=joins, seed=1, **size)
    early, late = seen.seconds[:1000], seen.seconds[1000:]
    assert early.mean() == pytest.approx(1 / 0.9, rel=0.01)
    assert late.mean() - 1.2 == pytest.approx(1 / 0.9, rel=0.01)
    short = simulate_broadcast(2000, rounds=1.05, repair_mbit_s=10.0, quiet_s=0.5, repair_rtt_s=0.1, seed=1, **size)
    lacked = ~np.isfinite(short.whole_after)
    assert lacked.mean() > 0.9
    assert np.isfinite(short.seconds).all()
    assert (short.repaired > 0).tolist() == lacked.tolist()
    assert short.seconds[lacked].min() >= 1.05 + 0.5 + 0.1
    assert short.carried["repair"] == 64 * short.repaired.sum()
    assert (short.received + short.repaired >= short.source_symbols)[lacked].all()
    without = simulate_broadcast(2000, rounds=1.05, seed=1, **size)
    assert without.complete_fraction == pytest.approx(1 - lacked.mean())


def test_repeated_repair_symbols_count_once() -> None:
    """Two blocks' worth of rounds beyond the different symbols that there are brings a receiver nothing new."""
    sizes = (3,)
    order = _order(sizes, 3 + 2 * 2 * 1024 * 1024 // 524_288 + 5, 524_288)
    assert order[:7] == [(0, esi) for esi in range(7)]
    assert order[7] == (0, 3)


@pytest.mark.row("S33", "S54", "S72")
def test_a_flash_crowd_is_served_soonest_by_those_who_share() -> None:
    links = CrowdLinks(origin_mbit_s=100, radio_mbit_s=600)
    crowd = {way: simulate_flash_crowd(1000, object_bytes=200_000, way=way, links=links) for way in WAYS}
    for way, delivery in crowd.items():
        assert delivery.way == way
        assert delivery.complete_fraction == 1
        assert (delivery.waited > 0).all()
        assert delivery.share_within(1e9) == 1
    median = {way: float(np.median(delivery.waited)) for way, delivery in crowd.items()}
    assert median["unicast"] > median["edges"] > median["broadcast"]
    assert median["unicast"] > median["peers"]
    total = 1000 * 200_000
    assert crowd["unicast"].carried["origin"] >= total
    assert crowd["unicast"].seconds.max() >= total * 8 / 100e6
    assert crowd["peers"].carried["origin"] + crowd["peers"].carried["peers"] >= total
    assert crowd["edges"].carried["origin"] == links.caches * 200_000
    assert crowd["edges"].waited.min() >= 8 * 200_000 / 100e6  # the first one waits until its cache is filled
    assert crowd["broadcast"].carried["broadcast"] < 0.1 * total
    assert crowd["broadcast"].carried["repair"] == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 2**31))
def test_peers_pass_on_every_piece_and_nobody_takes_more_than_the_object(count: int, pieces: int, seed: int) -> None:
    wanted = np.random.default_rng(seed).uniform(0, 0.5, count)
    exchange = exchange_pieces(
        wanted, object_bytes=pieces * 16384, seed_rate=1e6, peer_rate=5e5, down_rate=2e6, seed=seed
    )
    assert np.isfinite(exchange.seconds).all()
    assert exchange.seeded + exchange.given == count * pieces * 16384
    assert exchange.seeded >= pieces * 16384
    assert (exchange.seconds > wanted).all()
    assert exchange.seeded <= 1e6 * (exchange.seconds.max() + 1)


@pytest.mark.parametrize("way", WAYS)
def test_the_same_seed_gives_the_same_crowd(way: Way) -> None:
    first, again = (simulate_flash_crowd(200, object_bytes=100_000, way=way, seed=4) for _ in range(2))
    assert np.array_equal(first.seconds, again.seconds)
