"""A language model that is trained further, from the text to what it writes."""

import json
from pathlib import Path

import pytest
import torch

import volano
from pretrained_networks import save_small_gpt2
from volano.apps.kinds import application_of_run
from volano.apps.text.causal.application import CausalApplication
from volano.errors import DataError, UsageError
from volano.training import RunFolder

pytest.importorskip("peft", reason="peft is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    book = tmp_path_factory.mktemp("books") / "book.txt"
    book.write_text("".join(f"line {n} of a small book, {n % 7} words.\n" for n in range(300)))
    folder = save_small_gpt2(tmp_path_factory.mktemp("gpt2"))
    return volano.train(
        "text", book, from_=f"hf:{folder}", epochs=1, out=tmp_path_factory.mktemp("runs") / "run",
        plan=volano.Plan.baseline("cpu"),
    )  # fmt: skip


def test_it_is_tested_beside_the_network_as_it_was(run):
    assert run.metrics["bits_per_byte"] < run.metrics["bits_per_byte_before"]
    assert any("tune=lora: adapters of rank 8" in text for text in run.notices)
    assert CausalApplication.most_epochs == 5.0
    assert application_of_run(RunFolder.open(run.path)) is CausalApplication
    assert CausalApplication.summary(run)[0].startswith("bits per byte")
    assert CausalApplication.next_commands(run.path)[1].endswith("--to hf")


def test_the_run_alone_evaluates_and_writes(run, tmp_path):
    model = volano.load(run.path)
    assert model.evaluate()["bits_per_byte"] == pytest.approx(
        run.metrics["bits_per_byte"], rel=1e-4
    )
    (tmp_path / "other.txt").write_text("other words " * 20)
    other = model.evaluate(tmp_path / "other.txt")
    assert (other["num_bytes"], other["num_tokens"]) == (240, 240)
    assert (run.path / "eval-other.json").is_file()
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(DataError, match="There must be text to evaluate on"):
        model.evaluate(tmp_path / "other.txt")
    written = model.generate(prompt="line", tokens=5, temperature=0.0)
    text = "".join(written)
    assert written.figures()["num_tokens"] <= 5
    assert written.figures()["text"] == text


def test_what_is_held_out_is_the_runs_whatever_becomes_of_the_text(run):
    book = Path(json.loads((run.path / "run.json").read_text())["source"]["dials"]["path"])
    for content in ("other text\n" * 900, None):
        book.unlink() if content is None else book.write_text(content)
        assert volano.load(run.path).evaluate()["bits_per_byte"] == pytest.approx(
            run.metrics["bits_per_byte"], rel=1e-4
        )


def test_the_folder_of_an_export_is_the_runs_own(run, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (run.path / "hf").mkdir()
    for name in ("config.json", "README.md", "tokenizer.json"):
        (run.path / "hf" / name).symlink_to(precious)
    assert volano.load(run.path).export("hf")["path"] == str(run.path / "hf")
    assert precious.read_text() == "precious"
    assert "# hf" in (run.path / "hf" / "README.md").read_text()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="`out` must name"):
        volano.load(run.path).export("hf", tmp_path / "link")


def test_an_exported_folder_writes_the_same_tokens(run, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = volano.load(run.path)
    result = model.export("hf", tmp_path / "hf")
    assert result["largest_difference"] < 1e-4
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path / "hf"), local_files_only=True)
    ids = torch.arange(1, 9)[None]
    theirs = again(ids).logits.argmax(-1)
    assert torch.equal(theirs, model.module(input_ids=ids).logits.argmax(-1))
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "## Limits" in card
    assert "bits per byte before" in card
    made = AutoTokenizer.from_pretrained(str(tmp_path / "hf"))
    assert (made.eos_token, made("line")["input_ids"]) == (
        "<|end|>",
        model.tokenizer.ids_of("line"),
    )
