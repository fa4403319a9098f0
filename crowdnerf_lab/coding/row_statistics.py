"""What a coder knows about a number of a baked field's row before it reads it.

A row is [log density, red, green, blue], each colour one or four SH coefficients. Density and the first coefficients
come first, so that a layer may end there. A number's statistics depend on its place, on how much came before it in its
row, and on the same coefficient of the colour before: what is grey has three equal ones.
"""

import numpy as np

FILLED_CLASSES, COLOUR_CLASSES = 5, 5
CONTEXTS = FILLED_CLASSES * COLOUR_CLASSES
"""Contexts of one number."""
FILLED_CLASS = np.array([0, 1, 2, 3, 3] + [4] * 24, np.uint8)
"""Class of the sum of min(|q|, 2) over the numbers before."""


def column_order(numbers: int) -> tuple[int, ...]:
    """Columns of a row of 4 or 13 numbers in the order of coding."""
    return tuple(range(numbers)) if numbers == 4 else (0, 1, 5, 9, 2, 3, 4, 6, 7, 8, 10, 11, 12)


def colour_before(numbers: int) -> tuple[int, ...]:
    """For every place in that order, the place of the same coefficient of the colour before; -1 where there is none."""
    order, apart = column_order(numbers), 1 if numbers == 4 else 4
    return tuple(order.index(column - apart) if column > apart else -1 for column in order)


BASE_COLUMNS = 4
"""How many of `column_order` do not turn with the view."""


def contexts_of(before: np.ndarray, colour: np.ndarray | None) -> np.ndarray:
    """Contexts [n] uint8 of a number, from the numbers before it in the order [n, k] and, of those, the same
    coefficient of the colour before [n]."""
    filled = FILLED_CLASS[np.minimum(np.abs(before.astype(np.int16)), 2).sum(1)]
    if colour is None:
        return filled * np.uint8(COLOUR_CLASSES)
    return filled * np.uint8(COLOUR_CLASSES) + (np.clip(colour, -2, 2) + 2).astype(np.uint8)


MOVED_LARGE = 2
"""Old magnitudes from which on changes share statistics."""
MOVED_FILLED = FILLED_CLASSES
MOVED_CONTEXTS = (MOVED_LARGE + 1) * MOVED_FILLED
"""Contexts of the change of one number from a version to the next."""


def moved_contexts_of(old: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Contexts [n] uint8 of a number's change, from the old number [n] and the changes [n, k] before it in its row."""
    changed = FILLED_CLASS[np.minimum(np.abs(before), 2).sum(1)]
    return np.minimum(np.abs(old.astype(np.int16)), MOVED_LARGE).astype(np.uint8) * np.uint8(MOVED_FILLED) + changed
