"""Memory-mapped arrays give what arrays in memory give."""

import json
import mmap
import pickle
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Subset

from volano import MemoryMapped
from volano.data import Arrays, Fetcher, Order, Quarantine, can_be_resident, make_feed
from volano.data.datasets import mapped
from volano.data.feed import fetch
from volano.device import Device
from volano.errors import DataError, TaskError
from volano.task import map_tensors, tensors_of

CPU = Device("cpu")


@pytest.fixture
def digits_on_disk(tmp_path):
    pixels, labels = load_digits(return_X_y=True)
    np.save(tmp_path / "pixels.npy", pixels.astype(np.uint8))
    np.save(tmp_path / "labels.npy", labels.astype(np.int64))
    return {"x": tmp_path / "pixels.npy", "y": tmp_path / "labels.npy"}


@pytest.fixture
def tokens(tmp_path):
    """The bytes of a module of the standard library, as uint16 tokens."""
    source = Path(sysconfig.get_paths()["stdlib"], "argparse.py").read_bytes()
    values = np.frombuffer(source, dtype=np.uint8).astype(np.uint16)
    np.save(tmp_path / "tokens.npy", values)
    return tmp_path / "tokens.npy", values


def in_memory(paths):
    return Arrays({name: torch.from_numpy(np.load(path)) for name, path in paths.items()})


def batches(data, *, feed, workers=0):
    made = make_feed(
        data,
        None,
        CPU,
        feed=feed,
        workers=workers,
        prefetch=2,
        seed=0,
        quarantine=Quarantine(len(data)),
    )
    order = Order(num_examples=len(data), batch_size=64, seed=1)
    return [[t.clone() for t in tensors_of(batch)] for batch in made.batches(order.keys(0, 40))]


