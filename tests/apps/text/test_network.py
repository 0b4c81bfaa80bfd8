import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from volano.apps.text.network import Cache, Decoder, DecoderShape, parameter_groups
from volano.training import MuonAdamW


def make_decoder(*, is_trained=True, **fields):
    shape = DecoderShape(**{"vocab_size": 300, "context": 32, "depth": 2, **fields})
    torch.manual_seed(0)
    model = Decoder(shape)
    if is_trained:  # a fresh one has projections and a head of zeros
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return model


def some_tokens(num=1, length=32):
    return torch.randint(1, 300, (num, length), generator=torch.Generator().manual_seed(1))


def test_tokens_in_logits_out():
    model = make_decoder()
    logits = model(some_tokens(3))
    assert logits.shape == (3, 32, 300)
    assert logits.dtype == torch.float32
    assert logits.abs().max() < 15
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_fresh_one_knows_nothing():
    model = make_decoder(is_trained=False)
    tokens = some_tokens(2)
    loss = torch.nn.functional.cross_entropy(
        model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()
    )
    assert loss.item() == pytest.approx(math.log(300), abs=1e-5)


def test_nothing_looks_ahead():
    model = make_decoder()
    tokens = some_tokens()
    changed = tokens.clone()
    changed[0, 20] = (tokens[0, 20] + 1) % 300
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_positions_matter():
    # Rotary positions: the same two tokens before, the other way round.
    model = make_decoder()
    one, other = model(torch.tensor([[5, 6, 7]])), model(torch.tensor([[6, 5, 7]]))
    assert not torch.allclose(one[:, 2], other[:, 2], atol=1e-3)


@pytest.mark.parametrize("num_first", [1, 7, 31])
def test_the_cache_changes_no_logit(num_first):
    model = make_decoder().eval()
    tokens = some_tokens()
    with torch.no_grad():
        expected = model(tokens)
        cache = Cache(model.shape, torch.device("cpu"))
        pieces = [model(tokens[:, :num_first], cache)]
        pieces += [model(tokens[:, place : place + 1], cache) for place in range(num_first, 32)]
    assert cache.length == 32
    # The same sums in another order: a few units in the last place of logits up to 15.
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=0, atol=2e-5)


def test_bf16_stays_close():
    model = make_decoder().eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = model(some_tokens())
    assert narrow.dtype == torch.float32
    # bf16 keeps eight bits; the residual stream adds a handful of rounded parts.
    assert (narrow - model(some_tokens())).abs().mean() < 0.05


def test_flops_agree_with_torchs_counter():
    model = make_decoder(vocab_size=2048, context=64, depth=3)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(torch.zeros(2, 64, dtype=torch.int64)).sum().backward()
    shape = model.shape
    # The counter counts all pairs of tokens, we the causal half of them.
    whole = 2 * 64 * (shape.flops_per_token + 6 * shape.depth * shape.context * shape.width)
    assert counter.get_total_flops() == pytest.approx(whole, rel=0.02)


def test_every_parameter_has_one_group():
    model = make_decoder()
    groups = parameter_groups(
        model, matrix_lr=0.02, embedding_lr=0.3, head_lr=0.01, weight_decay=0.0, ns_steps=3
    )
    grouped = [
        parameter for group in MuonAdamW(groups).param_groups for parameter in group["params"]
    ]
    assert {id(parameter) for parameter in grouped} == {
        id(parameter) for parameter in model.parameters()
    }
    assert len(grouped) == len(list(model.parameters()))
    muon = [p for group in groups if group["algorithm"] == "muon" for p in group["params"]]
    assert {tuple(p.shape) for p in muon} == {(384, 128), (128, 128), (512, 128), (128, 512)}
