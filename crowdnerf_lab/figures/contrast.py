"""Words that can be read: contrast as the Web Content Accessibility Guidelines 2.2 measure it, and such colours.

Colours are "#rrggbb". Words need a contrast of 4.5 (criterion 1.4.3), lines and marks one of 3 (criterion 1.4.11).
"""

WORDS, MARKS = 4.5, 3.0
"""The least contrast of words, and of lines and marks, with what they stand on."""


def luminance(colour: str) -> float:
    """Relative luminance in [0, 1] of an sRGB colour: 0 black, 1 white."""
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, from 1 (none) to 21 (black and white)."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def as_words(colour: str) -> str:
    """The colour, as much darker as words on white must be; colours that are dark enough stay as they are."""
    channels = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    shades = ("#" + "".join(f"{round(value * part / 100):02x}" for value in channels) for part in range(100, -1, -2))
    return next(shade for shade in shades if contrast(shade, "#ffffff") >= WORDS)


def words_on(background: str) -> str:
    """White or black, whichever can be read better on a background."""
    return max("#ffffff", "#000000", key=lambda words: contrast(words, background))
