import pytest
import torch

from volano.apps.text.generate import TokenSampling, generate_ids, prompt_ids, stream_text
from volano.apps.text.network import Decoder


@pytest.fixture(scope="module")
def model(model):
    return model.eval()


def without_cache(model, ids, num):
    """Greedy, each token from a fresh look at what is in view."""
    view, written = list(ids), []
    for _ in range(num):
        if len(view) > 32:
            view = view[-16:]
        with torch.no_grad():
            written.append(int(model(torch.tensor([view]))[0, -1].argmax()))
        view.append(written[-1])
    return written


@pytest.mark.parametrize("num_prompt", [1, 20, 31])
def test_greedy_writing_is_that_without_a_cache(model, num_prompt):
    ids = torch.randint(1, 512, (num_prompt,), generator=torch.Generator().manual_seed(2)).tolist()
    assert list(generate_ids(model, ids, 100, TokenSampling(temperature=0))) == without_cache(
        model, ids, 100
    )


def test_the_same_seed_draws_the_same(model):
    draws = [list(generate_ids(model, [5], 40, TokenSampling(seed=seed))) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == 40


def test_the_callers_random_state_and_modes_stay(model):
    before = torch.get_rng_state()
    for _ in generate_ids(model, [5], 3, TokenSampling()):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_document_ends_at_a_separator(model):
    blunt = Decoder(model.shape)
    torch.nn.init.zeros_(blunt.head.weight)  # all alike, so that the first id is the likeliest
    assert list(generate_ids(blunt.eval(), [5], 10, TokenSampling(temperature=0))) == []


class TestSampling:
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()

    def shares(self, **fields):
        generator = torch.Generator().manual_seed(0)
        draws = torch.tensor(
            [TokenSampling(**fields).draw(self.logits, generator) for _ in range(4000)]
        )
        return (torch.bincount(draws, minlength=4) / 4000).tolist()

    def test_plain(self):
        # Four standard deviations of a share of 4,000 draws are 0.03.
        assert self.shares(temperature=1.0) == pytest.approx([0.1, 0.4, 0.3, 0.2], abs=0.035)

    def test_temperature_sharpens(self):
        squared = torch.tensor([0.01, 0.16, 0.09, 0.04]) / 0.3
        assert self.shares(temperature=0.5) == pytest.approx(squared.tolist(), abs=0.035)

    @pytest.mark.parametrize("temperature", [1e-3, 1e-38, 1e-45, 1e-300, 5e-324])
    def test_a_tiny_temperature_takes_the_likeliest(self, temperature):
        assert self.shares(temperature=temperature)[1] == 1
        assert self.shares(temperature=temperature, top_p=0.9)[1] == 1

    def test_top_k(self):
        assert self.shares(temperature=1.0, top_k=2) == pytest.approx(
            [0, 4 / 7, 3 / 7, 0], abs=0.035
        )

    def test_top_p(self):
        assert self.shares(temperature=1.0, top_p=0.7) == pytest.approx(
            [0, 4 / 7, 3 / 7, 0], abs=0.035
        )
        assert self.shares(temperature=1.0, top_p=0.01) == [0, 1, 0, 0]

    def test_both(self):
        assert self.shares(temperature=1.0, top_k=3, top_p=0.5) == pytest.approx(
            [0, 4 / 7, 3 / 7, 0], abs=0.035
        )


def test_a_prompt_longer_than_the_context_loses_its_beginning(tokenizer):
    text = "argument parser " * 40
    ids, dropped = prompt_ids(tokenizer, text, 32)
    assert len(ids) == 31
    assert [0, *tokenizer.encode(text)][dropped:] == ids
    assert prompt_ids(tokenizer, "", 32) == ([0], 0)


def test_characters_appear_when_they_are_whole(tokenizer):
    text = "größer 🙂!"
    pieces = list(stream_text(tokenizer, tokenizer.encode(text)))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    cut = list(stream_text(tokenizer, tokenizer.encode("🙂")[:1]))
    assert "".join(cut) == "\ufffd"
