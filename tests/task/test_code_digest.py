"""Digests tell whether what a task calls is still what it was."""

import functools
import types

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
