"""The text application on the command line, as a person meets it."""

import json
import re
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import volano as volano_package
from cli.printing import trained
from volano.data.sources import find_texts
from volano.errors import PlanError
from volano.running.processes import Processes

STDLIB = Path(sysconfig.get_paths()["stdlib"])
MODULES = ("base64", "bdb", "bisect", "calendar", "cmd", "copy", "csv")
# Some twenty steps of a small decoder.
FAST = ["--epochs", "1", "--depth", "2", "--context", "64"]
FASTER = [*FAST, "--epochs", "0.3"]
# A run of another application.
OF_IMAGES = Path(__file__).parents[1] / "earlier" / "v0_1" / "image"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder of some modules of the standard library: 0.12 MB."""
    folder = tmp_path_factory.mktemp("texts")
    for name in MODULES:
        shutil.copy(STDLIB / f"{name}.py", folder)
    return folder


@pytest.fixture(scope="module")
def said_of_texts(tmp_path_factory, texts):
    """A finished run on them, and what its training said."""
    path = tmp_path_factory.mktemp("runs") / "text"
    return path, *trained("text", texts, *FAST, "--out", path)


@pytest.fixture(scope="module")
def text_run(said_of_texts):
    return said_of_texts[0]


def copied(run_path, tmp_path):
    return Path(shutil.copytree(run_path, tmp_path / "copy"))


class TestTrain:
    def test_a_folder_of_text(self, said_of_texts, texts):
        path, out, err = said_of_texts
        assert re.fullmatch(r"bits per byte \d\.\d{4} on [\d,]+ held-out bytes", out[0])
        assert re.fullmatch(
            r"after the training text, xz needs \d\.\d{4} and bz2 \d\.\d{4}", out[1]
        )
        assert out[2].startswith("perplexity")
        of_names = (str(path), str(texts))
        assert all(len(x) <= 80 for x in out if not any(name in x for name in of_names))
        assert out[3].startswith("finished, but: only ")
        assert any(line.endswith(f"volano generate {path} --prompt TEXT") for line in out)
        longer = next(line for line in out if line.startswith("next: volano train text "))
        assert str(texts) in longer
        assert re.search(r"regime: much data \([\d.]+ epochs", err)
        assert "depth 2 (width 128)" in err
        assert "prompt:" in err
        assert not list(path.parent.glob(".volano-text*"))

    def test_what_a_run_leaves(self, text_run):
        record = json.loads((text_run / "run.json").read_text())
        metrics = record["metrics"]
        assert metrics.keys() >= {
            "bits_per_byte", "bits_per_byte_xz", "bits_per_byte_bz2", "perplexity",
            "tokens_per_second"
        }  # fmt: skip
        assert metrics["bits_per_byte"] < 4.5  # 9 bits a token of some two bytes know nothing
        test = json.loads((text_run / "eval-test.json").read_text())
        assert test["bits_per_byte"] == metrics["bits_per_byte"]
        assert test["baselines"].keys() == {"xz", "bz2"}
        spec = json.loads((text_run / "text.json").read_text())
        assert test["num_bytes"] == spec["num_held_bytes"]
        previews = [
            json.loads(line) for line in (text_run / "previews.jsonl").read_text().splitlines()
        ]
        assert {preview["prompt"] for preview in previews} == {previews[0]["prompt"]}
        assert all(preview["text"] for preview in previews)
        assert record["source"]["kind"] == "text"
        assert record["source"]["dials"]["num_steps"] == record["num_steps"]

    def test_minutes_are_resolved_before_the_first_step(self, volano, texts):
        code, out, err = volano(
            "train", "text", texts, "--minutes", "0.1", "--out", "run", "--json"
        )
        assert code == 0, err
        result = json.loads(out[-1])
        options = json.loads(Path("run/run.json").read_text())["source"]["dials"]
        assert options["num_steps"] == result["task"]["num_steps"] >= 1
        assert options["depth"] >= 2
        assert "ms a step" in err

    def test_a_batch_larger_than_the_text_is_said(self, volano, tmp_path):
        shutil.copy(STDLIB / "cmd.py", tmp_path / "one.py")
        code, _, err = volano(
            "train", "text", "one.py", *FAST, "--batch-size", "5000", "--out", "run"
        )
        assert code == 0, err
        batch_size = json.loads(Path("run/task.json").read_text())["batch_size"]
        assert f"batch_size={batch_size}: there are no more windows of 64 tokens to train on" in err

    def test_a_run_is_not_read_as_text(self, text_run, tmp_path):
        copied(text_run, tmp_path)
        shutil.copy(STDLIB / "cmd.py", tmp_path)
        source = find_texts(tmp_path)
        assert [document.name for document in source.read()] == ["cmd.py"]
        assert source.notices == (f"1 folder of a run is not read as data: {tmp_path / 'copy'}",)

    def test_little_text_is_repeated_with_care(self, volano, tmp_path):
        shutil.copy(STDLIB / "cmd.py", tmp_path / "one.py")
        code, _, err = volano(
            "train", "text", "one.py", "--epochs", "5", "--context", "64", "--out", "run"
        )
        assert code == 0, err
        assert "the last" in err
        assert "none is small enough to be held out whole" in err
        assert re.search(r"regime: little data \(\d\.\d epochs, [\d.]+ weights", err)

    def test_a_tiny_text_gets_a_smaller_context(self, volano, tmp_path):
        (tmp_path / "tiny.txt").write_text("All work and no play makes Jack a dull boy.\n" * 40)
        code, _, err = volano("train", "text", "tiny.txt", "--epochs", "2", "--out", "run")
        assert code == 0, err
        assert re.search(r"context=\d+: the training text has only \d+ tokens", err)

    def test_undecodable_bytes_are_listed(self, volano, texts, tmp_path):
        folder = Path(shutil.copytree(texts, tmp_path / "texts"))
        (folder / "blemish.txt").write_bytes(
            b"A line with a stray byte " + b"\xff" + b" in it.\n" * 20
        )
        (folder / "binary.txt").write_bytes(b"\0\1\2\3")
        code, _, err = volano("train", "text", folder, *FASTER, "--out", "run")
        assert code == 0, err
        assert "binary.txt: not text: it holds zero bytes" in err
        listed = Path("run/quarantine.jsonl").read_text()
        assert "1 undecodable places" in listed
        assert "binary.txt" in listed

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["nowhere"], 2, "PATH must exist; got .*nowhere"),
            (["empty"], 1, "named like text"),
            (["void.txt"], 1, "There must be text to train on; got none in .*empty"),
            (["binary.txt"], 1, "There must be text to train on; got none in .*zero bytes"),
            (["short.txt"], 1, "at least 1,000 bytes; got 11"),
            (
                ["--epochs", "1", "--minutes", "1"],
                2,
                "given either as --minutes or as --epochs; got both",
            ),
            (["--epochs", "0"], 2, "--epochs must be a number above 0"),
            (["--minutes", "nan"], 2, "--minutes must be a number above 0"),
            (["--depth", "1"], 2, "--depth must be a whole number from 2 to 24; got 1"),
            (["--context", "4"], 2, "--context must be a whole number from 16 to 8,192 tokens"),
            (["--batch-size", "0"], 2, "--batch-size must be a whole number, at least 1"),
            (["--seed", "-1"], 2, "--seed must be a whole number"),
            (["--size", "thin"], 2, "(?s)No such option: --size.*--size is an option of: image"),
        ],
    )
    def test_a_mistake_is_one_message_and_leaves_nothing(
        self, volano, tmp_path, arguments, code, message
    ):
        (tmp_path / "empty").mkdir()
        (tmp_path / "void.txt").touch()
        (tmp_path / "binary.txt").write_bytes(b"\0\1")
        (tmp_path / "short.txt").write_text("hello world")
        before = sorted(tmp_path.iterdir())
        got, _, err = volano("train", "text", *arguments)
        assert got == code
        assert re.search(message, err), err
        assert sorted(tmp_path.iterdir()) == before


class TestResume:
    def test_it_is_bitwise_and_needs_no_text(self, volano, texts, tmp_path, monkeypatch):
        from volano.training.signals import StopRequest

        folder = Path(shutil.copytree(texts, tmp_path / "texts"))
        assert volano("train", "text", folder, *FASTER, "--out", "whole")[0] == 0
        stop = property(lambda self: True, lambda self, value: None)
        monkeypatch.setattr(StopRequest, "requested", stop, raising=False)
        assert volano("train", "text", folder, *FASTER, "--out", "parts")[0] == 1
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
        code, out, err = volano("resume", "parts")
        assert code == 0, err
        assert "from step 1 " in err
        assert out[0].startswith("bits per byte")
        whole, parts = (
            load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts")
        )
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
        metrics = [
            json.loads((tmp_path / name / "run.json").read_text())["metrics"]
            for name in ("whole", "parts")
        ]
        assert metrics[0]["bits_per_byte"] == metrics[1]["bits_per_byte"]
        code, _, err = volano("resume", "parts")
        assert code == 2
        assert "which is finished" in err

    def test_another_tokenizer_is_refused(self, volano, text_run, tmp_path):
        path = copied(text_run, tmp_path)
        record = json.loads((path / "tokenizer.json").read_text())
        record["model"]["merges"] = record["model"]["merges"][:-1]
        (path / "tokenizer.json").write_text(json.dumps(record))
        for command in (["generate", path], ["eval", path]):
            code, _, err = volano(*command)
            assert code == 1
            assert "The tokenizer must belong to the run" in err


class TestGenerate:
    def test_text_streams_to_standard_output(self, volano, text_run):
        code, out, err = volano("generate", text_run, "--prompt", "import ", "--tokens", "30")
        assert code == 0
        assert "\n".join(out).startswith("import ")
        assert re.search(r"30 tokens, [\d,]+ a second", err)

    def test_json_and_seeds(self, volano, text_run):
        arguments = [
            "generate",
            text_run,
            "--prompt",
            "def ",
            "--tokens",
            "25",
            "--top-k",
            "50",
            "--top-p",
            "0.9",
            "--json",
        ]
        results = [json.loads(volano(*arguments, "--seed", seed)[1][-1]) for seed in (1, 1, 2)]
        assert results[0]["text"] == results[1]["text"] != results[2]["text"]
        assert results[0]["num_tokens"] == 25
        assert results[0]["tokens_per_second"] > 0

    def test_longer_than_the_context(self, volano, text_run):
        code, out, err = volano(
            "generate", text_run, "--prompt", "self.value = 1\n" * 100, "--tokens", "150", "--json"
        )
        assert code == 0
        assert "longer than the context of 64 tokens: its first" in err
        assert json.loads(out[-1])["num_tokens"] > 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--tokens", "0"], "--tokens must be a whole number, at least 1"),
            (["--temperature", "-1"], "--temperature must be a number from 0.0 to 100.0"),
            (["--top-k", "0"], "--top-k must be a whole number, at least 1"),
            (["--top-p", "2"], "--top-p must be a number above 0, at most 1.0"),
        ],
    )
    def test_values_out_of_range(self, volano, text_run, arguments, message):
        code, _, err = volano("generate", text_run, *arguments)
        assert code == 2
        assert message in err

    def test_a_run_of_something_else(self, volano):
        shutil.copytree(OF_IMAGES, "digits")
        for arguments in (["--prompt", "x"], []):
            code, _, err = volano("generate", "digits", *arguments)
            assert code == 2
            assert "text" in err


class TestEval:
    def test_the_held_out_text(self, volano, text_run):
        code, out, _ = volano("eval", text_run, "--json")
        assert code == 0
        result = json.loads(out[-1])
        trained = json.loads((text_run / "run.json").read_text())["metrics"]
        assert result["bits_per_byte"] == pytest.approx(trained["bits_per_byte"], rel=1e-6)
        assert result["bits_per_byte_xz"] == trained["bits_per_byte_xz"]

    def test_other_text(self, volano, text_run, tmp_path):
        shutil.copy(STDLIB / "doctest.py", tmp_path)
        code, out, err = volano("eval", text_run, "doctest.py")
        assert code == 0, err
        assert f"{(STDLIB / 'doctest.py').stat().st_size:,} bytes" in "\n".join(out)
        assert (text_run / "eval-doctest.json").exists()

    def test_a_text_named_test_leaves_the_runs_own_figures(self, volano, text_run, tmp_path):
        before = (text_run / "eval-test.json").read_bytes()
        shutil.copy(STDLIB / "doctest.py", tmp_path / "test.py")
        assert volano("eval", text_run, "test.py")[0] == 0
        assert (text_run / "eval-test.json").read_bytes() == before
        assert (text_run / "eval-other-test.json").exists()

    def test_the_training_text_is_known_to_the_compressors(self, volano, text_run, texts):
        _, out, _ = volano("eval", text_run, texts / "bdb.py", "--json")
        result = json.loads(out[-1])
        _, other, _ = volano("eval", text_run, STDLIB / "doctest.py", "--json")
        assert result["bits_per_byte_xz"] < json.loads(other[-1])["bits_per_byte_xz"]

    def test_nothing_to_evaluate(self, volano, text_run, tmp_path):
        (tmp_path / "binary.txt").write_bytes(b"\0")
        code, _, err = volano("eval", text_run, "binary.txt")
        assert code == 1
        assert "There must be text to evaluate on; got none in binary.txt" in err


def write_table(path):
    lines = ["label,text"]
    for number in range(240):
        name, word = (("fruit", "apple"), ("tool", "hammer"), ("animal", "horse"))[number % 3]
        lines.append(f'{name},"number {number}: a {word} and {word} number {number * 7 % 11}"')
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def said_of_bag(tmp_path_factory):
    """A finished run on that table, and what its training said."""
    root = tmp_path_factory.mktemp("bag")
    words = (write_table(root / "table.csv"), "--classify", "--minutes", "0.05")
    return root / "run", *trained("text", *words, "--out", root / "run")


class TestClasses:
    """A table of three classes; the language model's head is made to be tried and kept where a test
    asks for it."""

    @pytest.fixture
    def table(self, tmp_path):
        return write_table(tmp_path / "table.csv")

    @pytest.fixture
    def head_wins(self, monkeypatch):
        from volano.apps.text.classify import fit

        monkeypatch.setattr(fit, "_LEAST_SECONDS", -1e9)
        monkeypatch.setattr(fit, "_affordable", lambda *_given, **_most: 12)
        monkeypatch.setattr(fit, "_better", lambda *_: fit.DECODER_HEAD)

    def test_the_bag(self, volano, table, tmp_path, said_of_bag):
        trained_run, out, err = said_of_bag
        shutil.copytree(trained_run, tmp_path / "run")
        assert re.match(r"test accuracy 1\.0000 on \d+ texts", out[0])
        assert out[1].startswith("kept: bag of n-grams   (to choose: bag of n-grams 1.0000)")
        assert "language model's head: not tried" in err
        result = json.loads(Path("run/eval-test.json").read_text())
        assert result["kept"] == "bag of n-grams"
        assert result["candidates"] == {"bag of n-grams": 1.0}
        code, out, _ = volano("eval", "run")
        assert code == 0
        assert out[-1].startswith("accuracy 1.0000")
        (tmp_path / "one.txt").write_text("a horse")
        code, out, _ = volano("predict", "run", "one.txt", "table.csv", "--json", "--top-k", "2")
        predictions = json.loads(out[-1])["predictions"]
        assert (predictions[0]["path"], predictions[0]["top"][0]["class"]) == ("one.txt", "animal")
        assert len(predictions) == 241
        code, _, err = volano("predict", "run", "one.txt", "--csv", "out.csv")
        assert code == 0
        assert len(Path("out.csv").read_text().splitlines()) == 2
        code, _, err = volano("generate", "run")
        assert code == 2
        assert (
            "A run to generate from must be of an application that can: text, video; got run" in err
        )

    def test_the_head_when_it_is_kept(self, volano, table, tmp_path, head_wins):
        code, out, err = volano("train", "text", table, "--classify", "--out", "run", "--json")
        assert code == 0, err
        metrics = json.loads(out[-1])["metrics"]
        assert metrics["kept"] == "language model's head"
        assert metrics["candidates"].keys() == {"bag of n-grams", "language model's head"}
        assert json.loads(Path("run/text.json").read_text())["depth"] == 2
        code, out, _ = volano("eval", "run", "--json")
        assert code == 0
        assert json.loads(out[-1])["accuracy"] == pytest.approx(metrics["test_accuracy"])
        (tmp_path / "one.txt").write_text("a horse")
        assert volano("predict", "run", "one.txt")[0] == 0

    def test_a_pinned_feed_holds_for_the_head_too(self, volano, table, head_wins):
        code, _, err = volano(
            "train", "text", table, "--classify", "--feed", "ring", "--out", "run"
        )
        assert code == 0, err
        plan = json.loads(Path("run/plan.json").read_text())
        assert (plan["feed"], plan["optimizer"]) == ("ring", "as_given")

    def test_ranks_that_do_not_fit_are_refused_before_the_trials(self, table, monkeypatch):
        from volano.apps.text.classify import fit

        monkeypatch.setattr(fit, "run_trial", lambda *arguments: pytest.fail("a trial was run"))
        with pytest.raises(PlanError, match="number of ranks must divide the batch.*got 7 ranks"):
            volano_package.train("text", table, classify=True, processes=Processes(nproc=7))

    def test_what_an_evaluation_leaves_out_is_said(self, volano, said_of_bag, tmp_path):
        rows = ["label,text,split", "tool,a hammer,test", "animal,a horse,val", "fruit,,test"]
        (tmp_path / "more.csv").write_text("\n".join(rows))
        code, out, err = volano("eval", said_of_bag[0], "more.csv")
        assert code == 0
        assert out[-1].startswith("accuracy 1.0000")
        assert "1 texts of split val are left out: test is evaluated" in err
        assert "left out: more.csv:4: without text" in err

    @pytest.mark.parametrize("kept", ["bag", "head"])
    def test_resume_is_bitwise(self, volano, table, tmp_path, monkeypatch, request, kept):
        from volano.apps.text.classify import fit
        from volano.training.signals import StopRequest

        # How many steps there are must not go by the clock.
        monkeypatch.setattr(fit, "_affordable", lambda *_given, **_most: 12)
        if kept == "head":
            request.getfixturevalue("head_wins")
        arguments = ["train", "text", table, "--classify", "--minutes", "0.3"]
        assert volano(*arguments, "--out", "whole")[0] == 0
        with monkeypatch.context() as patch:
            stop = property(lambda self: True, lambda self, value: None)
            patch.setattr(StopRequest, "requested", stop, raising=False)
            assert volano(*arguments, "--out", "parts")[0] == 1
        code, out, err = volano("resume", "parts")
        assert code == 0, err
        assert out[0].startswith("test accuracy")
        whole, parts = (
            load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts")
        )
        assert all(torch.equal(whole[name], parts[name]) for name in whole)

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            ([], 2, "--classify needs a path"),
            (["nowhere.csv"], 2, "PATH must exist"),
            (["one.csv"], 1, "at least 2 classes; got 2 labelled texts of 1 classes"),
            (
                ["table.csv", "--depth", "3"],
                2,
                "--depth is no option of the text application with --classify",
            ),
        ],
    )
    def test_mistakes(self, volano, table, tmp_path, arguments, code, message):
        (tmp_path / "one.csv").write_text("label,text\nx,one\nx,two")
        got, _, err = volano("train", "text", *arguments, "--classify")
        assert got == code
        assert message in err

    def test_a_class_that_does_not_exist(self, volano, said_of_bag, tmp_path):
        (tmp_path / "more.csv").write_text("label,text\nplanet,mars")
        code, _, err = volano("eval", said_of_bag[0], "more.csv")
        assert code == 1
        assert "have the run's classes; got also planet" in err
