"""The video application on the command line, as a person meets it."""

import json
import shutil
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from children import PATIENCE_SECONDS
from cli.printing import trained
from clips import moving_square, write_clip
from volano.apps.video import recipe
from volano.apps.video.scoring import figures, judge
from volano.errors import RunError
from volano.training.signals import StopRequest

SMALL = ["--epochs", "1", "--frames", "6", "--batch-size", "4"]
# A run of another application.
OF_IMAGES = Path(__file__).parents[1] / "earlier" / "v0_1" / "image"


def class_folders(root, num=5):
    for name, speed in (("slow", 1), ("fast", 3)):
        for number in range(num):
            write_clip(
                root / name / f"{number}.mp4",
                moving_square(12, (16, 16), speed=speed, start=number),
            )
    return root


@pytest.fixture(scope="session")
def said_of_classes(tmp_path_factory):
    """A finished run on clips in two class folders, and what its training said."""
    folder = tmp_path_factory.mktemp("classes")
    class_folders(folder / "clips")
    return folder / "run", *trained("video", folder / "clips", *SMALL, "--out", folder / "run")


@pytest.fixture(scope="session")
def classes_run(said_of_classes):
    return said_of_classes[0]


@pytest.fixture
def narrow(monkeypatch):
    """A network that makes clips in a second."""
    monkeypatch.setattr(recipe, "_UNET_WIDTH", 16)


@pytest.fixture(scope="session")
def said_of_sample(tmp_path_factory):
    """A finished run on the embedded sample, with distances of generated clips, and its JSON."""
    path = tmp_path_factory.mktemp("sample") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "_UNET_WIDTH", 16)
        out, _ = trained("video", "--epochs", "0.05", "--frames", "8", "--out", path, "--json")
    return path, out


@pytest.fixture(scope="session")
def sample_run(said_of_sample):
    return said_of_sample[0]


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


