"""A pass takes up what an earlier one kept, for examples that it knows."""

import pytest
import torch

from conftest import classification
from training.prefix.frozen_nets import Frozen, Trunk
from volano.device import Device
from volano.training.prefix.kept_features import KeptFeatures
from volano.training.prefix.kept_pass import AllKnownError, KeptPass, PartlyKnownError
from volano.training.prefix.observe_pass import constants_of, find_boundary
from volano.training.prefix.row_digests import RowDigests
from volano.training.prefix.units import PrefixMismatchError


class Passes:
    """Passes of one net."""

    def __init__(self):
        self.model = Frozen()
        self.model.head[0].p = 0.0
        self.x, self.y = torch.rand(16, 64), torch.arange(16) % 10
        self.kept, self.digests = KeptFeatures(16), RowDigests(torch.device("cpu"))
        self.boundary = find_boundary(self.model, lambda: self.loss(range(4)), 4, Device("cpu"))
        Trunk.calls = 0

    def loss(self, rows):
        rows = list(rows)
        return classification(self.model, (self.x[rows], self.y[rows]))

    def run(self, rows, **options):
        passed = KeptPass(
            self.boundary, self.kept, self.digests, constants_of(self.model), len(list(rows)),
            **options,
        )  # fmt: skip
        return passed, passed.run(lambda: self.loss(rows))


def test_known_examples_are_taken_up_in_any_order():
    passes = Passes()
    passes.run(range(8))
    passes.run(range(8, 16))
    assert Trunk.calls == 2
    passed, loss = passes.run([15, 3, 3, 8])
    assert Trunk.calls == 2
    assert (passed.num_known, passed.num_new) == (4, 0)
    assert type(loss) is torch.Tensor
    torch.testing.assert_close(loss, passes.loss([15, 3, 3, 8]))
    loss.backward()
    assert passes.model.head[1].weight.grad is not None


def test_a_batch_with_a_new_example_is_computed():
    passes = Passes()
    passes.run(range(8))
    passed, _ = passes.run([0, 9, 9])
    assert (passed.num_known, passed.num_new) == (0, 1)
    passes.run([9, 1])
    assert Trunk.calls == 2
    with pytest.raises(PartlyKnownError) as error:
        passes.run([10, 1, 10, 11], asks=True)
    assert error.value.places == [2, 3]


def test_a_pass_may_end_at_the_boundary():
    passes = Passes()
    with pytest.raises(AllKnownError):
        passes.run(range(8), ends_early=True)
    passes.run(range(8))
    assert Trunk.calls == 1
    with pytest.raises(AllKnownError):
        passes.run(range(4), recomputes=True, ends_early=True)
    assert Trunk.calls == 2


def test_other_calls_than_before_are_an_error():
    passes = Passes()
    passes.run(range(8))
    head, trunk = passes.model.head, passes.model.trunk
    passes.model.forward = lambda x: head(trunk(x)) + head(trunk(x))
    with pytest.raises(PrefixMismatchError, match="trunk is called at another place"):
        passes.run(range(8))
    passes.model.forward = lambda x: head[1](x[:, :48])
    with pytest.raises(PrefixMismatchError, match="fewer of its modules are called"):
        passes.run(range(8))
    passes.model.forward = lambda x: head(trunk(x) @ torch.ones(48, 48))
    with pytest.raises(PrefixMismatchError, match="matmul uses what nothing has used before"):
        passes.run(range(8))
    assert "forward" not in vars(passes.model.trunk)
