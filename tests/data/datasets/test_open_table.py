"""Local tables train like tensors, and what is wrong with one is said."""

import csv
import functools
import json
import sysconfig
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

import volano
from volano.errors import DataError, UsageError
from volano.task import describe

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:datasets")


@pytest.fixture(scope="module")
def rows():
    pixels, labels = load_digits(return_X_y=True)
    return [
        {"pixels": image.tolist(), "label": int(label), "name": f"d{n}"}
        for n, (image, label) in enumerate(zip(pixels[:512], labels[:512], strict=True))
    ]


def write(rows, folder, kind):
    path = folder / f"digits.{kind}"
    table = datasets.Dataset.from_list(rows)
    if kind == "parquet":
        table.to_parquet(path)
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind in ("feather", "file"):
        import pyarrow as pa
        from pyarrow import feather

        if kind == "feather":  # compressed, as pyarrow and pandas write it
            feather.write_feather(table.data.table, path)
        else:
            path = path.with_suffix(".arrow")
            with (
                pa.OSFile(str(path), "wb") as sink,
                pa.ipc.new_file(sink, table.data.table.schema) as writer,
            ):
                writer.write_table(table.data.table)
    elif kind == "arrow":
        import pyarrow as pa

        with (
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_stream(sink, table.data.table.schema) as writer,
        ):
            writer.write_table(table.data.table)
    else:
        table.save_to_disk(path)
    return path


def objective(model, batch):
    return torch.nn.functional.cross_entropy(model(batch["pixels"].float() / 16), batch["label"])


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "arrow", "file", "feather", "folder"])
def test_a_run_on_a_table_equals_one_on_tensors(rows, kind, make_task, tmp_path, capsys):
    table = volano.open_table(
        write(rows, tmp_path, kind), columns=["pixels", "label"], cache=tmp_path / "cache"
    )
    arrays = volano.Arrays(
        {
            "pixels": torch.tensor([row["pixels"] for row in rows]),
            "label": torch.tensor([row["label"] for row in rows]),
        }
    )

    def weights(data, name):
        task = make_task(data=data, valid=None, objective=objective, duration="1ep")
        run = volano.train(task, out=tmp_path / name, observer=volano.Observer())
        return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])

    assert torch.equal(weights(table, "table"), weights(arrays, "arrays"))
    assert "Generating" not in capsys.readouterr().err


def test_csv_has_texts_and_numbers(tmp_path):
    lines = Path(sysconfig.get_paths()["stdlib"], "textwrap.py").read_text().splitlines()
    path = tmp_path / "lines.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "length"), *((line or "-", len(line)) for line in lines)])
    table = volano.open_table(path, cache=tmp_path / "cache")
    assert len(table) == len(lines)
    assert table[3] == {"text": lines[3] or "-", "length": torch.tensor(len(lines[3]))}


def test_the_digest_is_of_the_content(rows, make_task, tmp_path):
    def digest(some, folder):
        folder.mkdir()
        task = make_task(
            data=volano.open_table(write(some, folder, "parquet"), cache=folder / "cache")
        )
        return describe(task, task.model())["data"]["content_digest"]

    first = digest(rows, tmp_path / "a")
    assert digest(rows, tmp_path / "b") == first  # another file, another day
    changed = [*rows[:8], {**rows[8], "label": rows[8]["label"] + 1}, *rows[9:]]
    assert digest(changed, tmp_path / "c") != first


def test_what_was_spooled_is_a_table_too(tmp_path):
    lines = Path(sysconfig.get_paths()["stdlib"], "textwrap.py").read_text().splitlines()
    volano.spool(lines, tmp_path / "lines")
    table = volano.open_table(tmp_path / "lines" / "examples.arrow")
    assert [row["0"] for row in table] == lines


def test_an_arrow_file_is_mapped_and_not_read(rows, tmp_path):
    import pyarrow as pa

    pixels = pa.table({"pixels": pa.array([row["pixels"] for row in rows] * 200)})
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, pixels.schema) as writer,
    ):
        writer.write_table(pixels)
    before = pa.total_allocated_bytes()
    table = volano.open_table(tmp_path / "a.arrow")
    assert pa.total_allocated_bytes() - before < pixels.nbytes / 10
    assert table[0]["pixels"].tolist() == rows[0]["pixels"]


def test_the_digest_of_a_transform_is_its_name(rows, make_task):
    def digest(transform):
        data = datasets.Dataset.from_list(rows).with_transform(transform)
        task = make_task(data=data)
        return describe(task, task.model())["data"]["content_digest"]

    def made():  # another address each time, as in another process
        def brighter(batch):
            return batch

        return brighter

    kept = [made(), made()]
    assert digest(kept[0]) == digest(kept[1]) != digest(functools.partial(kept[0], more=1))


class TestWhatIsRefused:
    def test_a_damaged_parquet(self, rows, tmp_path):
        path = write(rows, tmp_path, "parquet")
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(DataError, match=r"complete file of its kind; got .*digits\.parquet: "):
            volano.open_table(path, cache=tmp_path / "cache")

    def test_a_damaged_json(self, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n')
        with pytest.raises(DataError, match=r"complete file of its kind; got .*a\.jsonl"):
            volano.open_table(tmp_path / "a.jsonl", cache=tmp_path / "cache")

    def test_a_missing_column(self, rows, tmp_path):
        path = write(rows, tmp_path, "parquet")
        with pytest.raises(DataError, match="without text; it has pixels, label, name"):
            volano.open_table(path, columns=["text", "label"], cache=tmp_path / "cache")

    def test_an_empty_table(self, tmp_path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "a.parquet")
        with pytest.raises(DataError, match="at least one row"):
            volano.open_table(tmp_path / "a.parquet", cache=tmp_path / "cache")

    def test_no_file_and_other_files(self, tmp_path):
        with pytest.raises(UsageError, match="not there"):
            volano.open_table(tmp_path / "a.parquet")
        (tmp_path / "a.txt").touch()
        with pytest.raises(UsageError, match=r"must end in \.parquet"):
            volano.open_table(tmp_path / "a.txt")