class TestTrain:
    def test_the_embedded_sample_leaves_everything(self, sample_run):
        record = json.loads((sample_run / "run.json").read_text())
        assert record["source"]["kind"] == "video"
        metrics = record["metrics"]
        assert metrics["psnr_baselines"].keys() == {"copy_last", "mean_frame"}
        assert 10 < metrics["psnr_first_frame"] < 40
        assert metrics["frechet_ratio"] > 1
        assert isinstance(metrics["self_test_passed"], bool)
        scores = json.loads((sample_run / "eval-test.json").read_text())
        assert (
            len(scores["psnr"])
            == len(scores["ssim"])
            == len(scores["baselines"]["copy_last"]["psnr"])
            == 4
        )
        assert scores["self_test"]["frechet"].keys() == {"real", "frozen", "shuffled", "blurred"}
        assert scores["nearest_training_distance"].keys() == {
            "generated",
            "test",
            "smallest_generated",
        }
        assert scores["context"] == 4
        for name in ("clips-real.gif", "clips-generated.gif", "predictions.png"):
            with Image.open(sample_run / name) as image:
                assert min(image.size) >= 100
                assert getattr(image, "n_frames", 1) == (8 if name.endswith("gif") else 1)
        assert len(frames_of(sample_run / "clips-generated.mp4")) == 8
        assert any("network=unet: on the CPU" in notice for notice in record["notices"])

    def test_it_says_the_baselines_and_what_next(self, said_of_classes):
        path, out, err = said_of_classes
        assert out[0].startswith("first predicted frame ")
        assert "copy last" in out[0]
        assert "mean frame" in out[0]
        assert out[1].startswith("finished, but: ")
        assert out[-2:] == [f"      volano eval {path}", f"      volano generate {path} --clips 16"]
        assert "of 2 classes: fast" in err
        assert "no distances of generated clips: 2 test clips" in err
        assert max(len(line) for line in out if str(path.parent) not in line) <= 100
        record = json.loads((path / "run.json").read_text())
        assert record["metrics"]["frechet_ratio"] is None

    def test_json_carries_the_figures(self, said_of_sample):
        _, out = said_of_sample
        result = json.loads(out[-1])
        assert len(out) == 1
        assert result["metrics"].keys() >= {"psnr_first_frame", "psnr_baselines", "frechet_ratio"}
        assert result["seconds"].keys() >= {"data", "plan", "train", "evaluate", "test", "total"}

    def test_minutes_are_kept(self, volano, narrow):
        start = time.perf_counter()
        code, out, err = volano(
            "train", "video", "--minutes", "0.06", "--frames", "4", "--out", "run", "--json"
        )
        assert code == 0
        assert json.loads(out[-1])["task"]["num_steps"] >= 1
        assert "ms a step" in err
        assert (
            time.perf_counter() - start < PATIENCE_SECONDS
        )  # a bound on hanging, not a measurement

    def test_what_cannot_be_read_is_listed_and_what_cannot_be_written_costs_no_figures(
        self, volano, tmp_path, monkeypatch
    ):
        clips = class_folders(tmp_path / "clips", num=6)
        (clips / "slow" / "broken.mp4").write_bytes(b"no clip" * 99)
        write_clip(clips / "fast" / "short.gif", moving_square(3, (16, 16)))

        def fail(error):
            def write(*arguments, **named):
                raise error

            return write

        monkeypatch.setattr(figures, "write_gif", fail(OSError(28, "No space left on device")))
        monkeypatch.setattr(
            figures,
            "write_mp4",
            fail(RunError("The clip's file must be writable", got="a full disk")),
        )
        monkeypatch.setattr(figures, "draw_predictions", fail(ZeroDivisionError("no size")))
        code, _, err = volano("train", "video", clips, *SMALL, "--out", "run")
        assert code == 0
        listed = [
            json.loads(line) for line in Path("run/quarantine.jsonl").read_text().splitlines()
        ]
        reasons = {Path(record["path"]).name: record["reason"] for record in listed}
        assert reasons["broken.mp4"].startswith("unreadable: ")
        assert reasons["short.gif"] == "too short: 3 frames at 10 a second, asked 6"
        assert "broken.mp4" in err
        record = json.loads(Path("run/run.json").read_text())
        assert record["metrics"]["psnr_first_frame"] > 0
        assert record["status"] == "finished"
        for said in (
            "clips-real.gif is missing: [Errno 28] No space left on device",
            "clips-generated.mp4 is missing: The clip's file must be writable; got a full disk",
            "predictions.png is missing: ZeroDivisionError: no size",
        ):
            assert any(notice.startswith(said) for notice in record["notices"])
            assert said in err
        assert Path("run/report.html").is_file()

    def test_a_network_by_name(self, volano, tmp_path, monkeypatch):
        # Of the size that an accelerator wants it takes minutes.
        monkeypatch.setattr(recipe, "_TRANSFORMER_WIDTH", 64)
        monkeypatch.setattr(recipe, "_TRANSFORMER_DEPTH", 2)
        clips = class_folders(tmp_path / "clips")
        code, _, err = volano(
            "train", "video", clips, *SMALL, "--network", "transformer", "--out", "run"
        )
        assert code == 0
        assert "network=transformer: as asked" in err
        assert json.loads(Path("run/video.json").read_text())["network"] == "transformer"
        assert volano("generate", "run", "--clips", "1", "--steps", "2")[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere"], "PATH must exist; got .*nowhere"),
            (
                ["--minutes", "1", "--epochs", "1"],
                "given either as --minutes or as --epochs; got both",
            ),
            (["--minutes", "0"], "--minutes must be a number above 0"),
            (["--frames", "3"], "--frames must be a whole number from 4 to 64 frames; got 3"),
            (["--fps", "10"], "--image-size, --fps and --fit must come with clips of your own"),
            (["--fps", "0.05"], "--fps must be a number from 0.1 to 240 frames a second; got 0.05"),
            (["--network", "lstm"], "--network must be one of unet, transformer; got 'lstm'"),
            (["--flip", "maybe"], "--flip must be one of auto, yes, no"),
            (
                ["--image-size", "30"],
                "--image-size must be a multiple of 8 from 8 to 256 px; got 30",
            ),
            (["--model", "a:b"], "(?s)No such option: --model.*--model is an option of: image"),
        ],
    )
    def test_what_cannot_be_meant(self, volano, arguments, message):
        import re

        code, _, err = volano("train", "video", *arguments)
        assert code == 2
        assert re.search(message, err)
        assert not Path("runs").exists()

    def test_video_dials_are_not_for_images(self, volano):
        code, _, err = volano("train", "image", "--frames", "8")
        assert code == 2
        assert "--frames is an option of: video" in err

    def test_empty_and_useless_folders(self, volano, tmp_path):
        (tmp_path / "clips").mkdir()
        code, _, err = volano("train", "video", "clips")
        assert code == 1
        assert "A folder of clips must hold some (.mp4, .avi, .gif, .webm, ...)" in err
        (tmp_path / "clips" / "a.mp4").write_bytes(b"nothing")
        code, _, err = volano("train", "video", "clips")
        assert code == 1
        assert "Some of the clips must be readable" in err


