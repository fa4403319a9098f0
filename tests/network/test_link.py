"""Links: the schedule obeys rate, delay and slow start; real bytes through the proxy follow it; nothing gets lost."""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.network.links.link import LINKS, LinkError, LinkProfile, shaped_tcp
from crowdnerf_lab.network.links.transfers import FIRST_WINDOW, SEGMENT, Lane, Stream, bytes_within, transfer_ms

PLAIN = LinkProfile("plain", "plain", down_mbit_s=8, up_mbit_s=4, rtt_ms=40)
"""A million bytes a second down, half of that up, no luck involved."""


@pytest.mark.row("S52")
@given(st.integers(1, 3_000_000))
def test_a_warm_connection_takes_half_a_round_trip_and_the_bytes_at_the_rate(size: int) -> None:
    assert transfer_ms(PLAIN, size, connected=True, draws=1) == pytest.approx(20 + size / 1000)
    assert transfer_ms(PLAIN, size, connected=True, direction="up", draws=1) == pytest.approx(20 + size / 500)


def test_a_new_connection_pays_for_slow_start_until_its_window_fills_the_link() -> None:
    wide = replace(PLAIN, down_mbit_s=80_000)  # rate counts for nothing: windows alone
    for rounds in range(6):
        within = FIRST_WINDOW * (2 ** (rounds + 1) - 1)
        assert transfer_ms(wide, within, draws=1) == pytest.approx(20 + 40 * rounds, abs=1)
        assert transfer_ms(wide, within + 1, draws=1) == pytest.approx(20 + 40 * (rounds + 1), abs=1)
    cold, warm = (transfer_ms(PLAIN, 2_000_000, connected=connected, draws=1) for connected in (False, True))
    assert warm < cold < warm + 3 * 40


@pytest.mark.row("S41", "S52")
@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_what_arrives_within_a_time_takes_that_time(link: LinkProfile) -> None:
    for milliseconds in (150.0, 500.0):
        size = bytes_within(link, milliseconds, draws=3)
        assert transfer_ms(link, size, draws=3) <= milliseconds + link.jitter_ms + link.rtt_ms
        assert transfer_ms(link, size + 40 * SEGMENT, draws=3) > milliseconds - link.jitter_ms
    assert bytes_within(link, 0) == bytes_within(link, link.rtt_ms / 2 - 1) == 0
    assert link.source


def test_losses_cost_time_and_keep_the_order() -> None:
    lossy = replace(PLAIN, loss=0.1, burst=3, jitter_ms=30)
    assert transfer_ms(lossy, 300_000, connected=True) > transfer_ms(PLAIN, 300_000, connected=True) * 1.08
    arrivals = list(Stream(Lane(1e6), lossy, opens_at=0.0, seed=1).arrivals(0.0, 200_000))
    assert [at for at, _ in arrivals] == sorted(at for at, _ in arrivals)
    assert sum(size for _, size in arrivals) == 200_000


def test_a_burst_is_over_when_its_segments_are_sent_again() -> None:
    """A lost segment is one round trip late, seldom two, however long the bursts are."""
    bursty = replace(PLAIN, rtt_ms=200, loss=0.05, burst=20)
    late = []
    for seed in range(40):
        arrivals = Stream(Lane(1e6), bursty, opens_at=0.0, seed=seed, window=1 << 30).arrivals(0.0, 60 * SEGMENT)
        late.append(max(at for at, _ in arrivals) - 0.1 - 60 * SEGMENT / 1e6)
    assert sum(seconds > 0.3 for seconds in late) < 20
    assert any(seconds > 0.1 for seconds in late)


