"""The command line, as a person meets it: in process where it prints, in a child where signals and
exits count."""

import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from children import PATIENCE_SECONDS, Forked, as_command
from cli.printing import trained

FAST = ["--epochs", "2", "--batch-size", "128", "--size", "tiny"]


def make_folder(root, num=14, classes=("left", "middle", "right"), side=16, mode="RGB"):
    """Bright bars on noise, at a place that the class names."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(num):
            pixels = generator.integers(0, 80, (side, side, 3), dtype=np.uint8)
            pixels[:, 2 + 4 * number : 5 + 4 * number] = 250
            Image.fromarray(pixels).convert(mode).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def said_of_digits(tmp_path_factory):
    """A finished run on the embedded digits, and what its training said."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    return path, *trained("image", "--epochs", "3", "--out", path)


@pytest.fixture(scope="session")
def digits_run(said_of_digits):
    return said_of_digits[0]


@pytest.fixture(scope="session")
def said_of_photos(tmp_path_factory):
    """A finished run on a folder of two classes, one of them small, and what its training said."""
    root = tmp_path_factory.mktemp("photos")
    folder = make_folder(root / "photos", num=30, classes=("left", "middle"))
    for path in sorted((folder / "middle").iterdir())[4:]:
        path.unlink()
    return root / "run", *trained("image", folder, *FAST, "--out", root / "run")


