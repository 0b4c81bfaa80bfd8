"""Examples that differ in what a mean may be taken over."""

import torch

from volano.planner.parity.pick_examples import most_unlike, unlikeness


def padded(*lengths):
    """Labels [examples, 8], of which some are ignored after so many places."""
    labels = torch.arange(8).repeat(len(lengths), 1) + 1
    for row, length in zip(labels, lengths, strict=True):
        row[length:] = -100
    return labels


def test_half_of_those_with_the_fewest_and_half_with_the_most():
    labels = padded(8, 2, 5, 4, 8, 1)
    inputs = torch.arange(6.0) + 1
    chosen, ignored = most_unlike((inputs, labels), 4)
    assert chosen.tolist() == [1, 5, 2, 6]
    assert ((ignored == -100).sum(1)).tolist() == [0, 0, 6, 7]


def test_an_odd_number_has_one_more_with_the_most():
    chosen, _ = most_unlike((torch.arange(6.0) + 1, padded(8, 2, 5, 4, 8, 1)), 3)
    assert chosen.tolist() == [1, 2, 6]


def test_nothing_is_picked_if_nothing_differs():
    batch = torch.ones(6, 3), torch.arange(6)[:, None].expand(6, 2) * 0
    assert most_unlike(batch, 2) is batch
    assert unlikeness(batch) == 0.0


def test_all_are_taken_if_there_are_no_more():
    batch = {"labels": padded(8, 2)}
    assert most_unlike(batch, 2) is batch
    assert most_unlike(batch, 5) is batch


def test_lists_of_examples_are_left_as_they_are():
    batch = {"labels": padded(8, 2, 5), "names": ["a", "b", "c"]}
    assert most_unlike(batch, 2) is batch
    # A list that isn't one of the examples stands in nobody's way.
    chosen = most_unlike({"labels": padded(8, 2, 5), "names": ["a", "b"]}, 2)
    assert len(chosen["labels"]) == 2
    assert chosen["names"] == ["a", "b"]


def test_of_numbers_with_a_point_zeros_count():
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    chosen = most_unlike({"mask": mask, "scale": torch.tensor(3.0)}, 2)
    assert chosen["mask"].tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert chosen["scale"] == 3.0


def test_unlikeness_is_the_deviation_of_a_share():
    assert unlikeness(padded(8, 4)) == 0.25
    assert unlikeness(torch.zeros(4, 0)) == 0.0


def test_empty_tensors_and_other_lengths_say_nothing():
    batch = torch.arange(4.0), torch.zeros(4, 0), torch.tensor([[0], [1]])
    assert unlikeness(batch) == unlikeness(batch[0])


def test_rare_labels_are_among_the_examples():
    labels = torch.arange(60) % 3
    labels[40] = 7
    weights = torch.ones(60)
    weights[50] = 9.0
    chosen = most_unlike({"x": torch.ones(60, 2), "y": labels, "w": weights}, 12)
    assert len(chosen["y"]) == 12
    assert set(chosen["y"].tolist()) == {0, 1, 2, 7}
    assert 9.0 in chosen["w"]