def test_connections_share_a_lane() -> None:
    lane = Lane(1e6)
    streams = [Stream(lane, PLAIN, opens_at=0.0, seed=seed) for seed in range(2)]
    last = 0.0
    for _ in range(50):
        for stream in streams:
            last = max(at for at, _ in stream.arrivals(0.0, 10_000))
    assert last == pytest.approx(1.0 + 0.02, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"down_mbit_s": 0}, "down_mbit_s is 0"),
        ({"rtt_ms": -1}, "rtt_ms is -1"),
        ({"loss": 1.0}, "loss is 1.0; give a fraction"),
        ({"loss": 0.1, "burst": -3}, "bursts of -3 packets"),
        ({"loss": -0.1}, "loss is -0.1; give a fraction"),
    ],
)
def test_links_that_cannot_be_are_refused(changes: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(PLAIN, **changes)


@asynccontextmanager
async def served(answer):
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while content := await reader.read(65536):
        writer.write(content)
        await writer.drain()
    writer.close()


async def exchange(url: str, content: bytes) -> tuple[bytes, float]:
    """What comes back for a content over a new connection, and after how many seconds it is complete."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(content)
    writer.write_eof()
    received = await reader.read(-1)
    seconds = time.perf_counter() - started
    writer.close()
    await writer.wait_closed()
    return received, seconds


@pytest.mark.row("S52")
@pytest.mark.parametrize(("size", "link"), [(10, PLAIN), (200_000, PLAIN), (1_000_000, LINKS["5g_good"])])
def test_real_bytes_follow_the_schedule(size: int, link: LinkProfile) -> None:
    """Never sooner than the link allows; on a busy machine later, so that the best of some tries counts."""
    at_least = 1.5 * link.rtt_ms / 1e3 + size / link.bytes_per_second("up")
    expected = (link.rtt_ms + transfer_ms(link, size, direction="up") + link.rtt_ms / 2 + 2 * link.jitter_ms) / 1e3
    content = bytes(range(250)) * (size // 250) + b"end"

    async def tries() -> list[float]:
        seconds = []
        async with served(echo) as target, shaped_tcp(target, link) as url:
            for _ in range(6):
                received, took = await exchange(url, content)
                assert received == content
                seconds.append(took)
                if took < 1.15 * expected + 0.02:
                    break
        return seconds

    seconds = asyncio.run(tries())
    assert min(seconds) >= 0.98 * at_least
    assert min(seconds) < 1.15 * expected + 0.02


def test_two_connections_share_the_rate() -> None:
    async def together() -> float:
        started = time.perf_counter()
        async with served(echo) as target, shaped_tcp(target, PLAIN) as url:
            await asyncio.gather(*(exchange(url, bytes(100_000)) for _ in range(2)))
        return time.perf_counter() - started

    assert asyncio.run(together()) > 0.98 * 200_000 / 500_000


def test_websockets_go_through_a_link() -> None:
    """A message and its answer take at least a round trip, and one for the handshake before; ten at once no more."""

    async def answer(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def talk() -> tuple[float, float]:
        async with websockets.serve(answer, "127.0.0.1", 0) as server:
            target = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with shaped_tcp(target, PLAIN) as url:
                started = time.perf_counter()
                async with websockets.connect(url.replace("http", "ws"), proxy=None) as connection:
                    opened = time.perf_counter()
                    for number in range(10):
                        await connection.send(str(number))
                    assert [await connection.recv() for _ in range(10)] == [str(number) for number in range(10)]
                    return opened - started, time.perf_counter() - opened

    opening, talking = asyncio.run(talk())
    assert opening >= 0.98 * 0.08
    assert 0.98 * 0.04 <= talking < 10 * 0.04


def test_a_link_to_nothing_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def knock() -> bytes:
        async with served(echo) as target:
            pass
        async with shaped_tcp(target, PLAIN) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            try:
                return await reader.read(-1)
            finally:
                writer.close()

    assert asyncio.run(knock()) == b""
    assert "nothing answers" in caplog.text


def test_a_link_that_closes_lets_no_connection_hang(caplog: pytest.LogCaptureFixture) -> None:
    async def hang_up() -> float:
        async with served(echo) as target:
            async with shaped_tcp(target, replace(PLAIN, rtt_ms=60_000)) as url:
                _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
                writer.write(b"never arrives")
                await asyncio.sleep(0.01)
                started = time.perf_counter()
            writer.close()
        return time.perf_counter() - started

    assert asyncio.run(hang_up()) < 5
    assert not caplog.records


def test_a_target_without_a_port_is_refused() -> None:
    async def enter() -> None:
        async with shaped_tcp("http://example", PLAIN):
            pass

    with pytest.raises(LinkError, match="no host and port in 'http://example'"):
        asyncio.run(enter())