class TestResume:
    def test_bitwise_as_if_never_stopped(self, volano, tmp_path, monkeypatch):
        clips = class_folders(tmp_path / "clips")
        arguments = [
            "train",
            "video",
            str(clips),
            "--epochs",
            "3",
            "--frames",
            "6",
            "--batch-size",
            "4",
        ]
        assert volano(*arguments, "--out", "whole")[0] == 0
        with monkeypatch.context() as patch:  # asked to stop from the first step on
            patch.setattr(
                StopRequest, "requested", property(lambda _: True, lambda *_: None), raising=False
            )
            assert volano(*arguments, "--out", "stopped")[0] == 1
        record = json.loads(Path("stopped/run.json").read_text())
        assert record["status"] == "stopped"
        assert record["step"] < record["num_steps"]
        code, out, _ = volano("resume", "stopped", "--json")
        assert code == 0
        whole, resumed = (
            load_file("whole/model.safetensors"),
            load_file("stopped/model.safetensors"),
        )
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
        first, second = (
            json.loads(Path(name, "eval-test.json").read_text()) for name in ("whole", "stopped")
        )
        assert first == second
        assert json.loads(out[-1])["metrics"]["psnr_first_frame"] == first["psnr"][0]
        code, _, err = volano("resume", "stopped")
        assert code == 2
        assert "which is finished" in err

    def test_clips_that_are_gone(self, volano, classes_run, tmp_path):
        record = (shutil.copytree(classes_run, tmp_path / "run") / "run.json").read_text()
        path = json.loads(record)["source"]["dials"]["path"]
        elsewhere = record.replace(json.dumps(path), json.dumps(f"{path}-gone"))
        (tmp_path / "run" / "run.json").write_text(elsewhere)
        code, _, err = volano("eval", "run")
        assert code == 2
        assert "The clips of the run must be where they were" in err


