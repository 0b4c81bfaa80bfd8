"""Digests tell whether what a task calls is still what it was."""

import functools
import os
import subprocess
import sys
import types

import pytest
import torch
from torch import nn

from volano.task.code_digest import code_digest, module_code


def compiled(source: str):
    names: dict = {"nn": nn}
    exec(source, names)
    return names["made"]


def digest(source: str) -> str:
    return code_digest(compiled(source))


def test_the_code_counts_and_not_the_object():
    first = "def made(x):\n    return x + 1"
    assert digest(first) == digest(first)
    assert (
        len({digest(first), digest(first.replace("1", "2")), digest(first.replace("+", "-"))}) == 3
    )


def test_functions_within_count_and_their_addresses_do_not():
    first = "def made(x):\n    return (lambda y: y + 1)(x)"
    assert digest(first) == digest(first) != digest(first.replace("1", "2"))


def test_what_a_function_was_made_with_counts():
    def scaled(x, factor):
        return x * factor

    digests = {code_digest(functools.partial(scaled, factor=factor)) for factor in (1, 2)}
    assert len(digests | {code_digest(scaled)}) == 3


def test_an_object_that_can_be_called_has_its_classs_code():
    source = "class Made:\n    def __call__(self, x):\n        return x + 1\nmade = Made()"
    assert digest(source) == digest(source) != digest(source.replace("1", "2"))


def test_forward_passes_of_ones_own_count_and_torchs_do_not():
    source = "class Net(nn.Module):\n    def forward(self, x):\n        return x + 1\nmade = Net()"

    def model(source, *more):
        return nn.Sequential(compiled(source), *more)

    assert (
        module_code(model(source))
        == module_code(model(source, nn.ReLU()))
        != module_code(nn.ReLU())
    )
    assert module_code(model(source)) != module_code(model(source.replace("1", "2")))


def test_values_of_arguments_that_are_not_given_count():
    first = "def made(x, scale=1, *, shift=0):\n    return x * scale + shift"
    others = (first.replace("scale=1", "scale=2"), first.replace("shift=0", "shift=3"))
    assert len({digest(first), digest(first), *map(digest, others)}) == 3


def test_functions_of_ones_other_modules_count(tmp_path):
    def of_module(body, file):
        module = types.ModuleType("losses")
        module.__file__ = str(file)
        exec(f"def total(x):\n    return {body}", vars(module))
        made = compiled("def made(x):\n    return losses.total(x)")
        made.__globals__["losses"] = module
        return code_digest(made)

    own = tmp_path / "losses.py"
    assert of_module("x", own) == of_module("x", own) != of_module("x + 1", own)
    assert of_module("x", nn.__file__) == of_module("x + 1", nn.__file__)


# ---- what code reads

READ = {
    "a constant": "S = 2.0\ndef made(x):\n    return x * S",
    "an entry": "C = {'s': 2.0, 'resume': False}\ndef made(x):\n    return x * C['s']",
    "a list": "SCALES = [1.0, 2.0]\ndef made(x):\n    return x * SCALES[-1]",
    "a weight": "W = torch.tensor([1.0, 2.0])\ndef made(x):\n    return x * W",
    "a function's": "S = 2.0\ndef f(x):\n    return x * S\ndef made(x):\n    return f(x)",
    "a default of another": "def f(x, s=(1, 2.0)):\n    return x\ndef made(x):\n    return f(x)",
    "a loss": "f = nn.HuberLoss(delta=2.0)\ndef made(x):\n    return f(x, x)",
    "a closure": "def outer(s):\n    return lambda x: x * s\nmade = outer(2.0)",
    "a partial": "def f(x, s):\n    return x\nmade = functools.partial(f, s=2.0)",
    "behind a decorator": "@torch.no_grad()\ndef made(x):\n    return x * 2.0",
    "a cached one": "@functools.cache\ndef made(x):\n    return x * 2.0",
    "a table": """
def f(x):
    return x * 2.0
TABLE = {"f": f}
def made(x):
    return TABLE["f"](x)""",
    "an object": """
class Made:
    def __init__(self, s):
        self.s = s
    def __call__(self, x):
        return x * self.s
made = Made(2.0)""",
    "a class's": """
class Made:
    s = 2.0
    def __call__(self, x):
        return self.t(x)
    def t(self, x):
        return x * self.s
made = Made()""",
    "a property": """
class Made:
    @property
    def s(self):
        return 2.0
    def __call__(self, x):
        return x * self.s
made = Made()""",
    "a parent's": """
class Base:
    def loss(self, x):
        return x * 2.0
class Made(Base):
    def loss(self, x):
        return super().loss(x)
made = Made().loss""",
    "a decorator": """
def twice(f):
    @functools.wraps(f)
    def inner(x):
        return f(x) * 2.0
    return inner
@twice
def made(x):
    return x""",
}


