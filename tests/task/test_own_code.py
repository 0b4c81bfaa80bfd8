"""What a person wrote is told from what is installed."""

import argparse
import types

from torch import nn

from volano.task.own_code import NamesUsed, is_installed, is_own_class, is_own_module


class Own:
    def method(self):
        return 1


def test_installed_code_is_none_of_ones_own():
    assert not is_installed(Own.method.__code__)
    assert is_installed(nn.Linear.forward.__code__)
    assert is_installed(None)
    assert is_own_class(Own)
    assert not any(map(is_own_class, (nn.Linear, argparse.Namespace, int, types.FunctionType)))
    assert not any(map(is_own_module, (argparse, nn, types, None)))


def test_a_class_without_a_file_is_known_by_its_code():
    names = {}
    exec("class Made:\n    def __call__(self):\n        return 1", names)
    assert is_own_class(names["Made"])


def test_names_that_code_uses():
    def outer():
        count = 0

        def inner(config, state):
            nonlocal count
            count += len(config["key"])
            state.steps = 1
            return lambda: config.other

        return inner

    used = NamesUsed().add(outer().__code__)
    assert used.loaded == {"len"}
    assert used.stored == {"count"}
    assert used.attributes_set == {"steps"}
    assert used.all >= {"steps", "other"}
    assert "key" in used.texts
    assert not used.has_items_stored
