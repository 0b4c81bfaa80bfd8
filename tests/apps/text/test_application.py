"""What the language model's application writes and says."""

from pathlib import Path
from types import SimpleNamespace

from volano.apps.application import Finished
from volano.apps.text.application import TextApplication
from volano.apps.text.model_spec import TextSpec
from volano.apps.text.tokenizer import load_tokenizer
from volano.training import RunFolder


def test_a_new_run_has_tokens_and_tokenizer(read_text, tmp_path):
    scratch, path = tmp_path / "scratch", tmp_path / "run"
    scratch.mkdir()
    path.mkdir()
    application = read_text(scratch)
    folder = RunFolder(path)
    application.write(folder, scratch)
    assert list(scratch.iterdir()) == []
    assert TextSpec.from_json(folder.read_json("text.json")) == application.spec
    load_tokenizer(path / "tokenizer.json", application.spec.tokenizer_digest)
    folder.write_json("run.json", {"source": {"dials": application.resolved(7)}})
    again = TextApplication.from_run(folder)
    assert again.task_of_run().num_steps == 7
    assert (again.train == application.train).all()


def test_throughput_is_the_median_of_what_was_logged(small_text, tmp_path):
    folder = RunFolder(tmp_path)
    assert small_text._tokens_per_second(folder) is None
    for rate in (1.0, 100.0, 3.0):
        folder.append("metrics.jsonl", {"step": 1, "lr": 0.1, "examples_per_second": rate})
    folder.append("metrics.jsonl", {"step": 1, "valid_loss": 0.1})
    assert small_text._tokens_per_second(folder) == 3.0 * small_text.spec.context


def test_a_stopped_run_is_not_tested(small_text):
    assert small_text.finish(SimpleNamespace(status="stopped"), None) == Finished()


def test_what_can_be_done_next():
    first, _ = TextApplication.next_commands(Path("r"))
    assert first == "volano generate r --prompt TEXT"
