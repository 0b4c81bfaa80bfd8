"""A fourth application, in one file: predicts a number from the other columns of a CSV table.

    APP=examples/table/application.py:TableApplication
    volano train $APP houses.csv --target price --minutes 1
    volano eval RUN --trust            # on the rows held out; or: volano eval RUN more.csv --trust
    volano predict RUN new.csv --trust
    volano explain $APP houses.csv --target price
    volano explore $APP houses.csv --target price --trials 32
    volano report RUN

Options, checks, help, planning, feeding, checkpoints, resuming, reports and studies come from
Volano. What is here is what differs: how a table is read, which network learns it, and which
figures say how well.
"""

import csv
import functools
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import volano
from volano.apps.options import not_tried, tried_around
from volano.apps.predictions import Predictions
from volano.data import Fault
from volano.errors import DataError, UsageError
from volano.training import RunFolder, load_tensors, load_weights, save_tensors

HELD_OUT = "held-out.safetensors"


@dataclass(frozen=True, kw_only=True)
class TableOptions(volano.Options):
    """Each option is declared once; `--width` and its checks follow from it."""

    target: str | None = volano.option(None, "The column to predict; without it, the last one.")
    width: int = volano.option(64, "Units of the hidden layers.", at_least=1, at_most=4096)


@dataclass(frozen=True, kw_only=True)
class TableRecipe:
    """The numbers of a training; a study tries the learning rate around its own."""

    batch_size: int = not_tried()
    lr: float = tried_around(10.0)
    weight_decay: float


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """What it takes to feed the network again, kept in `table.json`."""

    columns: list[str]
    target: str
    width: int
    mean: list[float]
    std: list[float]


def make_network(spec: TableSpec) -> torch.nn.Module:
    """Columns fp32 [N, columns] in, the target fp32 [N] out, both in deviations from their
    means."""
    return torch.nn.Sequential(
        torch.nn.Linear(len(spec.columns), spec.width),
        torch.nn.SiLU(),
        torch.nn.Linear(spec.width, spec.width),
        torch.nn.SiLU(),
        torch.nn.Linear(spec.width, 1),
        torch.nn.Flatten(0),
    )


def squared_error(model, batch):
    inputs, targets = batch
    return torch.nn.functional.mse_loss(model(inputs), targets)


