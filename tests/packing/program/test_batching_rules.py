"""Layers of K members at once are what each member's layer gives alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import vmap

from packing.structures import CONFIGS, Structure, digits, sgd
from volano.packing import Member, Pack
from volano.packing.program import batching_rules

K = 3


def drawn(*shape):
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))
    )


RULES = {
    "linear": (batching_rules.linear, F.linear, (drawn(K, 5, 4), drawn(K, 6, 4), drawn(K, 6))),
    "layer_norm": (
        lambda x, w, b: batching_rules.layer_norm(x, [4], w, b, 1e-5),
        lambda x, w, b: F.layer_norm(x, [4], w, b),
        (drawn(K, 5, 4), drawn(K, 4), drawn(K, 4)),
    ),
    "convolution": (
        lambda x, w, b: batching_rules.convolution(torch.conv1d, 1, x, w, b, 1, 1, 1, 2),
        lambda x, w, b: F.conv1d(x, w, b, padding=1, groups=2),
        (drawn(K, 2, 4, 7), drawn(K, 6, 2, 3), drawn(K, 6)),
    ),
    "batch_norm": (
        lambda x, w, b: batching_rules.batch_norm(x, None, None, w, b, True, 0.1, 1e-5),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        (drawn(K, 5, 4), drawn(K, 4), drawn(K, 4)),
    ),
    "embedding": (
        lambda x, w: batching_rules.embedding((x.abs() * 3).long().clamp(max=5), w, 0),
        lambda x, w: F.embedding((x.abs() * 3).long().clamp(max=5), w, padding_idx=0),
        (drawn(K, 5, 2), drawn(K, 6, 4)),
    ),
    "attention": (
        lambda q, k, v: batching_rules.attention(q, k, v, None, True, None, False),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        (drawn(K, 2, 5, 4), drawn(K, 2, 5, 4), drawn(K, 2, 5, 4)),
    ),
}


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_gives_outputs_and_gradients_of_each_alone(name, is_shared):
    rule, plain, operands = RULES[name]
    first, *weights = (operand.clone().requires_grad_() for operand in operands)
    given = (first[0] if is_shared else first).detach()
    together = vmap(rule, in_dims=(None if is_shared else 0, *[0] * len(weights)))(given, *weights)
    alone = torch.stack([
        plain(given if is_shared else given[k],
        *(weight[k] for weight in weights)) for k in range(K)
    ])  # fmt: skip
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    pull = drawn(*alone.shape)
    for mine, its in zip(
        *(torch.autograd.grad(y, weights, pull) for y in (together, alone)), strict=True
    ):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_class_that_does_not_exist_is_no_loss(smoothing):
    logits = torch.randn(4, 3, dtype=torch.float64)
    losses = batching_rules.cross_entropy(
        logits, torch.tensor([0, 3, -100, -1]), -100, "none", smoothing
    )
    assert losses.isnan().tolist() == [False, True, False, True]
    expected = F.cross_entropy(logits[:1], torch.tensor([0]), label_smoothing=smoothing)
    assert losses[0].item() == pytest.approx(expected.item(), rel=1e-12)


class Words(nn.Module):
    """The mean of embeddings."""

    def __init__(self, _):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 5), nn.Linear(5, 10)

    def forward(self, ids):
        return self.head(self.embed(ids).mean(1))


@pytest.mark.parametrize("bad", [10, -1])
def test_an_id_that_no_table_has_is_no_row_of_another_member(bad):
    classes = digits(torch.float64)[0].tensors[1]
    ids = torch.randint(0, 10, (96, 6), generator=torch.Generator().manual_seed(0))
    ids[40, 2] = bad
    data = torch.utils.data.TensorDataset(ids, classes)

    def loss(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    def pack_of(engine):
        tasks = [
            Structure(model=Words, optimizer=sgd).task(
                config, data=data, valid=None, data_seed=n, objective=loss
            )
            for n, config in enumerate(CONFIGS)
        ]
        return Pack(
            [Member(number=n, task=task) for n, task in enumerate(tasks)],
            device="cpu",
            engine=engine,
        )

    def advance(pack):
        for step in range(1, 13):
            pack.advance(dict.fromkeys(pack.numbers, step))

    def last_step(pack):
        with pytest.raises(IndexError, match="out of range"):
            advance(pack)
        return min(pack.steps.values())

    assert last_step(pack_of("lowered")) == last_step(pack_of("loop"))
