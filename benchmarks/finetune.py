"""Pretrained networks fine-tuned by `volano train ... --from`, beside the same from nothing and
beside scikit-learn on the same features. In parts of a few minutes, whose figures are kept:

    python benchmarks/finetune.py photographs head --parts 0 1 --keep found.jsonl
    python benchmarks/finetune.py photographs folds --parts 0 1 2     # two minutes each
    python benchmarks/finetune.py photographs nothing --parts 0       # three minutes
    python benchmarks/finetune.py photographs all --parts 0 --minutes 10
    python benchmarks/finetune.py texts subjects --parts 0 1 2        # about five minutes
    python benchmarks/finetune.py texts glosses --parts 0 --sizes 8
    python benchmarks/finetune.py summary found.jsonl

Photographs and drawings: Debian's package tuxpaint-stamps-default, the folders with at least 15
pictures, at most 40 of each; EfficientNet-Lite0 with the weights of ImageNet. A part is one of five
folds. `head` is compared with scikit-learn's logistic regression on the same frozen features,
standardised, its C tuned by five folds within each training part. `folds` compares the solved heads
alone, over five folds that are drawn anew for each part: 70 pictures say little.

Texts, a part is a draw of 8, 32 and 128 a class and of 60 others of each to test on;
all-MiniLM-L6-v2 beside TF-IDF of words and pairs with a tuned logistic regression, and beside a
tuned logistic regression on the same features:

- subjects: one-line descriptions of Debian's packages by section (`apt-cache dumpavail`), eleven
  sections that are subjects. (Among those that are kinds of packages, such as libdevel, single
  words tell more than meaning: `largest` are the eleven largest.)
- whole: the same packages' whole descriptions, which apt has after
  `apt-get update -o Acquire::Languages=en`.
- glosses: WordNet's definitions of nouns by their field (Debian's package wordnet-base), eleven
  fields.
"""

from __future__ import annotations

import argparse
import collections
import csv
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

STAMPS, NOUNS = Path("/usr/share/tuxpaint/stamps"), Path("/usr/share/wordnet/data.noun")
APT_LISTS, APT_HELPER = Path("/var/lib/apt/lists"), "/usr/lib/apt/apt-helper"
MOST, LEAST, NUM_FOLDS = 40, 15, 5
SUBJECTS = (
    "admin", "electronics", "games", "graphics", "mail", "math", "net", "science", "sound", "video",
    "web",
)  # fmt: skip
# Numbers of WordNet's files of nouns.
FIELDS = {
    "04": "act", "05": "animal", "06": "artifact", "08": "body", "10": "communication",
    "13": "food", "15": "location", "18": "person", "20": "plant", "26": "state", "27": "substance",
}  # fmt: skip
NUM_TESTED = 60
REFERENCE = "pretrained_networks:lite0"
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)


# ---- photographs


def write_fold(root: Path, fold: int) -> None:
    """Writes a folder with train/ and test/ of one of five folds."""
    found = {
        folder.name: sorted(
            (path for path in folder.rglob("*.png") if "mirror" not in path.stem),
            key=lambda path: hashlib.sha256(path.name.encode()).digest(),
        )[:MOST]
        for folder in sorted(STAMPS.iterdir())
    }
    found = {name: paths for name, paths in found.items() if len(paths) >= LEAST}
    for name, paths in found.items():
        for number, path in enumerate(paths):
            split = "test" if number % NUM_FOLDS == fold else "train"
            target = root / split / name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / f"{number:02}-{path.name}")
    sizes = {name: len(paths) for name, paths in found.items()}
    print(f"{sum(sizes.values())} pictures in {len(sizes)} classes: {sizes}")


def photographs(what: str, fold: int, minutes: float, scratch: Path) -> list[dict[str, Any]]:
    """Trains on one fold and returns its figures."""
    import volano

    if not STAMPS.is_dir():
        raise SystemExit("no pictures: apt-get install tuxpaint-stamps-default")
    write_fold(scratch / "data", fold)
    own = {} if what == "nothing" else {"from_": REFERENCE, "tune": what}
    mark = time.perf_counter()
    run = volano.train("image", scratch / "data", minutes=minutes, out=scratch / "run", **own)
    found = {
        "volano": run.metrics["test_accuracy"], "num_tested": run.metrics["num_test"],
        "seconds": time.perf_counter() - mark,
    }  # fmt: skip
    if what == "head":
        found["scikit-learn"] = of_scikit_learn(scratch / "data")
    return [found]