class TestTrainImage:
    def test_the_embedded_digits(self, said_of_digits):
        path, out, err = said_of_digits
        assert out[0].startswith("test accuracy 0.9")
        assert out[1].startswith("finished: better than always the commonest class (0.1")
        place = out.index(f"run: {path}")
        assert out[place + 1] == f"report: {path}/report.html"
        assert any(line.endswith(f"volano eval {path}") for line in out[place + 2 :])
        assert "flip=no" in err
        assert "valid accuracy" in err

    def test_minutes_are_kept(self, volano):
        start = time.perf_counter()
        code, out, err = volano("train", "image", "--minutes", "0.06", "--out", "run", "--json")
        assert code == 0
        assert json.loads(out[-1])["task"]["num_steps"] >= 1
        assert "ms a step" in err
        assert (
            time.perf_counter() - start < PATIENCE_SECONDS
        )  # a bound on hanging, not a measurement

    def test_ones_own_images_of_all_kinds_and_json_is_the_last_line_and_complete(
        self, volano, tmp_path
    ):
        folder = make_folder(tmp_path / "photos")
        Image.new("L", (40, 30), 250).save(folder / "left" / "grey.jpg")
        Image.new("RGBA", (9, 60), (1, 2, 3, 0)).save(folder / "right" / "alpha.png")
        (folder / "middle" / "broken.png").write_text("no image")
        code, out, err = volano(
            "train", "image", folder, "--epochs", "30", "--out", "run", "--json"
        )
        assert code == 0, err
        assert "broken.png" in err
        assert "broken.png" in Path("run/quarantine.jsonl").read_text()
        assert len(out) == 1
        result = json.loads(out[-1])
        assert result.keys() >= {"run", "task", "plan", "metrics", "seconds"}
        assert result["metrics"]["test_accuracy"] > 0.6
        stages = {"data", "plan", "prepare", "train", "evaluate", "test", "total"}
        assert result["seconds"].keys() >= stages
        assert result["plan"]["device"] == "cpu"

    def test_ones_own_model_and_pins(self, volano, tmp_path):
        (tmp_path / "own_net.py").write_text(
            "from torch import nn\n"
            "def net(num_classes, in_channels):\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))\n"
        )
        code, out, err = volano(
            "train", "image", "--epochs", "10", "--batch-size", "64", "--model", "own_net:net",
            "--out", "run", "--json", "--precision", "bf16", "--micro-batch", "32",
            "--memory-format", "contiguous", "--threads", "1", "--feed", "ring", "--workers", "1",
            "--no-compile",
        )  # fmt: skip
        assert code == 0, err
        plan = json.loads(out[-1])["plan"]
        assert (plan["precision"], plan["micro_batch"], plan["feed"], plan["workers"]) == (
            "bf16",
            32,
            "ring",
            1,
        )
        code, out, _ = volano("eval", "run", "--json")
        assert code == 0
        assert json.loads(out[-1])["accuracy"] > 0.5

    def test_imbalance_is_weighed_and_said(self, said_of_photos):
        assert "weighted inversely" in said_of_photos[2]

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["image", "nowhere"], 2, "PATH must exist; got .*nowhere"),
            (["image", "empty"], 1, "sub-folder for each class"),
            (["image", "one"], 1, r"at least two classes; got 1 \(left\)"),
            (
                ["image", "--image-size", "32"],
                2,
                "--image-size and --fit are only for files that are decoded",
            ),
            (["image", "--seed", "99999999999999999999"], 2, "--seed must be a whole number"),
            (["image", "--model", "shapes.py:wide"], 2, r"logits \[2, 10\]; got \[2, 11\]"),
            (["image", "--model", "shapes.py:raising"], 2, "logits .*; got ZeroDivisionError"),
            (
                ["image", "--size", "huge"],
                2,
                "--size must be one of tiny, thin, base, wide; got 'huge'",
            ),
            (["image", "--flip", "maybe"], 2, "--flip must be one of auto, yes, no"),
            (
                ["image", "--minutes", "1", "--epochs", "1"],
                2,
                "given either as --minutes or as --epochs; got both",
            ),
            (["image", "--minutes", "-1"], 2, "--minutes must be a number above 0"),
            (["image", "--epochs", "0"], 2, "--epochs must be a number above 0"),
            (["image", "--batch-size", "0"], 2, "--batch-size must be a whole number, at least 1"),
            (
                ["image", "--precision", "fp8"],
                2,
                "--precision must be one of fp32, tf32, bf16, fp16; got 'fp8'",
            ),
            (
                ["image", "--micro-batch", "9999", "--epochs", "1"],
                2,
                "micro-batch must be a part of the batch",
            ),
            (["image", "--device", "xpu:3"], 2, "one of this machine's; got 'xpu:3'. Here: cpu"),
            (
                ["image", "--model", "nowhere:net"],
                2,
                "module must be importable; got nowhere: ModuleNotFoundError",
            ),
            (
                ["image", "--model", "broken.py:net"],
                2,
                "must be importable; got broken.py: SyntaxError",
            ),
            (
                ["image", "--model", "json:nothing"],
                2,
                "must name something in its module, json; got 'nothing'",
            ),
            (["image", "--model", "mine"], 2, "Code must be named as module:name; got 'mine'"),
            (
                ["image", "--out", "taken"],
                2,
                r"folder of its own; got taken, which exists\. Name another with --out\.$",
            ),
            (["cats"], 2, "an application or a task of your own; got 'cats'"),
            (["json:dumps"], 2, "a function of Python's own module json"),
            (["json:__doc__"], 2, "must name a volano.Task or a function that returns one"),
            (["json:dumps", "--epochs", "3"], 2, "--epochs is for a trial of a study"),
            (["image", "--nonsense"], 2, "No such option"),
        ],
    )
    def test_a_mistake_is_one_message(self, volano, tmp_path, arguments, code, message):
        (tmp_path / "empty").mkdir()
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "file").write_text("mine")
        (tmp_path / "broken.py").write_text("def net(:\n")
        (tmp_path / "shapes.py").write_text(
            "from torch import nn\n"
            "def wide(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes "
            "+ 1))\n"
            "def raising(): return 1 / 0\n"
        )
        make_folder(tmp_path / "one", classes=("left",), num=2)
        got, out, err = volano("train", *arguments)
        assert got == code
        assert "Traceback" not in err
        assert not out

        assert re.search(message, " ".join(err.split())), err

    def test_with_json_a_mistake_is_an_object(self, volano):
        code, out, err = volano("train", "image", "nowhere", "--json")
        assert code == 2
        assert json.loads(out[-1])["kind"] == "UsageError"
        assert "nowhere" in err

    def test_debug_shows_the_traceback(self, volano):
        from volano.errors import UsageError

        with pytest.raises(UsageError):
            volano("train", "image", "nowhere", "--debug")


