import functools
import json

import torch

import volano
from conftest import make_mlp
from volano.task import describe, describe_callable, differences
from volano.task.describe import describe_data


def test_the_description_is_json_and_says_what_differs(make_task):
    first = describe(make_task(), make_mlp())
    again = describe(make_task(), make_mlp())
    other = describe(make_task(batch_size=16, schedule=volano.cosine()), make_mlp())
    assert json.loads(json.dumps(first)) == first
    assert first["digest"] == again["digest"] != other["digest"]
    changed = differences(first, other)
    assert "batch_size: 32 != 16" in changed
    assert any("Cosine" in line for line in changed)


def test_a_module_is_the_same_imported_or_loaded_from_its_file(make_task):
    described = describe(make_task(), make_mlp())
    changed = {**described, "objective": f"volano_user_{described['objective']}"}
    assert differences(described, changed) == []


def test_other_data_has_another_digest(make_task, digits):
    pixels, labels = digits
    changed = pixels[:512].clone()
    changed[0] += 1
    other = make_task(data=torch.utils.data.TensorDataset(changed, labels[:512]))
    assert describe(make_task(), make_mlp())["digest"] != describe(other, make_mlp())["digest"]


def test_callables_are_named_without_addresses(make_task):
    text = json.dumps(
        describe(make_task(optimizer=functools.partial(torch.optim.AdamW, lr=1e-3)), make_mlp())
    )
    assert "0x" not in text
    assert "torch.optim.adamw.AdamW(lr=0.001)" in text


def test_a_subset_is_known_by_its_rows_and_by_what_is_behind_it(make_task, digits):
    pixels, labels = digits
    whole = torch.utils.data.TensorDataset(pixels, labels)
    other = torch.utils.data.TensorDataset(pixels + 1, labels)

    def described(data, rows):
        return describe(make_task(data=torch.utils.data.Subset(data, rows)), make_mlp())["data"]

    first = described(whole, range(100))
    assert json.loads(json.dumps(first)) == first
    assert described(whole, list(range(100))) == first
    assert described(whole, torch.arange(100)) == first
    assert described(whole, range(1, 101)) != first
    assert described(other, range(100)) != first


def test_the_rows_of_a_subset_may_be_names():
    def described(names):
        return describe_data(torch.utils.data.Subset({"a": 1, "b": 2}, names))

    assert described(["a", "b"]) == described(["a", "b"]) != described(["b", "a"])


class Linked:
    """An object that leads back to itself."""

    def __init__(self):
        self.parts = [self]


def test_what_leads_back_to_itself_ends():
    once, again = (describe_callable(functools.partial(make_mlp, Linked())) for _ in range(2))
    assert once == again
    assert "Linked({'parts': [...]})" in once


def test_a_digest_of_a_datas_own_is_a_text():
    class Data(list):
        def fingerprint(self):
            return b"1"

    assert json.dumps(describe_data(Data([1])))
