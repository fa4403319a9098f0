"""What pages look like to a reader who uses the keyboard, or needs contrast: scripts that ask the page itself."""

from dataclasses import dataclass

from playwright.sync_api import Locator

_LOOK = """(one) => {
  const { outlineStyle, outlineWidth, boxShadow, borderColor, backgroundColor } = getComputedStyle(one);
  return [outlineStyle, outlineWidth, boxShadow, borderColor, backgroundColor].join();
}"""

_MARK_STOPS = """root => {
  const found = [...root.querySelectorAll("a[href], button, input, select, summary, textarea, [tabindex]")].filter(
    (one) => one.tabIndex >= 0 && !one.disabled && one.checkVisibility({ visibilityProperty: true })
      && (one.type !== "radio" || one.checked || !root.querySelector(`[name="${one.name}"]:checked`)));
  document.activeElement.blur();
  found.forEach((one, number) => {
    one.dataset.stop = number;
    one.dataset.unfocused = (LOOK)(one);
  });
  const labels = (one) => [...(one.labels ?? [])].map((label) => label.innerText).join(" ");
  const labelledBy = (one) => document.getElementById(one.getAttribute("aria-labelledby"))?.innerText;
  const written = (one) => one.ariaLabel || one.title || one.placeholder;
  const name = (one) => written(one) || labels(one) || labelledBy(one) || one.innerText;
  return found.map((one) => [(name(one) ?? "").trim(), one.outerHTML.slice(0, 200)]);
}"""

_FOCUSED = """() => {
  const one = document.activeElement;
  const { stop, unfocused } = one.dataset;
  return [stop === undefined ? null : Number(stop), (LOOK)(one) !== unfocused, one.outerHTML.slice(0, 200)];
}"""

_FAINT_WORDS = """([root, least]) => {
  const channels = (colour) => {
    const [r, g, b, alpha = 1] = colour.match(/[\\d.]+/g).map(Number);
    return colour.startsWith("color(") ? [255 * r, 255 * g, 255 * b, alpha] : [r, g, b, alpha];
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const over = ([r, g, b, alpha], below) => [r, g, b].map((v, i) => alpha * v + (1 - alpha) * below[i]);
  const behind = (one) => {
    if (!one) return [255, 255, 255];
    const colour = channels(getComputedStyle(one).backgroundColor);
    return colour[3] === 1 ? colour.slice(0, 3) : over(colour, behind(one.parentElement));
  };
  const contrast = (one) => {
    const below = behind(one);
    const lights = [luminance(over(channels(getComputedStyle(one).color), below)), luminance(below)];
    return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
  };
  const words = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const faint = [];
  while (words.nextNode()) {
    const one = words.currentNode.parentElement;
    const shown = words.currentNode.data.trim() && one.checkVisibility({ opacityProperty: true });
    if (!shown || one.closest("svg, style, script, option, :disabled, canvas")) continue;
    const found = contrast(one);
    if (found < least) faint.push(`${words.currentNode.data.trim().slice(0, 40)}: ${found.toFixed(2)}`);
  }
  return faint;
}"""


@dataclass(frozen=True)
class Stops:
    """Where the Tab key leads in a part of a page: the beginnings of HTML elements.

    all: that can be operated; nameless: of them, those that a screen reader could not tell; missed: those that Tab did
    not come to; unmarked: those that looked the same with the focus as without.
    """

    all: list[str]
    nameless: list[str]
    missed: list[str]
    unmarked: list[str]


def tab_stops(root: Locator) -> Stops:
    """Press Tab from the first control in a part of a page until the focus leaves it."""
    named: list[tuple[str, str]] = root.evaluate(_MARK_STOPS.replace("LOOK", _LOOK))
    stops = [markup for _, markup in named]
    reached, unmarked = set(), []
    if stops:
        root.locator("[data-stop='0']").focus()
        root.page.keyboard.press("Shift+Tab")
    for _ in range(len(stops) + 2):
        root.page.keyboard.press("Tab")
        number, marked, markup = root.page.evaluate(_FOCUSED.replace("LOOK", _LOOK))
        if number is not None:
            reached.add(number)
            unmarked += [] if marked else [markup]
    nameless = [markup for name, markup in named if not name]
    missed = [markup for number, markup in enumerate(stops) if number not in reached]
    return Stops(stops, nameless, missed, unmarked)


def faint_words(root: Locator, *, least: float = 4.5) -> list[str]:
    """Words whose contrast to what is behind them is less than WCAG 2.2 asks of text (1.4.3), each with its contrast.

    Colours are taken from style sheets; pictures behind words are not looked at.
    """
    return root.evaluate(f"root => ({_FAINT_WORDS})([root, {least}])")
