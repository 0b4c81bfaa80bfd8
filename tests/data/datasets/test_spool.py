"""What an iterable gives comes back as it was, in any order."""

import os
import pickle
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import IterableDataset

import volano
from volano import spool
from volano.errors import DataError, TaskError


class Stream(IterableDataset):
    """Digits, one after the other; counts how often it is asked."""

    num_asked = 0

    def __iter__(self):
        self.num_asked += 1
        pixels, labels = load_digits(return_X_y=True)
        for row, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            yield {
                "pixels": torch.tensor(image, dtype=torch.uint8).view(8, 8),
                "label": int(label),
                "more": (
                    np.float32(row / 7),
                    image[: label + 1].astype(np.int16),
                    f"digit {row}",
                    bytes([label]),
                    True,
                ),
            }


def equal(mine, theirs):
    assert type(mine) is type(theirs)
    if isinstance(mine, torch.Tensor):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)
    elif isinstance(mine, np.ndarray | np.generic):
        assert mine.dtype == theirs.dtype
        assert np.array_equal(mine, theirs)
    elif isinstance(mine, dict):
        assert list(mine) == list(theirs)
        [equal(mine[key], theirs[key]) for key in mine]
    elif isinstance(mine, tuple | list):
        [equal(a, b) for a, b in zip(mine, theirs, strict=True)]
    else:
        assert mine == theirs


def test_examples_come_back_as_they_were(tmp_path):
    data = spool(Stream(), tmp_path / "digits")
    expected = list(Stream())
    assert len(data) == 1797
    for index in (0, 1, 1023, 1024, 1796, 5):
        equal(data[index], expected[index])
    [
        equal(mine, expected[i])
        for mine, i in zip(data.__getitems__([9, 1500, 9]), (9, 1500, 9), strict=True)
    ]
    with pytest.raises(IndexError):
        data[1797]


def test_the_iterable_is_asked_once(tmp_path):
    stream = Stream()
    first = spool(stream, tmp_path / "digits")
    again = spool(stream, tmp_path / "digits")
    assert stream.num_asked == 1
    assert again.fingerprint() == first.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_the_work_of_others_is_left_alone(tmp_path):
    other = tmp_path / f"a.partial-{os.getpid()}"
    other.mkdir()  # of a process with this one's number, on another machine
    (other / "work").write_text("of somebody else")

    def slow():
        yield 1
        spool([7, 8, 9], tmp_path / "a")  # somebody else, who ends earlier
        yield 2

    data = spool(slow(), tmp_path / "a")
    assert [data[index] for index in range(len(data))] == [7, 8, 9]
    assert (other / "work").read_text() == "of somebody else"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", other.name]


def test_others_may_read_it(tmp_path):
    (tmp_path / "plain").mkdir()
    spool([1], tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_digest_is_of_the_content(tmp_path):
    def lines(changed):
        for number, line in enumerate(
            Path(sysconfig.get_paths()["stdlib"], "argparse.py").read_text().splitlines()
        ):
            yield line + ("!" if number == changed else "")

    digests = {
        spool(lines(changed), tmp_path / str(changed)).fingerprint() for changed in (None, 3, 2000)
    }
    assert len(digests) == 3


def test_an_endless_one_has_a_limit(tmp_path):
    import itertools

    assert [spool(itertools.count(), tmp_path / "a", limit=5)[i] for i in range(5)] == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_it_travels_as_a_path(tmp_path):
    data = spool(Stream(), tmp_path / "digits")
    content = pickle.dumps(data)
    assert len(content) < 1000
    equal(pickle.loads(content)[7], data[7])


def test_examples_are_the_callers_own(tmp_path):
    data = spool([torch.zeros(3)], tmp_path / "a")
    data[0].fill_(1)
    assert data[0].sum() == 0


def test_an_empty_tensor_and_bf16(tmp_path):
    examples = [(torch.zeros(0, 3), torch.ones(2, dtype=torch.bfloat16), torch.tensor(4).short())]
    equal(spool(examples, tmp_path / "a")[0], examples[0])


class TestWhatIsRefused:
    def test_another_structure(self, tmp_path):
        with pytest.raises(
            DataError,
            match=r"alike in structure and types; got example 2 of \('int', 'str'\), the first of "
            r"\('int', 'int'\)",
        ):
            spool([(1, 2), (3, 4), (5, "six")], tmp_path / "a")
        assert not list(tmp_path.iterdir())

    def test_another_type(self, tmp_path):
        with pytest.raises(DataError, match=r"got a set at example 0\['x'\]\[1\]"):
            spool([{"x": [1, {2}]}], tmp_path / "a")

    def test_nothing(self, tmp_path):
        with pytest.raises(DataError, match="at least one example"):
            spool([], tmp_path / "a")

    def test_a_damaged_folder(self, tmp_path):
        spool([1, 2, 3], tmp_path / "a")
        path = tmp_path / "a" / "examples.arrow"
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(DataError, match=r"complete folder.*Remove it"):
            spool([1, 2, 3], tmp_path / "a")

    def test_an_iterable_that_raises_leaves_nothing(self, tmp_path):
        def broken():
            yield 1
            raise KeyError("no")

        with pytest.raises(KeyError):
            spool(broken(), tmp_path / "a")
        assert not list(tmp_path.iterdir())

    def test_a_file_that_the_iterable_cannot_read_is_not_one_that_cannot_be_written(self, tmp_path):
        def broken():
            yield 1
            yield (tmp_path / "none").read_text()

        with pytest.raises(FileNotFoundError, match="none"):
            spool(broken(), tmp_path / "a")
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match=r"must be writable to spool examples; got .*/a: "):
            spool([1], tmp_path / "file" / "a")


def test_a_task_says_how(make_task):
    with pytest.raises(TaskError, match=r"map-style.*got Stream\. .*volano\.spool\(data, folder\)"):
        make_task(data=Stream())


def test_a_run_on_a_spooled_stream(make_task, tmp_path):
    def objective(model, batch):
        return torch.nn.functional.cross_entropy(
            model(batch["pixels"].flatten(1).float() / 16), batch["label"]
        )

    def simple():
        for example in Stream():
            yield {"pixels": example["pixels"], "label": example["label"]}

    data = spool(simple(), tmp_path / "data", limit=512)
    run = volano.train(
        make_task(data=data, valid=None, objective=objective),
        out=tmp_path / "run",
        observer=volano.Observer(),
    )
    assert run.metrics["train_loss"] < 1.5