def heads_over_folds(seed: int, scratch: Path) -> list[dict[str, Any]]:
    """Mean accuracies of heads that are solved on the frozen features, over five folds."""
    import torch
    from sklearn.model_selection import StratifiedKFold

    from volano.pretrained.head_solvers import SoftmaxHead
    from volano.pretrained.linear_probe import solve_probe

    write_fold(scratch / "data", 0)
    one, first, other, second = features_of(scratch / "data")
    X, y = np.concatenate([one, other]), np.concatenate([first, second])
    solver = SoftmaxHead(num_classes=int(y.max()) + 1)
    found: dict[str, list[float]] = {"volano": [], "scikit-learn": []}
    for train, test in StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed).split(X, y):
        probe = solve_probe(
            torch.from_numpy(X[train]), torch.from_numpy(y[train]), solver, seed=seed
        )
        outputs = ((torch.from_numpy(X[test]) - probe.center) * probe.scale) @ probe.weight.T
        right = (outputs + probe.bias).argmax(1).numpy() == y[test]
        found["volano"].append(float(right.mean()))
        found["scikit-learn"].append(tuned(X[train], y[train], X[test], y[test]))
    return [{name: float(np.mean(own)) for name, own in found.items()} | {"num_tested": len(y)}]


def of_scikit_learn(fold: Path) -> float:
    """Test accuracy of a tuned logistic regression on the same frozen features."""
    return tuned(*features_of(fold))


