"""Pretrained networks fine-tuned by `volano train ... --from`, beside the same from nothing and
beside scikit-learn on the same features.

    python benchmarks/finetune.py photographs head         # five folds, about three minutes
    python benchmarks/finetune.py photographs nothing      # the first fold, three minutes
    python benchmarks/finetune.py photographs all --minutes 10
    python benchmarks/finetune.py texts                    # 8, 32 and 128 a class, three minutes

Photographs and drawings: Debian's package tuxpaint-stamps-default, the folders with at least 15
pictures, at most 40 of each; EfficientNet-Lite0 with the weights of ImageNet. `head` is compared
over five folds with scikit-learn's logistic regression on the same frozen features, standardised,
its C tuned by five folds within each training part.

Texts: one-line descriptions of Debian's packages by section (`apt-cache dumpavail`), eleven
sections that are subjects, 60 others of each to test on; all-MiniLM-L6-v2 beside TF-IDF of words
and pairs with a tuned logistic regression. (Among sections that are kinds of packages, such as
libdevel, single words tell more than meaning: there TF-IDF was as good from 32 a class on.)
"""

from __future__ import annotations

import argparse
import collections
import csv
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STAMPS = Path("/usr/share/tuxpaint/stamps")
MOST, LEAST, NUM_FOLDS = 40, 15, 5
SECTIONS = (
    "admin", "electronics", "games", "graphics", "mail", "math", "net", "science", "sound", "video",
    "web",
)  # fmt: skip
NUM_TESTED = 60
REFERENCE = "pretrained_networks:lite0"
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)


def write_folds(root: Path) -> tuple[list[Path], int]:
    """Writes a folder with train/ and test/ for each fold, and returns them with the number of
    pictures."""
    found = {
        folder.name: sorted(
            (path for path in folder.rglob("*.png") if "mirror" not in path.stem),
            key=lambda path: hashlib.sha256(path.name.encode()).digest(),
        )[:MOST]
        for folder in sorted(STAMPS.iterdir())
    }
    found = {name: paths for name, paths in found.items() if len(paths) >= LEAST}
    if not found:
        raise SystemExit("no pictures: apt-get install tuxpaint-stamps-default")
    for name, paths in found.items():
        for number, path in enumerate(paths):
            for fold in range(NUM_FOLDS):
                split = "test" if number % NUM_FOLDS == fold else "train"
                target = root / str(fold) / split / name
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target / f"{number:02}-{path.name}")
    sizes = {name: len(paths) for name, paths in found.items()}
    print(f"{sum(sizes.values())} pictures in {len(sizes)} classes: {sizes}")
    return [root / str(fold) for fold in range(NUM_FOLDS)], sum(sizes.values())


def photographs(what: str, minutes: float, num_folds: int) -> None:
    """Trains on folds and prints the accuracy over all of them."""
    import volano

    with tempfile.TemporaryDirectory() as scratch:
        folds, _ = write_folds(Path(scratch))
        right, theirs, total = 0.0, 0.0, 0
        for number, fold in enumerate(folds[:num_folds]):
            own = {} if what == "nothing" else {"from_": REFERENCE, "tune": what}
            mark = time.perf_counter()
            run = volano.train("image", fold, minutes=minutes, out=fold / "run", **own)
            seconds = time.perf_counter() - mark
            num = run.metrics["num_test"]
            right, total = right + run.metrics["test_accuracy"] * num, total + num
            line = f"fold {number}: {what} {run.metrics['test_accuracy']:.3f} in {seconds:.0f} s"
            if what == "head":
                there = of_scikit_learn(fold)
                theirs += there * num
                line += f", scikit-learn {there:.3f}"
            print(line, flush=True)
        print(f"{what}: {right / total:.3f} on {total} test pictures")
        if what == "head":
            print(f"scikit-learn on the same features: {theirs / total:.3f}")


def of_scikit_learn(fold: Path) -> float:
    """Test accuracy of a tuned logistic regression on the same frozen features."""
    import torch

    from volano.apps.image.fine_tuning.network import network_of
    from volano.apps.image.options import ImageOptions
    from volano.data.sources import WantedFormat, read_image_sets

    network = network_of(ImageOptions(from_=REFERENCE))
    assert network is not None
    sets = read_image_sets(fold, WantedFormat(own_size=network.preprocessing.size))
    assert sets.test is not None
    parts = []
    with torch.inference_mode():
        for part in (sets.train, sets.test):
            assert isinstance(part.images, torch.Tensor)
            features = torch.cat([network.trunk(batch) for batch in part.images.split(16)])
            parts += [features.numpy(), part.labels.numpy()]
    return tuned(*parts)


def tuned(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray) -> float:
    """Test accuracy of a standardised logistic regression, C tuned by five folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    grid = {"logisticregression__C": PENALTIES}
    return float(GridSearchCV(pipeline, grid, cv=5).fit(X, y).score(X_test, y_test))


def texts(minutes: float, sizes: list[int]) -> None:
    """Trains on so many texts a class and prints both sides' accuracy on the same others."""
    import volano
    from pretrained_networks import folder_of_minilm

    by_section = sections()
    names = [name for name in SECTIONS if len(by_section[name]) >= NUM_TESTED + max(sizes)]
    if len(names) < len(SECTIONS):
        raise SystemExit("apt-cache knows too few packages; run apt-get update first")
    draw = random.Random(0)
    drawn = {name: draw.sample(by_section[name], NUM_TESTED + max(sizes)) for name in names}
    print("texts a class | MiniLM | TF-IDF | seconds")
    for size in sizes:
        train = [(n, t) for n in names for t in drawn[n][NUM_TESTED : NUM_TESTED + size]]
        test = [(n, t) for n in names for t in drawn[n][:NUM_TESTED]]
        with tempfile.TemporaryDirectory() as scratch:
            table = Path(scratch) / "table.csv"
            with table.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["label", "text", "split"])
                writer.writerows((*row, "train") for row in train)
                writer.writerows((*row, "test") for row in test)
            mark = time.perf_counter()
            run = volano.train(
                "text", table, classify=True, from_=f"hf:{folder_of_minilm()}", minutes=minutes,
                tune="head", out=Path(scratch) / "run",
            )  # fmt: skip
            seconds = time.perf_counter() - mark
        other = of_words(train, test)
        print(
            f"{size} | {run.metrics['test_accuracy']:.3f} | {other:.3f} | {seconds:.0f}", flush=True
        )


def of_words(train: list[tuple[str, str]], test: list[tuple[str, str]]) -> float:
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


def sections() -> dict[str, list[str]]:
    """Returns descriptions by section, each once."""
    command = ["apt-cache", "dumpavail"]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, set[str]] = collections.defaultdict(set)
    for block in dump.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " "
        )
        if "Section" in fields and "Description" in fields:
            found[fields["Section"]].add(fields["Description"])
    return {name: sorted(texts) for name, texts in found.items()}


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=("photographs", "texts"))
    parser.add_argument("what", nargs="?", default="head", choices=("nothing", "head", "all"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--folds", type=int)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32, 128])
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    if given.data == "texts":
        texts(given.minutes or 0.8, given.sizes)
        return
    usual = {"head": (0.5, NUM_FOLDS), "nothing": (3.0, 1), "all": (10.0, 1)}[given.what]
    photographs(given.what, given.minutes or usual[0], given.folds or usual[1])


if __name__ == "__main__":
    main()
