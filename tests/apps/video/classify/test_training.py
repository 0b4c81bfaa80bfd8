"""From clips in classes to a Task."""

import shutil

import pytest
import torch

from apps.video.classify.conftest import write_classes
from clips import moving_square, write_clip
from volano.apps.video.classify.options import ClipClassifyOptions
from volano.apps.video.classify.training import ClipClassifyTraining
from volano.errors import DataError


def read(path, **options):
    return ClipClassifyTraining.read(ClipClassifyOptions(path=str(path), num_frames=4, **options))


def test_each_file_is_one_example_of_any_length(application):
    train, test = application.train, application.test
    assert application.spec.classes == ("left", "right")
    assert train.frames.shape[1:] == (8, 3, 16, 16)
    assert len(train) + len(test) == 16
    assert not set(train.names) & set(test.names)
    assert set(test.labels.tolist()) == {0, 1}
    assert any("of 2 classes: left " in notice for notice in application.notices)
    assert any("flip=no" in notice for notice in application.notices)


def test_the_task_holds_all_frames_and_looks_at_some(application):
    task = application.task(5)
    frames, labels = task.data.tree
    views, _ = task.augment((frames, labels), torch.Generator())
    assert views.shape == (len(labels), 4, 3, 16, 16)
    assert task.valid.tree[0].shape[1] == 4
    assert task.model()(views[:2]).shape == (2, 2)
    assert application.recipe_of(5).batch_size == task.batch_size


def test_the_best_is_chosen_by_clips_that_are_not_tested(folder, application):
    best = read(folder, keep="best")
    assert best.test.names == application.test.names
    names = [set(part.names) for part in (best.train, best.valid, best.test)]
    assert sum(map(len, names)) == len(set.union(*names)) == 16
    assert "that are not trained on" in best.about_keeping()[0]


def test_frames_of_a_test_folder_are_tested(tmp_path):
    write_classes(tmp_path / "train", 2)
    write_classes(tmp_path / "val", 1)
    found = read(tmp_path)
    assert (len(found.train), len(found.test), found.is_held_out) == (4, 2, False)


def test_a_pretrained_network_is_fed_its_own_size(folder):
    found = read(folder, from_="pretrained_networks:small")
    assert found.spec.size == 8
    task = found.task(2)
    assert task.augment is None  # so that features can be kept
    model = task.model()
    assert not any(p.requires_grad for p in model.trunk.parameters())
    assert found.begun is found.begun
    assert found.network_in_words.startswith("pretrained_networks:small network at ")


class TestBadInput:
    def test_a_class_of_one_clip(self, tmp_path):
        write_classes(tmp_path, 2)
        (tmp_path / "left" / "1.gif").unlink()
        with pytest.raises(DataError, match="at least two different clips.*1 in class 'left'"):
            read(tmp_path)

    def test_no_class_folders(self, tmp_path):
        write_clip(tmp_path / "a.gif", moving_square(8, (16, 16)))
        write_clip(tmp_path / "b.gif", moving_square(8, (16, 16), speed=2))
        with pytest.raises(DataError, match="must lie in class folders.*a folder of its own"):
            read(tmp_path)

    def test_a_class_whose_clips_hold_no_frames(self, tmp_path):
        write_classes(tmp_path / "train", 6)
        write_classes(tmp_path / "test", 1)
        shutil.rmtree(tmp_path / "train" / "left")
        (tmp_path / "train" / "left").mkdir()
        (tmp_path / "train" / "left" / "a.gif").write_bytes(b"GIF89a")
        with pytest.raises(DataError, match=r"(At most .* unreadable|readable clips to train on)"):
            read(tmp_path)