def features_of(fold: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features and labels of the pictures to train on, and of those to test on."""
    import torch

    from volano.apps.image.fine_tuning.network import input_of, network_of
    from volano.apps.image.options import ImageOptions
    from volano.data.sources import WantedFormat, read_image_sets

    network = network_of(ImageOptions(from_=REFERENCE))
    assert network is not None
    sets = read_image_sets(fold, WantedFormat(**input_of(network)))
    assert sets.test is not None
    parts = []
    with torch.inference_mode():
        for part in (sets.train, sets.test):
            assert isinstance(part.images, torch.Tensor)
            features = torch.cat([network.trunk(batch) for batch in part.images.split(16)])
            parts += [features.numpy(), part.labels.numpy()]
    return parts[0], parts[1], parts[2], parts[3]


def tuned(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray) -> float:
    """Test accuracy of a standardised logistic regression, C tuned by five folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    grid = {"logisticregression__C": PENALTIES}
    return float(GridSearchCV(pipeline, grid, cv=5).fit(X, y).score(X_test, y_test))


# ---- texts

Rows = list[tuple[str, str]]  # class and text


def texts(
    which: str, part: int, minutes: float, scratch: Path, sizes: list[int]
) -> list[dict[str, Any]]:
    """Trains on so many texts a class of one draw, and returns all sides' accuracy on the same
    others."""
    import volano
    from pretrained_networks import folder_of_minilm

    by_class = glosses() if which == "glosses" else sections(which)
    num = NUM_TESTED + max(sizes)
    if any(len(found) < num for found in by_class.values()):
        raise SystemExit("apt-cache knows too few packages; run apt-get update first")
    draw = random.Random(part)
    drawn = {name: draw.sample(found, num) for name, found in by_class.items()}
    test = [(name, text) for name, found in drawn.items() for text in found[:NUM_TESTED]]
    rows = []
    for size in sizes:
        train = [(n, t) for n, found in drawn.items() for t in found[NUM_TESTED:][:size]]
        table = scratch / f"{size}.csv"
        write_table(table, train, test)
        mark = time.perf_counter()
        run = volano.train(
            "text", table, classify=True, from_=f"hf:{folder_of_minilm()}", minutes=minutes,
            tune="head", out=scratch / f"run{size}",
        )  # fmt: skip
        seconds = time.perf_counter() - mark
        found = {
            "size": size, "volano": run.metrics["test_accuracy"], "tf-idf": of_words(train, test),
            "scikit-learn": of_features(run.path, train, test), "num_tested": len(test),
            "seconds": seconds,
        }  # fmt: skip
        rows.append(found)
    return rows


def write_table(path: Path, train: Rows, test: Rows) -> None:
    """Writes texts with their split."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "text", "split"])
        writer.writerows((*row, split) for split, own in (("train", train), ("test", test))
                         for row in own)  # fmt: skip


def of_features(run: Path, train: Rows, test: Rows) -> float:
    """Test accuracy of a tuned logistic regression on the features of a run's frozen trunk."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    from volano.apps.text.classify.begin import encoder_of
    from volano.apps.text.classify.encoder import encoder_features
    from volano.device import Device

    record = json.loads((run / "text.json").read_text())
    encoder = encoder_of(record["encoder"]["reference"])
    assert encoder is not None
    parts = []
    for rows in (train, test):
        tokens = encoder.tokenizer.encode([text for _, text in rows])
        features, _ = encoder_features(encoder, tokens, np.arange(len(rows)), Device("cpu"))
        parts += [features.numpy(), [name for name, _ in rows]]
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": (0.1, 1, 10, 100)}, cv=4)
    return float(search.fit(*parts[:2]).score(*parts[2:]))


def of_words(train: Rows, test: Rows) -> float:
    """Test accuracy of TF-IDF of words and pairs with a tuned logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=500)
    )
    search = GridSearchCV(pipeline, {"logisticregression__C": (1, 10, 100)}, cv=4)
    labels, found = zip(*train, strict=True)
    search.fit(found, labels)
    return float(search.score([text for _, text in test], [label for label, _ in test]))


def sections(which: str) -> dict[str, list[str]]:
    """Returns descriptions of eleven sections, each once."""
    whole = whole_descriptions() if which == "whole" else {}
    found: dict[str, set[str]] = collections.defaultdict(set)
    for fields in records(["apt-cache", "dumpavail"]):
        text = fields.get("Description")
        if which == "whole":
            text = whole.get(fields.get("Description-md5", ""))
        if "Section" in fields and text is not None:
            found[fields["Section"]].add(text)
    names = SUBJECTS
    if which == "largest":
        names = sorted(found, key=lambda name: -len(found[name]))[: len(SUBJECTS)]
    return {name: sorted(found[name]) for name in names}


def whole_descriptions() -> dict[str, str]:
    """Returns the whole descriptions that apt knows, by their digest, in one line each."""
    lists = [str(path) for path in APT_LISTS.glob("*_i18n_Translation-en*")]
    if not lists:
        raise SystemExit("no descriptions: apt-get update -o Acquire::Languages=en")
    found = records([APT_HELPER, "cat-file", *lists])
    return {one["Description-md5"]: one["Description-en"] for one in found}


def records(command: list[str]) -> Iterator[dict[str, str]]:
    """Yields the records that a command of apt prints, with lines that are continued as one."""
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for block in dump.replace("\n .\n", "\n").replace("\n ", " ").split("\n\n"):
        found = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if found:
            yield found


def glosses() -> dict[str, list[str]]:
    """Returns WordNet's definitions of nouns by field, each once, without their examples."""
    if not NOUNS.is_file():
        raise SystemExit("no glosses: apt-get install wordnet-base")
    found: dict[str, set[str]] = collections.defaultdict(set)
    for line in NOUNS.read_text().splitlines():
        field = line.split(" ", 2)[1]
        if line[0] != " " and field in FIELDS:
            found[FIELDS[field]].add(line.partition(" | ")[2].split("; ")[0].strip())
    return {name: sorted(own) for name, own in found.items()}


# ---- figures


def summary(path: Path) -> None:
    """Prints the mean of each figure over the parts that a file holds."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = collections.defaultdict(list)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        groups[row["data"], row["what"], row.get("size", "")].append(row)
    sides = ("volano", "scikit-learn", "tf-idf", "seconds")
    print("data | texts a class | parts |", " | ".join(sides))
    for (data, what, size), rows in sorted(groups.items(), key=str):
        means = [
            f"{np.mean([row[side] for row in rows]):.3f}" if side in rows[0] else ""
            for side in sides
        ]
        print(
            f"{data} {what} | {size} | {sorted(row['part'] for row in rows)} |", " | ".join(means)
        )


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=("photographs", "texts", "summary"))
    parser.add_argument(
        "what", help="nothing, head, all, folds; subjects, largest, whole, glosses; a file"
    )
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--parts", type=int, nargs="+", default=[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--keep", type=Path, help="file to which figures are added")
    given = parser.parse_args()
    if given.data == "summary":
        summary(Path(given.what))
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    usual = {"head": 0.5, "nothing": 3.0, "all": 10.0}.get(given.what, 0.8)
    for part in given.parts:
        with tempfile.TemporaryDirectory() as place:
            own: tuple[Any, ...] = (given.what, part, given.minutes or usual, Path(place))
            if given.what == "folds":
                rows = heads_over_folds(part, Path(place))
            elif given.data == "photographs":
                rows = photographs(*own)
            else:
                rows = texts(*own, given.sizes)
        for row in rows:
            whole = {"data": given.data, "what": given.what, "part": part, **row}
            print(json.dumps(whole), flush=True)
            if given.keep is not None:
                with given.keep.open("a") as file:
                    file.write(json.dumps(whole) + "\n")


if __name__ == "__main__":
    main()