class TestEval:
    def test_the_same_figures_again(self, volano, sample_run):
        before = json.loads((sample_run / "eval-test.json").read_text())
        code, out, _ = volano("eval", sample_run, "--json")
        assert code == 0
        result = json.loads(out[-1])
        assert result["psnr"] == pytest.approx(before["psnr"], abs=1e-3)
        assert result["frechet_ratio"] == pytest.approx(before["frechet_ratio"], rel=1e-3)
        assert result["self_test"] == before["self_test"]

    def test_without_the_net_of_the_distances(self, volano, sample_run, tmp_path):
        run = shutil.copytree(sample_run, tmp_path / "run")
        (run / "feature-net.safetensors").unlink()
        code, _, err = volano("eval", run)
        assert code == 0
        assert (
            "no distances of generated clips: feature-net.safetensors is not in the run's folder"
            in err
        )

    def test_a_table_for_people(self, volano, classes_run):
        code, out, _ = volano("eval", classes_run)
        assert code == 0
        assert "predicted frames, dB" in out[0]
        assert "copy last" in out[1]
        assert out[-1] == f"real above predicted: {classes_run / 'predictions.png'}"

    def test_the_distances_in_words(self, sample_run):
        scores = json.loads((sample_run / "eval-test.json").read_text())
        ruler = {**scores["self_test"], "reason": None}
        lines = figures.distances_in_words(
            {
                "frechet_ratio": 2.5,
                "kernel_ratio": 3.5,
                "self_test_passed": True,
                "self_test": ruler,
            }
        )
        assert (
            lines[0] == "generated clips are 2.5 times as far from test clips as training clips are"
        )
        assert lines[1] == "  (Frechet; by the kernel distance 3.5; self-test passed)"
        assert lines[2].startswith("  spoiled real clips: frozen ")
        nothing = {
            "frechet_ratio": None,
            "kernel_ratio": None,
            "self_test_passed": None,
            "self_test": None,
        }
        assert figures.distances_in_words(nothing) == []

    def test_distances_whose_self_test_failed_are_none(
        self, volano, sample_run, tmp_path, monkeypatch
    ):
        run = shutil.copytree(sample_run, tmp_path / "run")
        monkeypatch.setattr(judge, "_STANDARD_ERRORS", 1e6)  # no net is as good as that
        code, out, err = volano("eval", run)
        assert code == 0
        assert "no distances of generated clips: the self-test FAILED" in " ".join(out)
        assert "the distances of generated clips are rejected: the feature net tells" in err
        result = json.loads((run / "eval-test.json").read_text())
        assert (result["frechet_ratio"], result["kernel_ratio"]) == (None, None)
        assert result["rejected"]["frechet_ratio"] > 0

    def test_other_clips(self, volano, classes_run, tmp_path):
        write_clip(tmp_path / "new" / "slow" / "a.gif", moving_square(14, (24, 24)))
        write_clip(tmp_path / "new" / "fast" / "b.avi", moving_square(14, (24, 24), speed=3))
        code, out, err = volano("eval", classes_run, tmp_path / "new", "--json")
        assert code == 0
        assert json.loads(out[-1])["num_clips"] == 4
        assert "scaled to 16 pixels" in err
        assert (classes_run / "eval-new.json").is_file()
        assert (classes_run / "predictions-new.png").is_file()

    def test_clips_of_no_class_of_the_run(self, volano, classes_run, tmp_path):
        write_clip(tmp_path / "new" / "a.gif", moving_square(14, (24, 24)))
        code, _, err = volano("eval", classes_run, tmp_path / "new")
        assert code == 1
        assert "sub-folders named like the run's classes" in err


