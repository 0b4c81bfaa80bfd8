"""Numbers of a training follow from its text and its length."""

from volano.apps.text.network import DecoderShape
from volano.apps.text.recipe import choose_depth, choose_recipe, choose_tokens_per_step


class TestRecipe:
    def recipe(self, epochs, num_bytes=400_000):
        shape = DecoderShape(vocab_size=512, context=64, depth=2)  # 458,752 weights
        return choose_recipe(
            shape=shape, num_bytes=num_bytes, tokens_per_step=2048, epochs=epochs, num_steps=400
        )

    def test_the_regime_follows_the_epochs(self):
        much, middle, little = (self.recipe(epochs) for epochs in (1, 3, 8))
        assert "much data (1 epochs, 1.1 weights for each byte): no dropout" in much.regime
        assert (much.dropout, much.ema_decay) == (0.0, None)
        assert much.dropout < middle.dropout < little.dropout
        assert much.weight_decay < middle.weight_decay < little.weight_decay
        assert (
            "little data (8 epochs, 1.1 weights for each byte): dropout 0.15, weight decay 1"
            in little.regime
        )
        assert little.ema_decay == 1 - 10 / 400

    def test_a_model_that_is_small_for_its_text_needs_no_dropout(self):
        recipe = self.recipe(8, num_bytes=4_000_000)
        assert recipe.dropout == 0.0
        assert "little data (8 epochs, 0.11 weights for each byte): no dropout" in recipe.regime

    def test_depth_grows_with_the_budget_and_not_beyond_the_text(self):
        def depth(flops, num_bytes):
            return choose_depth(flops=flops, num_bytes=num_bytes, vocab_size=2048, context=256)

        depths = [depth(flops, 10**9) for flops in (1e12, 1e13, 1e15, 1e17, 1e19)]
        assert depths == sorted(depths)
        assert depths[0] < depths[-1]
        assert depth(1e19, 200_000) == 2

    def test_batches_are_powers_of_two_and_grow(self):
        sizes = [
            choose_tokens_per_step(num_tokens=num_tokens, width=256, is_cpu=True)
            for num_tokens in (1e5, 1e6, 1e8, 1e10)
        ]
        assert sizes == sorted(sizes)
        assert sizes[0] == 2048
        assert all(size & (size - 1) == 0 for size in sizes)
        assert choose_tokens_per_step(num_tokens=1e5, width=256, is_cpu=False) == 16384
