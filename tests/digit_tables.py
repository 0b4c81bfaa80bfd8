"""Tables of small pictures made of scikit-learn's digits, with labels or numbers."""

import csv

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_labels_table(folder, num=160):
    """Pictures of 16 px with one or two digits of 0 to 3, and a few without: ``label`` is ``0;3``,
    and ``zero`` and ``one`` are columns of their own."""
    digits, draw = load_digits(n_class=4), np.random.default_rng(0)
    rows = []
    for number in range(num):
        picture, held = np.zeros((16, 16)), []
        for place in (0, 8):
            if draw.random() < 0.75:
                at = int(draw.integers(len(digits.target)))
                picture[place : place + 8, place : place + 8] = digits.images[at]
                held.append(str(digits.target[at]))
        labels = ";".join(sorted(set(held)))
        _write(folder, number, picture)
        rows.append([f"{number}.png", labels, int("0" in held), int("1" in held)])
    return _table(folder, ["path", "label", "zero", "one"], rows)


def write_numbers_table(folder, num=160):
    """Pictures of 8 px: ``value`` is the digit and a bit, ``ink`` how much of it there is, from
    some thousands on."""
    digits, draw = load_digits(), np.random.default_rng(0)
    rows = []
    for number in range(num):
        picture = digits.images[number]
        _write(folder, number, picture)
        value = digits.target[number] + round(float(draw.uniform(0, 0.5)), 4)
        rows.append([f"{number}.png", value, 5000 + picture.sum()])
    return _table(folder, ["path", "value", "ink"], rows)


def _write(folder, number, picture):
    pixels = (picture * (255 / 16)).round().astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{number}.png")


def _table(folder, header, rows):
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path