class TestGenerate:
    def generate(self, volano, run, *arguments):
        code, out, err = volano("generate", run, "--steps", "2", *arguments, "--json")
        assert code == 0, err
        return json.loads(out[-1]), err

    def test_files_and_their_rate(self, volano, classes_run, tmp_path):
        result, _ = self.generate(
            volano, classes_run, "--clips", "3", "--fps", "5", "--out", tmp_path / "made"
        )
        assert result["paths"].keys() == {"mp4", "gif", "grid"}
        assert len(result["files"]) == 3
        with av.open(result["paths"]["mp4"]) as container:
            assert float(container.streams.video[0].average_rate) == 5
        with Image.open(result["paths"]["gif"]) as image:
            assert (image.n_frames, image.info["duration"]) == (6, 200)
        with Image.open(result["paths"]["grid"]) as image:
            assert image.size[0] > image.size[1]

    def test_for_people(self, volano, classes_run, tmp_path):
        code, out, _ = volano(
            "generate", classes_run, "--clips", "2", "--steps", "1", "--out", "made"
        )
        assert code == 0
        assert out == [
            "2 clips of 6 frames in made",
            "gif: made/clips.gif",
            "grid: made/grid.png",
            "mp4: made/clips.mp4",
        ]

    def test_every_call_has_a_folder_of_its_own(self, volano, classes_run):
        first, _ = self.generate(
            volano, classes_run, "--clips", "2", "--class", "slow", "--seed", "7"
        )
        before = {path.name: path.read_bytes() for path in Path(first["folder"]).iterdir()}
        second, _ = self.generate(
            volano, classes_run, "--clips", "1", "--class", "fast", "--seed", "7"
        )
        assert Path(first["folder"]).name.startswith("generated-")
        assert Path(second["folder"]) != Path(first["folder"])
        assert {path.name: path.read_bytes() for path in Path(first["folder"]).iterdir()} == before
        settings = json.loads(before["generated.json"])
        assert (
            settings.items()
            >= {"seed": 7, "class": "slow", "num_clips": 2, "steps": 2, "guidance": 1.5}.items()
        )

    def test_a_folder_that_holds_something_is_not_written_to(self, volano, classes_run, tmp_path):
        (tmp_path / "made").mkdir()
        self.generate(volano, classes_run, "--clips", "1", "--out", "made")  # an empty one is
        code, _, err = volano("generate", classes_run, "--clips", "1", "--out", "made")
        assert code == 2
        assert "--out must name a new folder, or an empty one; got made, which holds files" in err

    def test_how_many_of_the_clips_a_picture_shows_is_said(self, volano, classes_run):
        _, err = self.generate(volano, classes_run, "--clips", "9", "--steps", "1")
        assert "grid.png shows the first 8 of 9 clips" in err
        assert "clips.gif" not in err
        _, err = self.generate(
            volano, classes_run, "--clips", "65", "--steps", "1", "--frames", "2", "--fps", "60"
        )
        assert "clips.gif and clips.mp4 show the first 64 of 65 clips" in err
        assert "clips.gif plays at 50 frames a second instead of 60" in err

    def test_a_clip_depends_on_the_seed_and_its_number_alone(self, volano, classes_run):
        def pixels(name, *arguments):
            result, _ = self.generate(volano, classes_run, "--out", name, *arguments)
            return [np.asarray(frames_of(path), dtype=np.int16) for path in result["files"]]

        three, two = (
            pixels("a", "--clips", "3", "--seed", "4"),
            pixels("b", "--clips", "2", "--seed", "4"),
        )
        other = pixels("c", "--clips", "2", "--seed", "5")
        # A processor may round a clip otherwise beside another number of them: by a level of 255.
        assert all(np.abs(x - y).max() <= 1 for x, y in zip(three, two, strict=False))
        assert np.abs(two[0] - other[0]).max() > 10
        assert np.abs(two[0] - two[1]).max() > 10

    def test_first_frames_go_on(self, volano, classes_run, tmp_path):
        source = moving_square(10, (16, 16))
        write_clip(tmp_path / "start.mkv", source)
        result, err = self.generate(
            volano,
            classes_run,
            "--first-frames",
            tmp_path / "start.mkv",
            "--clips",
            "1",
            "--out",
            "made",
        )
        assert "the first 3 of 10 frames are given" in err
        made = [frame[::16, ::16].astype(int) for frame in frames_of(result["files"][0])]
        assert len(made) == 6
        for frame, real in zip(made[:3], source[:3], strict=True):
            assert np.abs(frame - real.astype(int)).mean() < 12  # H.264 is lossy

    def test_first_frames_of_another_size_and_fewer_than_the_context(
        self, volano, classes_run, tmp_path
    ):
        write_clip(tmp_path / "start.gif", moving_square(2, (40, 24)))
        result, err = self.generate(
            volano, classes_run, "--first-frames", "start.gif", "--clips", "1"
        )
        assert "40x24 are cut to a centred square and scaled to 16 pixels" in err
        assert "2 first frames; the model was tested with 3" in err
        assert len(frames_of(result["files"][0])) == 6

    def test_first_frames_that_a_short_clip_cuts_off(self, volano, classes_run, tmp_path):
        write_clip(tmp_path / "start.gif", moving_square(10, (16, 16)))
        _, err = self.generate(
            volano, classes_run, "--first-frames", "start.gif", "--clips", "1", "--frames", "2"
        )
        assert "the first 1 of 10 frames are given" in err
        assert "1 first frames; the model was tested with 3" in err

    def test_a_picture_is_a_first_frame(self, volano, classes_run, tmp_path):
        Image.fromarray(moving_square(1, (16, 16))[0]).save(tmp_path / "start.png")
        _, err = self.generate(volano, classes_run, "--first-frames", "start.png", "--clips", "1")
        assert "1 first frames; the model was tested with 3" in err

    def test_longer_than_the_window(self, volano, classes_run):
        result, err = self.generate(
            volano, classes_run, "--clips", "1", "--frames", "20", "--method", "heun"
        )
        assert (
            "20 frames are rolled out: windows of 6, each from the last 3 of the one before" in err
        )
        assert len(frames_of(result["files"][0])) == 20

    def test_a_class(self, volano, classes_run):
        slow, _ = self.generate(
            volano, classes_run, "--class", "slow", "--clips", "2", "--out", "slow"
        )
        fast, _ = self.generate(
            volano,
            classes_run,
            "--class",
            "fast",
            "--clips",
            "2",
            "--guidance",
            "4",
            "--out",
            "fast",
        )
        assert slow["class"] == "slow"
        assert not np.array_equal(frames_of(slow["files"][0]), frames_of(fast["files"][0]))

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (
                ["--class", "sideways"],
                2,
                "--class must be one of the run's classes; got 'sideways'. The run knows fast",
            ),
            (
                ["--first-frames", "gone.mp4"],
                2,
                "--first-frames must name a file; got gone.mp4, which is not there",
            ),
            (["--first-frames", "notes.txt"], 2, "--first-frames must name a clip or a picture"),
            (["--first-frames", "broken.mp4"], 1, "The first frames must be readable"),
            (["--clips", "0"], 2, "--clips must be a whole number from 1 to 10,000"),
            (["--steps", "0"], 2, "--steps must be a whole number from 1 to 1,000"),
            (
                ["--frames", "1", "--first-frames", "start.gif"],
                2,
                "Clips that continue first frames must have at least two",
            ),
            (["--method", "rk4"], 2, "--method must be one of euler, heun"),
            (["--guidance", "-1"], 2, "--guidance must be a number from 0 to 20"),
            (
                ["--fps", "0.05"],
                2,
                "--fps must be a number from 0.1 to 240 frames a second; got 0.05",
            ),
            (["--out", "notes.txt"], 2, "--out must name a folder that can be made"),
        ],
    )
    def test_what_cannot_be_meant(self, volano, classes_run, tmp_path, arguments, code, message):
        (tmp_path / "notes.txt").write_text("no clip")
        (tmp_path / "broken.mp4").write_bytes(b"no clip" * 99)
        write_clip(tmp_path / "start.gif", moving_square(8, (16, 16)))
        result, _, err = volano("generate", classes_run, *arguments)
        assert result == code
        assert message in err

    def test_a_class_where_there_are_none(self, volano, sample_run):
        code, _, err = volano("generate", sample_run, "--class", "7")
        assert code == 2
        assert "--class and --guidance are only for runs whose clips lay in class folders" in err

    def test_other_runs(self, volano, tmp_path):
        shutil.copytree(OF_IMAGES, "digits")
        code, _, err = volano("generate", "digits")
        assert code == 2
        assert "A run to generate from must be of an application that can: " in err
        code, _, err = volano("generate", "nowhere")
        assert code == 2
        assert "A run's folder must hold run.json" in err

    def test_without_an_encoder_for_h264(self, volano, classes_run, monkeypatch):
        codec = av.Codec

        def find(name, mode="r"):
            # PyAV itself says what it lacks.
            return codec("no-libx264" if name == "libx264" else name, mode)

        monkeypatch.setattr(av, "Codec", find)
        result, err = self.generate(volano, classes_run, "--clips", "1")
        assert "clips.mp4 is MPEG-4 part 2, which browsers do not play" in err
        assert Path(result["paths"]["mp4"]).is_file()
