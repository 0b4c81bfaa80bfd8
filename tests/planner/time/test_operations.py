"""What an executed operation is, counted by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from volano.planner.memory.memory_tracker import MemoryTracker
from volano.planner.time.operations import describe_operation, is_computation

aten = torch.ops.aten
N, I = 4, 8  # noqa: E741 - examples, inputs


def described(func, *args, **kwargs):
    return describe_operation(func, args, kwargs, func(*args, **kwargs), "forward")


@pytest.mark.parametrize(
    ("func", "does_work"),
    [
        (aten.view.default, False),
        (aten.t.default, False),
        (aten.detach.default, False),
        (aten.empty_like.default, False),
        (aten.add.Tensor, True),
        (aten.add_.Tensor, True),
        (aten.clone.default, True),
        (aten.zeros_like.default, True),
    ],
)
def test_views_and_questions_do_no_work(func, does_work):
    assert is_computation(func) == does_work


def test_a_product_has_two_operations_per_multiply_add():
    found = described(aten.mm.default, torch.ones(3, 5), torch.ones(5, 7))
    assert (found.kind, found.dtype, found.flops) == ("matmul", "fp32", 2 * 3 * 5 * 7)
    assert found.num_bytes == 4 * (15 + 35 + 21)
    assert found.name == "aten.mm.default"


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.bfloat16, "bf16"),
        (torch.float16, "fp16"),
        (torch.float64, "fp64"),
        (torch.int64, "int"),
    ],
)
def test_types(dtype, name):
    x = torch.ones(4, dtype=dtype)
    assert described(aten.add.Tensor, x, x).dtype == name


def test_the_type_is_that_of_the_result_before_the_inputs():
    found = described(aten.index.Tensor, torch.ones(4), [torch.tensor([0, 1])])
    assert (found.dtype, found.kind) == ("fp32", "other")
    compared = described(aten.gt.Scalar, torch.ones(4, dtype=torch.float64), 0)
    assert compared.dtype == "fp64"  # a truth value has no arithmetic of its own


@pytest.mark.parametrize(
    ("func", "args", "kind"),
    [
        (aten.relu.default, (torch.ones(4),), "pointwise"),
        (aten.sum.default, (torch.ones(4),), "reduction"),
        (aten._softmax.default, (torch.ones(2, 4), 1, False), "reduction"),
        (
            aten._softmax_backward_data.default,
            (torch.ones(2, 4), torch.ones(2, 4), 1, torch.float32),
            "reduction",
        ),
        (
            aten.native_layer_norm.default,
            (torch.ones(2, 4), [4], None, None, 1e-5),
            "normalization",
        ),
        (aten.embedding.default, (torch.ones(5, 2), torch.tensor([1])), "other"),
    ],
)
def test_kinds(func, args, kind):
    assert described(func, *args).kind == kind


def test_an_expanded_tensor_is_read_where_it_lies():
    row = torch.ones(1, 8)
    found = described(aten.add.Tensor, torch.ones(4, 8), row.expand(4, 8))
    assert found.num_bytes == 4 * (32 + 8 + 32)


def test_of_a_sparse_tensor_its_values_are_read():
    places, values = torch.tensor([[0, 2]]), torch.tensor([1.0, 2.0])
    sparse = torch.sparse_coo_tensor(places, values, (100,), check_invariants=True).coalesce()
    found = describe_operation(
        aten.add.Tensor, (torch.ones(100), sparse), {}, torch.ones(100), "forward"
    )
    assert found.num_bytes == 4 * (100 + 2 + 100)


def test_what_touches_no_tensor_is_no_operation():
    assert describe_operation(aten.add.Tensor, (1, 2), {}, 3, "forward") is None


def test_attention_on_the_host_is_counted():
    tracker = MemoryTracker()
    B, H, T, D = 2, 3, 32, 16
    q, k, v = (torch.randn(B, H, T, D, requires_grad=True) for _ in range(3))
    with tracker:
        tracker.objective(lambda _, batch: F.scaled_dot_product_attention(*batch).sum())(
            nn.Identity(), (q, k, v)
        ).backward()
    found = {o.phase: o.flops for o in tracker.operations() if o.kind == "attention"}
    product = 2 * B * H * T * T * D
    assert found["forward"] == 2 * product  # scores, and values weighted by them
    assert found["backward"] == 5 * product  # scores once more, and two for each of the others


def test_a_recurrent_layer_is_counted():
    tracker = MemoryTracker()
    T, hidden = 5, 16
    layer = nn.LSTM(I, hidden, batch_first=True)
    with tracker:
        tracker.objective(lambda model, x: model(x)[0].sum())(
            layer, torch.randn(N, T, I)
        ).backward()
    forward = sum(o.flops * c for o, c in tracker.operations().items() if o.phase == "forward")
    assert forward == 2 * N * T * 4 * hidden * (I + hidden)