@dataclass(frozen=True, kw_only=True)
class TableApplication(volano.Application):
    """Rows of a table, standardised, a fifth of them held out."""

    kind = "table"
    options_type = TableOptions
    default_minutes = 0.5
    final_metric = "test_r2"
    data_name = "rows"
    next_words = ("predict RUN FILE", "eval RUN FILE")

    options: TableOptions
    spec: TableSpec
    train: torch.Tensor
    test: torch.Tensor
    origin: str
    faults: tuple = ()
    notices: tuple = ()
    is_held_out: bool = True

    @classmethod
    def read(cls, options, scratch=None):  # noqa: ARG003
        if options.path is None:
            raise DataError("A table must be named: a CSV file", got="no path")
        names, rows, faults = read_rows(Path(options.path))
        target = options.target or names[-1]
        if target not in names:
            raise DataError(
                "`target` must be a column of the table",
                got=target,
                remedy=f"There are: {', '.join(names)}",
            )
        names = [name for name in names if name != target] + [target]
        rows = torch.tensor([[row[name] for name in names] for row in rows])
        if len(rows) < 20:
            raise DataError(
                "A table to train on must have at least 20 rows of numbers",
                got=f"{len(rows)} in {options.path}",
            )
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(options.seed))
        test, train = rows[order[: len(rows) // 5]], rows[order[len(rows) // 5 :]]
        mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
        spec = TableSpec(
            columns=names[:-1],
            target=target,
            width=options.width,
            mean=mean.tolist(),
            std=std.tolist(),
        )
        return cls(
            options=options,
            spec=spec,
            train=(train - mean) / std,
            test=(test - mean) / std,
            origin=f"{len(rows):,} rows of {Path(options.path).name}",
            faults=tuple(faults),
            notices=(
                f"{target} from {', '.join(names[:-1])}",
                *(f"left out: {fault.reason}" for fault in faults[:3]),
            ),
        )

    def recipe_of(self, num_steps):  # noqa: ARG002
        return TableRecipe(batch_size=min(64, len(self.train)), lr=3e-3, weight_decay=0.01)

    def steps_in(self, epochs):
        return max(1, round(epochs * (len(self.train) // self.recipe_of(1).batch_size)))

    def task(self, num_steps, recipe=None):
        recipe = recipe or self.recipe_of(num_steps)
        parts = [
            torch.utils.data.TensorDataset(part[:, :-1], part[:, -1])
            for part in (self.train, self.test)
        ]
        return volano.Task(
            name="table",
            model=functools.partial(make_network, self.spec),
            objective=squared_error,
            data=parts[0],
            valid=parts[1],
            optimizer=functools.partial(
                torch.optim.AdamW, lr=recipe.lr, weight_decay=recipe.weight_decay
            ),
            schedule=volano.cosine(warmup=0.05),
            batch_size=recipe.batch_size,
            duration=f"{num_steps}st",
            evaluate_every=f"{max(1, num_steps // 5)}st",
            seed=self.options.seed,
        )

    def write(self, folder, scratch):  # noqa: ARG002
        folder.write_json("table.json", asdict(self.spec))
        # The run's own, whatever rows the file has later.
        save_tensors({"test": self.test}, folder.path / HELD_OUT)

    def finish(self, run, task):  # noqa: ARG002
        if run.status != "finished":
            return volano.Finished()
        scores = scores_of(run.model, self.spec, self.test)
        RunFolder(run.path).write_json("eval-test.json", scores)
        return volano.Finished(metrics={"test_r2": scores["r2"], "test_error": scores["error"]})

    @classmethod
    def load(cls, folder, device=None):
        spec = TableSpec(**folder.read_json("table.json"))
        network = make_network(spec)
        load_weights(network, folder.path / "model.safetensors")
        return TableModel(folder, network, spec, device)

    @staticmethod
    def summary(run):
        return [
            f"R2 {run.metrics['test_r2']:.4f} on rows held out (1 is perfect, 0 is the mean of all)"
        ]


class TableModel(volano.TrainedModel):
    """A trained network, with the description of its columns."""

    def __init__(self, folder, network, spec, device=None):
        super().__init__(folder, network, device)
        self.spec = spec

    def evaluate(self, path=None):
        if path is None:
            rows, faults = load_tensors(self.path / HELD_OUT)["test"], []
        else:
            rows, faults = self._rows(path, [*self.spec.columns, self.spec.target])
        return {
            **scores_of(self.module, self.spec, rows),
            "unreadable": [asdict(fault) for fault in faults],
        }

    def predict(self, files):
        rows, faults = [], []
        for file in [files] if isinstance(files, str | Path) else files:
            inputs, bad = self._rows(file, self.spec.columns)
            faults += bad
            with torch.inference_mode():
                values = self.module(self.device.move(inputs)) * self.spec.std[-1]
            rows += [
                ValuePrediction(path=f"{file}:{number}", column=self.spec.target, value=value)
                for number, value in enumerate((values + self.spec.mean[-1]).tolist(), 2)
            ]
        if not rows:
            raise DataError("At least one of the rows must be readable", got=f"none of {files}")
        return Predictions(run=self.path, rows=rows, unreadable=faults)

    def _rows(self, path, columns):
        """The columns of a file fp32 [N, columns], standardised as in training, and the rows that
        are not numbers."""
        names, rows, faults = read_rows(Path(path), columns)
        missing = sorted(set(columns) - set(names))
        if missing:
            raise DataError(
                "A table must have the columns of the run's",
                got=f"none called {', '.join(missing)}",
            )
        mean, std = (
            torch.tensor(values[: len(columns)]) for values in (self.spec.mean, self.spec.std)
        )
        return (
            torch.tensor([[row[name] for name in columns] for row in rows]) - mean
        ) / std, faults


@dataclass(frozen=True, kw_only=True)
class ValuePrediction:
    """The predicted number of a row."""

    path: str
    column: str
    value: float

    @property
    def columns(self):
        return ["row", self.column]

    @property
    def cells(self):
        return [self.path, self.value]

    def to_json(self):
        return {"path": self.path, self.column: self.value}


def scores_of(network, spec, rows):
    """R2 and root mean squared error (in the target's own unit) of standardised rows fp32 [N,
    columns + 1]."""
    rows = rows.to(next(network.parameters()).device)
    with torch.inference_mode():
        errors = network.eval()(rows[:, :-1]) - rows[:, -1]
    variance = rows[:, -1].var(unbiased=False).item()
    r2 = 1 - errors.square().mean().item() / variance if variance else math.nan
    return {
        "num_rows": len(rows),
        "r2": r2,
        "error": errors.square().mean().sqrt().item() * spec.std[-1],
    }


def read_rows(path, columns=None):
    """The names of a file's columns, its rows as name -> number, and the rows that hold something
    else."""
    if not path.is_file():
        raise UsageError("The table must exist", got=path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows, faults = [], []
        for row in reader:
            try:
                rows.append(
                    {name: float(row[name]) for name in columns or reader.fieldnames if name in row}
                )
            except (TypeError, ValueError):
                faults.append(
                    Fault(
                        reader.line_num - 2,
                        f"{path}:{reader.line_num}",
                        f"line {reader.line_num}: {row}",
                    )
                )
    return list(reader.fieldnames or []), rows, faults
