"""The browser as a UE, in a notebook and at /ue: it downloads a model, draws, and compares with the network."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from crowdnerf_lab.catalogue.artefact import open_artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.api.events import Events
from crowdnerf_lab.network.settings import ServiceSettings
from tests.browser.chromium import PHONE, Pages
from tests.browser.jupyter_lab import Lab
from tests.network.service_in_thread import ServiceInThread, service_in_thread
from tests.toy_browser_artefacts import FIELD, STUDENT, browser_artefacts

JOIN_CODE = "let me in"
SOON = 30_000
"""Milliseconds that a loaded machine may take."""


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artefacts")
    browser_artefacts(root)
    return root


@pytest.fixture(scope="module")
def notebook(lab: Lab, artefacts: Path) -> Page:
    """A notebook with a UE that has drawn for the first time."""
    page = lab.run(
        f"import crowdnerf_lab as cn\nfrom pathlib import Path\nue = cn.widgets.ue(Path({str(artefacts)!r}))\nue"
    )
    expect(page.locator(".cn-ue[data-state=device]")).to_be_visible(timeout=SOON)
    return page


def stage(page: Page, path: str) -> Locator:
    return page.locator(f".cn-ue-stage-{path} .cn-ue-picture")


def measured(page: Page, row: str) -> list[str]:
    """What the table of measurements says of both paths."""
    return page.locator(".cn-ue-measured tr", has_text=row).locator("td").all_inner_texts()


def wait_for_both(page: Page) -> None:
    """Until both pictures are of the view at which the camera rests, and compared."""
    for column in (0, 1):
        expect(page.locator(".cn-ue-measured tr", has_text="PSNR").locator("td").nth(column)).not_to_have_text(
            "–", timeout=SOON
        )


@pytest.mark.row("S27", "S28", "S68", "S69")
def test_the_browser_draws_what_the_network_draws(notebook: Page):
    wait_for_both(notebook)
    device, network = measured(notebook, "PSNR")
    assert float(device.removesuffix(" dB")) > 35  # the same field, marched here in WebGL2 and there by numba
    assert float(network.removesuffix(" dB")) > 20  # what WebP leaves of it


def test_a_drag_moves_both_pictures(notebook: Page):
    wait_for_both(notebook)
    before = [stage(notebook, path).screenshot() for path in ("device", "network")]
    box = stage(notebook, "device").bounding_box()
    assert box is not None
    notebook.mouse.move(box["x"] + 60, box["y"] + 60)
    notebook.mouse.down()
    notebook.mouse.move(box["x"] + 140, box["y"] + 70, steps=4)
    notebook.mouse.up()
    notebook.wait_for_timeout(300)
    wait_for_both(notebook)
    after = [stage(notebook, path).screenshot() for path in ("device", "network")]
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_the_keyboard_alone_moves_the_camera_and_changes_the_path(notebook: Page):
    before = stage(notebook, "device").screenshot()
    stage(notebook, "device").focus()
    notebook.keyboard.press("ArrowLeft", delay=200)
    notebook.wait_for_timeout(300)
    wait_for_both(notebook)
    assert stage(notebook, "device").screenshot() != before
    notebook.get_by_role("radio", name="Auto").focus()
    notebook.keyboard.press("ArrowLeft")
    expect(notebook.locator(".cn-ue[data-path=network]")).to_be_visible(timeout=SOON)
    notebook.keyboard.press("ArrowRight")
    expect(notebook.locator(".cn-ue[data-path=device]")).to_be_visible(timeout=SOON)


def test_a_student_takes_over_when_it_is_chosen(notebook: Page):
    notebook.get_by_role("combobox", name="Model").select_option(STUDENT)
    notebook.get_by_text("The model's card").click()
    name = notebook.locator(".cn-ue-folded tr", has_text="name").locator("td").first
    expect(name).to_have_text(STUDENT, timeout=SOON)
    wait_for_both(notebook)
    assert stage(notebook, "device").evaluate("stage => stage.querySelector('canvas').width") == 24
    notebook.get_by_role("combobox", name="Model").select_option("")


@pytest.mark.row("S39")
def test_an_empty_battery_hands_over_to_the_network(notebook: Page):
    battery = notebook.get_by_label("Battery, percent")
    battery.fill("0")
    expect(notebook.locator(".cn-ue[data-path=network]")).to_be_visible(timeout=SOON)
    expect(notebook.locator(".cn-ue-reason")).to_contain_text("battery", timeout=SOON)
    battery.fill("100")
    expect(notebook.locator(".cn-ue[data-path=device]")).to_be_visible(timeout=SOON)


@pytest.fixture(scope="module")
def service(artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceInThread]:
    home = tmp_path_factory.mktemp("service")
    offered = [open_artefact(artefacts / name) for name in (FIELD, STUDENT)]
    Catalogue(home / "catalogue").publish(offered, event="concert")
    with service_in_thread(ServiceSettings(home, train=False, view_processes=1)) as running:
        Events(running.service.database).make("concert", title="A concert", join_code=JOIN_CODE)
        yield running


@pytest.mark.row("S26", "S67", "S68")
def test_a_phone_joins_downloads_and_draws(
    service: ServiceInThread, pages: Pages, looks_as_approved: Callable[..., None]
):
    pages.expect(r"status of 429")  # views, while the service still loads its field
    page = pages.open(f"{service.url}/ue?event=concert", size=PHONE, touch=True)
    page.get_by_label("Join code").fill("sesame")
    pages.expect(r"status of 403")
    page.get_by_role("button", name="Join").tap()
    expect(page.get_by_text("not the event's join code")).to_be_visible(timeout=SOON)
    page.get_by_label("Join code").fill(JOIN_CODE)
    page.get_by_role("button", name="Join").tap()
    expect(page.locator(".cn-ue[data-state=device]")).to_be_visible(timeout=SOON)
    wait_for_both(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    assert page.evaluate("crossOriginIsolated")
    assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    looks_as_approved(page.locator(".cn-ue-controls"), "ue_controls_phone")
    looks_as_approved(page.locator(".cn-ue-stages"), "ue_pictures_phone", mask=[page.locator(".cn-ue-figures")])
