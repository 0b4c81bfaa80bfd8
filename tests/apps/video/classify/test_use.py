"""What was trained on clips is used."""

import pytest

import volano
from apps.video.classify.conftest import HOW
from clips import moving_square, write_clip
from volano.errors import DataError, UsageError


@pytest.fixture(scope="module")
def model(trained):
    return volano.load(trained, device="cpu")


def test_its_own_test_set_is_evaluated_again(model):
    result = model.evaluate()
    kept = model.folder.read_json("run.json")["metrics"]
    assert result["accuracy"] == kept["test_accuracy"]
    assert result["classes"] == ["left", "right"]
    table, accuracy = model.describe_evaluation(result)
    assert table.columns[1] == "clips"
    assert accuracy.startswith("accuracy ")


def test_its_report_says_which_classes_were_taken_for_which(trained):
    page = (trained.path / "report.html").read_text()
    assert "clip classifier" in page
    assert "of left taken for right" in page


def test_a_table_of_clips_is_evaluated(model, folder, tmp_path):
    table = folder / "some.csv"
    table.write_text("clip,label\nleft/0.gif,left\nright/1.gif,right\nright/2.gif,right\n")
    result = model.evaluate(table)
    table.unlink()
    assert result["num_examples"] == 3
    assert any("are among those that the run was trained on" in n for n in result["notices"])
    write_clip(tmp_path / "up" / "a.gif", moving_square(8, (16, 16)))
    write_clip(tmp_path / "left" / "a.gif", moving_square(8, (16, 16), speed=2))
    with pytest.raises(DataError, match="also up"):
        model.evaluate(tmp_path)


def test_files_of_any_length_are_predicted(model, tmp_path):
    write_clip(tmp_path / "one.gif", moving_square(1, (24, 16)))
    (tmp_path / "none.gif").write_bytes(b"GIF89a")
    found = model.predict(tmp_path, top_k=5)
    assert len(found) == 1
    assert sorted(name for name, _ in found[0].top) == ["left", "right"]
    assert [fault.path for fault in found.unreadable] == [str(tmp_path / "none.gif")]
    with pytest.raises(DataError, match="At least one of the clips must be readable"):
        model.predict(tmp_path / "none.gif")
    with pytest.raises(UsageError, match="must exist"):
        model.predict(tmp_path / "nothing.gif")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UsageError, match="named like a clip"):
        model.predict(tmp_path / "x.txt")


def test_it_is_exported(model, tmp_path):
    found = model.export("safetensors", tmp_path / "x.safetensors")
    assert found["largest_difference"] == 0.0
    assert found["input"] == [4, 3, 16, 16]
    with pytest.raises(UsageError, match="exported to one of"):
        model.export("gguf")


def test_a_head_on_an_image_network(folder, tmp_path):
    run = volano.train(
        "video", folder, classify=True, num_frames=4, epochs=1,
        from_="pretrained_networks:small", out=tmp_path / "run", **HOW,
    )  # fmt: skip
    loaded = volano.load(run, device="cpu")
    assert loaded.evaluate()["accuracy"] == run.metrics["test_accuracy"]
    assert any("accuracy to expect of a linear head" in notice for notice in run.notices)
    assert loaded.export("safetensors", tmp_path / "x.safetensors")["largest_difference"] == 0.0


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch, in its exporter
def test_a_program_takes_any_number_of_clips(model, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    found = model.export("onnx", tmp_path / "model.onnx")  # by way of a pt2
    assert found["num_compared"] > 2  # it was made of two
    assert found["largest_difference"] < 1e-4
