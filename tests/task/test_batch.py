import collections
from collections import namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from volano.errors import TaskError
from volano.task import map_tensors, num_bytes, num_examples, split, tensors_of

Pair = namedtuple("Pair", ["left", "right"])


def trees(count: int) -> st.SearchStrategy:
    leaf = st.sampled_from([torch.arange(count), torch.arange(2.0 * count).view(count, 2)])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3),
            st.tuples(inner, inner),
            st.dictionaries(st.sampled_from("abc"), inner, min_size=1),
            st.builds(Pair, inner, inner),
        ),
        max_leaves=6,
    )


@given(st.data(), st.integers(1, 9), st.integers(1, 12))
def test_the_pieces_of_a_split_make_up_the_batch(data, count, size):
    batch = data.draw(trees(count))
    pieces = split(batch, size)
    assert [num_examples(piece) for piece in pieces] == [size] * (count // size) + (
        [count % size] if count % size else []
    )
    for whole, *parts in zip(
        tensors_of(batch), *(tensors_of(piece) for piece in pieces), strict=True
    ):
        assert torch.equal(torch.cat(parts), whole)


@given(trees(4))
def test_mapping_keeps_the_shape_of_the_tree(batch):
    same = map_tensors(lambda tensor: tensor, batch)
    assert type(same) is type(batch)
    assert [tensor.data_ptr() for tensor in tensors_of(same)] == [
        tensor.data_ptr() for tensor in tensors_of(batch)
    ]


def test_lists_of_strings_are_cut_with_the_batch():
    first, second = split(
        {"x": torch.arange(4), "names": ["a", "b", "c", "d"], "scale": torch.tensor(2.0)}, 3
    )
    assert first["names"] == ["a", "b", "c"]
    assert second["names"] == ["d"]
    assert second["scale"] == 2.0


def test_bytes_are_counted():
    assert num_bytes((torch.zeros(3, dtype=torch.uint8), {"y": torch.zeros(2, 2)})) == 3 + 16


def test_a_batch_without_tensors_is_refused():
    with pytest.raises(TaskError, match="at least one tensor"):
        num_examples({"text": ["a"]})


def test_a_tensor_of_another_length_is_refused():
    with pytest.raises(TaskError, match="examples along dimension 0; got 4 and 12"):
        split({"tokens": torch.zeros(12, 3), "lengths": torch.zeros(4)}, 6)


class Sharing:
    """A mapping by its methods, of which copy.copy makes one with the same items."""

    def __init__(self, items):
        self.items_by_name = items

    def keys(self):
        return self.items_by_name.keys()

    def __getitem__(self, name):
        return self.items_by_name[name]

    def __setitem__(self, name, value):
        self.items_by_name[name] = value


@pytest.mark.parametrize("kind", [collections.UserDict, collections.OrderedDict, Sharing])
def test_mappings_keep_their_class(kind):
    batch = kind({"x": torch.arange(4), "y": torch.ones(4)})
    doubled = map_tensors(lambda tensor: tensor * 2, batch)
    first, second = split(batch, 2)
    assert {type(doubled), type(first), type(second)} == {kind}
    assert doubled["x"].tolist() == [0, 2, 4, 6]
    assert (first["x"].tolist(), second["x"].tolist()) == ([0, 1], [2, 3])
    assert batch["x"].tolist() == [0, 1, 2, 3]


def test_a_mapping_that_cannot_be_made_again_is_refused():
    class Closed(Sharing):
        def __init__(self, one, two):
            super().__init__({"x": one, "y": two})

    with pytest.raises(TaskError, match=r"must be copied by copy.copy.*Closed.*__copy__"):
        map_tensors(lambda tensor: tensor + 1, Closed(torch.ones(2), torch.ones(2)))


def test_a_batch_that_is_one_piece_is_not_taken_apart():
    batch = {"labels": torch.arange(3), "words": torch.arange(17)}
    assert split(batch, 3)[0] is batch
    with pytest.raises(TaskError, match="dimension 0; got 17 and 3"):
        split(batch, 2)


def test_sparse_tensors_are_cut():
    parts = split((torch.eye(3).to_sparse(), torch.arange(3)), 2)
    assert [part[0].to_dense().shape for part in parts] == [(2, 3), (1, 3)]