class TestAfterTraining:
    def test_eval(self, volano, digits_run):
        code, out, _ = volano("eval", digits_run)
        assert code == 0
        assert any(line.startswith("accuracy 0.") for line in out)
        with Image.open(digits_run / "eval-test.png") as picture:
            assert min(picture.size) > 400
            assert len(picture.convert("L").getcolors()) > 20  # not a blank page

    def test_eval_agrees_with_the_figure_of_training(self, volano, digits_run):
        _, out, _ = volano("eval", digits_run, "--json")
        result = json.loads(out[-1])
        trained = json.loads((digits_run / "run.json").read_text())["metrics"]
        assert result["accuracy"] == pytest.approx(trained["test_accuracy"], abs=0.01)
        assert np.array(result["confusion"]).sum() == result["num_examples"] == trained["num_test"]
        supports = [row["support"] for row in result["per_class"].values()]
        assert supports == np.array(result["confusion"]).sum(axis=1).tolist()

    def test_eval_on_other_images(self, volano, digits_run, tmp_path):
        samples = load_file(digits_run / "samples.safetensors")
        for number, (image, label) in enumerate(
            zip(samples["images"], samples["labels"].tolist(), strict=True)
        ):
            (tmp_path / "more" / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).convert("RGB").save(
                tmp_path / "more" / str(label) / f"{number}.png"
            )
        code, out, _ = volano("eval", digits_run, "more", "--json")
        assert code == 0
        assert json.loads(out[-1])["num_examples"] == 64
        assert json.loads(out[-1])["accuracy"] > 0.7

    def test_eval_on_other_classes_is_refused(self, volano, digits_run, tmp_path):
        make_folder(tmp_path / "other")
        code, _, err = volano("eval", digits_run, "other")
        assert code == 1
        assert "of the run's classes; got also left" in err

    def test_predict(self, volano, digits_run, tmp_path):
        samples = load_file(digits_run / "samples.safetensors")
        for number in range(3):
            Image.fromarray(samples["images"][number][0].numpy()).save(tmp_path / f"{number}.png")
        (tmp_path / "bad.png").write_text("no")
        code, out, err = volano(
            "predict", digits_run, "0.png", "1.png", "2.png", "bad.png", "--top-k", "2", "--json"
        )
        assert code == 0
        result = json.loads(out[-1])
        assert [row["path"] for row in result["predictions"]] == ["0.png", "1.png", "2.png"]
        assert all(len(row["top"]) == 2 for row in result["predictions"])
        assert [fault["path"] for fault in result["unreadable"]] == ["bad.png"]
        assert "unreadable: bad.png" in err
        code, out, _ = volano("predict", digits_run, ".", "--csv", "table.csv")
        assert code == 0
        assert len((tmp_path / "table.csv").read_text().splitlines()) == 4
        code, out, _ = volano("predict", digits_run, "0.png")
        assert any("0.png" in line for line in out)

    @pytest.mark.parametrize(
        ("files", "code", "message"),
        [
            (["none.png"], 2, "to predict must exist"),
            (["text.txt"], 2, "named like an image"),
            (["bad.png"], 1, "be read"),
        ],
    )
    def test_predict_on_nothing(self, volano, digits_run, tmp_path, files, code, message):
        (tmp_path / "text.txt").write_text("x")
        (tmp_path / "bad.png").write_text("x")
        got, _, err = volano("predict", digits_run, *files)
        assert got == code
        assert message in err

    def test_a_table_that_cannot_be_written(self, volano, digits_run, tmp_path):
        Image.new("L", (8, 8)).save(tmp_path / "x[a].png")
        code, _, err = volano("predict", digits_run, "x[a].png", "--csv", "nowhere/x.csv")
        assert code == 2
        assert "table must be writable" in err
        assert any("x[a].png" in line for line in volano("predict", digits_run, "x[a].png")[1])

    @pytest.mark.parametrize("to", ["safetensors", "pt2"])
    def test_export_is_loaded_back(self, volano, digits_run, tmp_path, to):
        code, out, err = volano("export", digits_run, "--to", to, "--out", f"model.{to}", "--json")
        assert code == 0, err
        result = json.loads(out[-1])
        assert result["largest_difference"] < 1e-4
        assert result["bytes"] == Path(f"model.{to}").stat().st_size

    @pytest.mark.filterwarnings(
        "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
    )
    def test_export_to_onnx(self, volano, digits_run):
        pytest.importorskip("onnxscript", reason="needs the extra `onnx`")
        code, out, err = volano(
            "export", digits_run, "--to", "onnx", "--out", "model.onnx", "--json"
        )
        assert code == 0, err
        assert json.loads(out[-1])["largest_difference"] < 1e-3

    def test_export_without_onnx_says_how(self, volano, digits_run, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnx", None)
        code, _, err = volano("export", digits_run, "--to", "onnx")
        assert code == 1
        assert "pip install 'volano[onnx]'" in err

    def test_export_to_something_else(self, volano, digits_run):
        code, _, err = volano("export", digits_run, "--to", "gguf")
        assert code == 2
        assert "safetensors, pt2, onnx; got 'gguf'" in err

    def test_images_that_are_gone(self, volano, said_of_photos, tmp_path):
        copied = shutil.copytree(said_of_photos[0], tmp_path / "run")
        record = (copied / "run.json").read_text()
        path = json.loads(record)["source"]["dials"]["path"]
        gone = str(tmp_path / "photos")
        (copied / "run.json").write_text(record.replace(json.dumps(path), json.dumps(gone)))
        code, _, err = volano("eval", "run")
        assert code == 2
        assert "photos, which is gone. Put them back" in err

    def test_a_class_without_readable_images(self, volano, tmp_path):
        make_folder(tmp_path / "photos" / "train", num=30)
        make_folder(tmp_path / "photos" / "test", num=2)
        for path in sorted((tmp_path / "photos" / "train" / "left").iterdir()):
            path.unlink()
        (tmp_path / "photos" / "train" / "left" / "only.png").write_text("no")
        code, _, err = volano("train", "image", "photos", *FAST)
        assert code == 1
        assert "readable images to train on; got none of left" in err


class TestOwnTask:
    @pytest.mark.parametrize("name", ["own_model", "own_objective", "own_dataset"])
    def test_the_examples(self, volano, name):
        example = Path(__file__).parents[2] / "examples" / f"{name}.py"
        code, out, err = volano("train", f"{example}:task", "--out", "run", "--json")
        assert code == 0, err
        result = json.loads(out[-1])
        records = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
        losses = [record["valid_loss"] for record in records if "valid_loss" in record]
        assert result["metrics"]["valid_loss"] == losses[-1] < losses[0]
        code, _, err = volano("eval", "run")
        assert code == 2
        assert "got run, the run of a task of your own" in err


class TestReport:
    def test_a_page_is_written_again_in_its_folder_or_elsewhere(self, volano, digits_run, tmp_path):
        shutil.copytree(digits_run, tmp_path / "run")
        Path("run/report.html").unlink()
        assert volano("report", "run")[:2] == (0, ["report: run/report.html"])
        code, out, _ = volano("report", "run", "--out", "page.html")
        assert (code, out) == (0, ["report: page.html"])
        assert Path("page.html").read_text() == Path("run/report.html").read_text()

    def test_several_are_compared(self, volano, digits_run):
        code, out, _ = volano("report", digits_run, digits_run, "--json")
        assert code == 0
        assert json.loads(out[-1]) == {"report": "comparison.html", "runs": [str(digits_run)] * 2}
        assert "2 runs compared" in Path("comparison.html").read_text()

    def test_mistakes(self, volano, tmp_path):
        code, _, err = volano("report", "nothing")
        assert code == 2
        assert (
            err == "error: A run's folder must hold run.json; got nothing, which does not exist. "
            "Name the folder that train printed.\n"
        )
        assert volano("report")[0] == 2

    def test_no_place_to_write_to(self, volano, digits_run):
        code, _, err = volano("report", digits_run, "--out", "not/there.html")
        assert code == 1
        assert "Name another file with --out" in err


class TestDoctor:
    def test_a_table(self, volano):
        code, out, _ = volano("doctor")
        assert code == 0
        text = "\n".join(out)
        assert re.search(r"accelerator|bf16", "\n".join(out[:2]))  # the verdict comes first
        assert max(map(len, out)) <= 80
        for word in ("matmul fp32", "memory copy", "host memory", "torch 2."):
            assert word in text

    def test_json(self, volano):
        code, out, _ = volano("doctor", "--json")
        assert code == 0
        assert json.loads(out[-1]).keys() == {
            "verdict", "machine", "limits", "versions", "missing",
        }  # fmt: skip


# Steps that sleep: an hour of them, whatever the processor does.
SLEEPING = """
import functools, time, torch, volano

def objective(model, batch):
    time.sleep(0.02)
    return model(batch[0]).square().mean()

data = torch.utils.data.TensorDataset(torch.rand(64, 4))
task = volano.Task(
    model=lambda: torch.nn.Linear(4, 1), objective=objective, data=data, valid=data,
    optimizer=functools.partial(torch.optim.SGD, lr=0.1), batch_size=32, duration="50000ep",
)
"""


class TestInterrupted:
    @pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
    def test_a_stopped_run_says_how_to_go_on_and_does(self, tmp_path, name):
        (tmp_path / "sleeping.py").write_text(SLEEPING)
        words = ("train", "sleeping.py:task", "--no-plan", "--out", "run")
        child = Forked(tmp_path / "log", as_command, tmp_path, *words)
        while "valid loss" not in child.output.read_text() and child.is_running():
            time.sleep(0.05)
        os.kill(child.pid, name)
        assert child.wait() == 0, child.output.read_text()
        said = child.output.read_text()
        assert (tmp_path / "code").read_text() == "1"
        assert "Traceback" not in said
        assert "resume: volano resume run" in said
        assert (tmp_path / "run" / "model.safetensors").exists()
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        assert record["status"] == "stopped"
        assert 0 < record["step"] < record["num_steps"]


def test_resume_of_an_image_run_is_bitwise(volano, tmp_path, monkeypatch):
    from volano.training.signals import StopRequest

    assert volano("train", "image", *FAST, "--out", "whole")[0] == 0
    monkeypatch.setattr(
        StopRequest,
        "requested",
        property(lambda self: True, lambda self, value: None),
        raising=False,
    )
    assert volano("train", "image", *FAST, "--out", "parts")[0] == 1
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, _, err = volano("resume", "parts")
    assert code == 0, err
    assert "from step 1 " in err
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for name in whole:
        assert torch.equal(whole[name], parts[name])
    code, _, err = volano("resume", "parts")
    assert code == 2
    assert "which is finished" in err