def read(source):
    names = {"nn": nn, "torch": torch, "functools": functools}
    exec(source, names)
    return code_digest(names["made"])


@pytest.mark.parametrize("source", READ.values(), ids=READ)
def test_what_is_read_counts(source):
    assert read(source) == read(source) != read(source.replace("2.0", "3.0"))


NOT_READ = {
    "another name": "OTHER = 2.0\ndef made(x):\n    return x",
    "another entry": "C = {'s': 1, 'resume': 2.0}\ndef made(x):\n    return x * C['s']",
    "a count": "num = 2.0\ndef made(x):\n    global num\n    num += 1\n    return x",
    "a record": "seen = [2.0]\ndef made(x):\n    seen.append(x)\n    return x",
    "an average": "m = torch.tensor(2.0)\ndef made(x):\n    m.mul_(0.9).add_(x)\n    return x - m",
    "a state": """
class Made:
    def __init__(self, s):
        self.s = s
    def __call__(self, x):
        self.s += 1
        return x
made = Made(2.0)""",
    "what another function sets": """
num = 2.0
def count():
    global num
    num += 1
def made(x):
    count()
    return x * num""",
    "what a method fills": """
class Made:
    def __init__(self):
        self.history, self.masks, self.center = [], {}, torch.tensor(0.0)
    def __call__(self, x):
        self.history.append(x)
        self.masks[x] = x
        self.center.mul_(0.9)
        return x - self.center
made = Made()
made(2.0)""",
    "a class's count": """
class Made:
    calls = 2.0
    def __call__(self, x):
        Made.calls += 1
        return x
made = Made()""",
    "a network's statistics": """
norm = nn.BatchNorm1d(1, affine=False)
norm.running_mean.fill_(2.0)
def made(x):
    return norm(x)""",
    "a weight that is trained": """
net = nn.Linear(1, 1)
net.bias.data.fill_(2.0)
def made(x):
    return net(x)""",
}


@pytest.mark.parametrize("source", NOT_READ.values(), ids=NOT_READ)
def test_what_changes_while_it_runs_does_not_count(source):
    names, others = ({"nn": nn, "torch": torch, "functools": functools} for _ in range(2))
    exec(source, names)
    exec(source.replace("2.0", "3.0"), others)
    assert code_digest(names["made"]) == code_digest(others["made"])


def test_it_is_the_same_in_every_process(tmp_path):
    """Sets have another order in each."""
    (tmp_path / "parts.py").write_text(
        "NAMES = {'a', 'b', 'c', 'd', 'e'}\n"
        + "".join(f"def f{n}(x):\n    return x * {n}\n" for n in range(9))
    )
    (tmp_path / "mine.py").write_text(
        "import parts\nTABLE = {parts.f7, parts.f8}\n"
        "def made(x):\n    return ("
        + " + ".join(f"parts.f{n}(x)" for n in range(7))
        + " + len(parts.NAMES), TABLE)\n"
    )
    program = (
        "from volano.task.code_digest import code_digest; import mine; "
        "print(code_digest(mine.made))"
    )
    found = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        made = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        found.add(made.stdout)
    assert len(found) == 1


def test_what_another_module_counts_does_not_count(tmp_path):
    def of_state(step):
        module = types.ModuleType("state")
        module.__file__ = str(tmp_path / "state.py")
        module.step = step  # pyright: ignore[reportAttributeAccessIssue]
        made = compiled("def made(x):\n    state.step += 1\n    return x")
        made.__globals__["state"] = module
        return code_digest(made)

    assert of_state(2) == of_state(3)


def test_a_device_may_be_another():
    source = "D = 'cpu'\ndef made(x):\n    return x.to(D)"
    assert read(source) == read(source.replace("cpu", "meta"))


def test_exotic_values_are_no_fault():
    class Odd:
        def __getattr__(self, name):
            raise RuntimeError(name)

    odd, loop = Odd(), []
    loop.append(loop)
    many = list(range(100_000))
    fake = torch.empty(3, device="meta")

    def made(x):
        return (x, odd, loop, many, fake, made)

    assert code_digest(made) == code_digest(made)


def test_numbers_of_thousands_of_digits():
    digits = "0x" + "f" * 5000  # more than Python writes as decimal ones
    first = f"BIG = {digits}\nSOME = frozenset((1, BIG))\ndef made(x, most={digits}):\n"
    first += f"    return x in (1, {digits}) or x in {{2, {digits}}} or x < BIG or x in SOME"
    assert digest(first) == digest(first)
    others = {digest(first.replace(f"(1, {digits}) or", f"(1, {digits[:-1]}e) or"))}
    others |= {digest(first.replace(f"BIG = {digits}", f"BIG = {digits[:-1]}e"))}
    others |= {digest(first.replace(f"most={digits}", f"most={digits[:-1]}e"))}
    assert len(others | {digest(first)}) == 4