@pytest.mark.parametrize(("feed", "workers"), [("resident", 0), ("ring", 0), ("ring", 1)])
def test_the_same_batches_as_from_memory(digits_on_disk, feed, workers):
    expected = batches(in_memory(digits_on_disk), feed="resident")
    found = batches(MemoryMapped(digits_on_disk), feed=feed, workers=workers)
    assert all(
        torch.equal(a, b)
        for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_a_subset_reads_nothing_but_its_rows(digits_on_disk):
    rows = [5, 1700, 3, 3]
    data = Subset(Subset(MemoryMapped(digits_on_disk), range(1796, -1, -1)), rows)
    batch, _ = Fetcher(data, None, 0)(Order(num_examples=4, batch_size=4, seed=0).key(0))
    expected = in_memory(digits_on_disk).tree["x"][
        [1796 - rows[i] for i in Order(num_examples=4, batch_size=4, seed=0).key(0).indices]
    ]
    assert torch.equal(batch["x"], expected)


def test_examples_are_the_callers_own(digits_on_disk):
    data = MemoryMapped(digits_on_disk)
    before = data[7]["x"].clone()
    data[7]["x"].fill_(9)
    assert torch.equal(data[7]["x"], before)
    assert len(data) == 1797


def test_windows_of_a_stream_of_tokens(tokens):
    path, values = tokens
    data = MemoryMapped(path, window=33, stride=32)
    assert len(data) == (len(values) - 33) // 32 + 1
    assert data[0].dtype == torch.uint16
    for index in (0, 5, len(data) - 1):
        assert np.array_equal(data[index].numpy(), values[32 * index : 32 * index + 33])
    batch, _ = Fetcher(data, None, 0)(Order(num_examples=len(data), batch_size=8, seed=0).key(3))
    assert batch.is_contiguous()
    indices = Order(num_examples=len(data), batch_size=8, seed=0).key(3).indices
    assert np.array_equal(batch.numpy(), np.stack([values[32 * i : 32 * i + 33] for i in indices]))
    assert len(MemoryMapped(path, window=32)) == len(values) // 32


def test_it_travels_as_paths(digits_on_disk):
    data = MemoryMapped(digits_on_disk)
    content = pickle.dumps(data)
    assert len(content) < 1000
    assert torch.equal(pickle.loads(content).tree["x"], data.tree["x"])


def test_a_large_one_stays_on_disk(digits_on_disk, monkeypatch):
    data = MemoryMapped(digits_on_disk)
    assert can_be_resident(data, None, CPU) == (True, "0.1 MiB lie in mapped files")
    monkeypatch.setattr(Device, "free_bytes", lambda self: 200_000)
    assert not can_be_resident(data, None, CPU)[0]
    assert can_be_resident(Subset(data, [1, 2]), None, CPU)[0]
    # What is in memory is in memory.
    assert can_be_resident(in_memory(digits_on_disk), None, CPU)[0]


@pytest.mark.parametrize("feed", ["ring", "resident"])
def test_rows_that_come_from_a_disk_are_announced(feed, digits_on_disk, tokens, monkeypatch):
    monkeypatch.setattr(fetch, "_DISK_SECONDS_PER_ROW", 0.0)  # as if every row did
    told = []
    monkeypatch.setattr(
        MemoryMapped,
        "announce",
        lambda self, indices, old=MemoryMapped.announce: told.append(indices) or old(self, indices),
    )
    found = batches(MemoryMapped(digits_on_disk), feed=feed)
    expected = batches(in_memory(digits_on_disk), feed="resident")
    # The first three were asked for before the first one was read.
    assert len(told) == len(found) - 3
    assert all(
        torch.equal(a, b)
        for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    data = MemoryMapped(tokens[0], window=33, stride=32)
    data.announce(torch.tensor([0, len(data) - 1]))  # up to the last byte of the file


class Elsewhere:
    """A device with memory of its own."""

    is_cpu, can_pin = False, False

    def __init__(self, told):
        self.told = told

    def free_bytes(self):
        return None

    def move(self, tree):
        self.told.append("read")
        return map_tensors(torch.clone, tree)


class Told:
    """A mapping that keeps what it is advised of."""

    def __init__(self, told):
        self.told = told

    def madvise(self, advice, *extent):
        self.told.append(advice)


@pytest.mark.parametrize(
    ("row_bytes", "usual"),
    [(mapped._SHORT_ROW_BYTES, mmap.MADV_RANDOM), (0, mmap.MADV_NORMAL)],
    ids=["short", "long"],
)
def test_a_whole_file_is_read_in_sequence(digits_on_disk, monkeypatch, row_bytes, usual):
    monkeypatch.setattr(mapped, "_SHORT_ROW_BYTES", row_bytes)
    data, told = MemoryMapped(digits_on_disk["x"]), []
    data._extents = [extent._replace(mapping=Told(told)) for extent in data._extents]
    settings = {
        "feed": "resident",
        "workers": 0,
        "prefetch": 2,
        "seed": 0,
        "quarantine": Quarantine(len(data)),
    }
    make_feed(data, None, Elsewhere(told), **settings)
    assert told == [mmap.MADV_SEQUENTIAL, "read", usual]
    told.clear()
    make_feed(Subset(data, [1700, 3]), None, Elsewhere(told), **settings)
    assert told == [mmap.MADV_WILLNEED, mmap.MADV_WILLNEED, "read"]  # nothing but its rows


class TestFingerprint:
    def test_it_tells_content_apart(self, digits_on_disk):
        first = MemoryMapped(digits_on_disk).fingerprint()
        assert MemoryMapped(digits_on_disk).fingerprint() == first
        labels = np.load(digits_on_disk["y"])
        labels[1000] += 1
        np.save(digits_on_disk["y"], labels)
        assert MemoryMapped(digits_on_disk).fingerprint() != first

    def test_windows_belong_to_it(self, tokens):
        assert (
            MemoryMapped(tokens[0], window=8).fingerprint()
            != MemoryMapped(tokens[0], window=9).fingerprint()
        )

    def test_of_a_large_file_blocks_are_read(self, tokens, monkeypatch):
        path, values = tokens
        monkeypatch.setattr(mapped, "_WHOLE_BYTES", 1000)
        monkeypatch.setattr(mapped, "_NUM_BLOCKS", 4)
        monkeypatch.setattr(mapped, "_BLOCK_BYTES", 100)
        first = MemoryMapped(path).fingerprint()
        for place, is_seen in ((0, True), (-1, True), (60, False)):
            changed = values.copy()
            changed[place] += 1
            np.save(path, changed)
            assert (MemoryMapped(path).fingerprint() != first) == is_seen


class TestWhatIsRefused:
    def test_no_file(self, tmp_path):
        with pytest.raises(DataError, match=r"complete \.npy file; got .*none\.npy"):
            MemoryMapped(tmp_path / "none.npy")

    def test_a_truncated_file(self, digits_on_disk):
        path = digits_on_disk["x"]
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(DataError, match=r"complete \.npy file; got .*pixels\.npy"):
            MemoryMapped(path)

    def test_objects_are_not_unpickled(self, tmp_path):
        np.save(tmp_path / "o.npy", np.array([{}, []], dtype=object), allow_pickle=True)
        with pytest.raises(DataError, match=r"complete \.npy file"):
            MemoryMapped(tmp_path / "o.npy")

    def test_an_archive(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=np.zeros(3))
        with pytest.raises(DataError, match="single .npy file"):
            MemoryMapped(tmp_path / "a.npz")

    @pytest.mark.parametrize(
        "array", [np.zeros((3, 4), order="F"), np.zeros(3, dtype=">i4"), np.array(["a", "b"])]
    )
    def test_other_layouts(self, tmp_path, array):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(DataError, match="plain numbers"):
            MemoryMapped(tmp_path / "a.npy")

    def test_lengths_and_windows(self, tmp_path, tokens):
        np.save(tmp_path / "three.npy", np.zeros(3))
        with pytest.raises(TaskError, match="same length"):
            MemoryMapped((tokens[0], tmp_path / "three.npy"))
        with pytest.raises(TaskError, match="at least one window"):
            MemoryMapped(tmp_path / "three.npy", window=4)
        with pytest.raises(TaskError, match="without a window"):
            MemoryMapped(tmp_path / "three.npy", stride=4)
        with pytest.raises(TaskError, match="window` must be a whole number"):
            MemoryMapped(tmp_path / "three.npy", window=0)


def test_a_run_on_mapped_data_equals_one_on_tensors(digits_on_disk, make_task, tmp_path, quiet):
    import volano

    def objective(model, batch):
        return torch.nn.functional.cross_entropy(model(batch["x"].float() / 16), batch["y"])

    def weights(data):
        fields = {"data": data, "valid": None, "objective": objective}
        run = volano.train(make_task(**fields), out=tmp_path / type(data).__name__, observer=quiet)
        return torch.cat([p.detach().flatten() for p in run.model.parameters()])

    assert torch.equal(weights(MemoryMapped(digits_on_disk)), weights(in_memory(digits_on_disk)))
    # The default for mapped files is the feed that tells the disk, and is said.
    assert json.loads((tmp_path / "MemoryMapped" / "plan.json").read_text())["feed"] == "ring"
    assert json.loads((tmp_path / "Arrays" / "plan.json").read_text())["feed"] == "resident"
    assert any("feed=ring: 0.1 MiB lie in mapped files" in notice for notice in quiet.notices)
