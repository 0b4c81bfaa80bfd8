"""Classifiers of labelled texts on a small pretrained encoder."""

import csv

import pytest
import torch

import volano
from pretrained_networks import WORDS, save_small_encoder


@pytest.fixture(scope="session")
def encoder_table(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "table.csv"
    generator = torch.Generator().manual_seed(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(120):
            words = WORDS[:3] if number % 2 else WORDS[3:6]
            places = torch.randint(0, 3, (2,), generator=generator).tolist()
            rest = torch.randint(6, 11, (3,), generator=generator).tolist()
            text = " ".join([words[p] for p in places] + [WORDS[p] for p in rest])
            writer.writerow([f"{text} {'day ' * (number % 20)}", ("bad", "good")[number % 2]])
    return path


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    pytest.importorskip("transformers", reason="transformers is not installed")
    return save_small_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def encoder_run(encoder_table, encoder_folder, tmp_path_factory):
    return volano.train(
        "text", encoder_table, classify=True, from_=f"hf:{encoder_folder}", minutes=0.2,
        out=tmp_path_factory.mktemp("runs") / "run", device="cpu",
    )  # fmt: skip
