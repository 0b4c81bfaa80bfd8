"""Numbers of a training follow from its data and its length."""

from volano.apps.image.recipe import choose_recipe, relative_costs, view_shift


class TestRecipe:
    def make(self, **fields):
        return choose_recipe(
            **{
                "num_train": 60000,
                "resolution": 28,
                "num_classes": 10,
                "epochs": 4.0,
                "batch_size": None,
                **fields,
            }
        )

    def test_batches_suit_the_set(self):
        assert self.make().batch_size == 496
        assert self.make(num_train=1500).batch_size == 64
        assert self.make(num_train=20).batch_size == 20
        assert self.make(batch_size=100).batch_size == 100

    def test_long_runs_augment_more(self):
        assert (self.make(epochs=4).translate, self.make(epochs=10).translate) == (1, 2)
        assert (self.make(epochs=10).cutout, self.make(epochs=40).cutout) == (0, 7)

    def test_tiny_images_are_shifted_by_a_pixel_and_not_cut(self):
        recipe = self.make(resolution=8, epochs=60)
        assert (recipe.translate, view_shift(8), recipe.cutout) == (1, 0, 0)

    def test_a_larger_size_costs_more_and_needs_more_epochs(self):
        facts = {"num_train": 60000, "resolution": 28, "channels": 1, "num_classes": 10}
        costs = relative_costs(**facts)
        assert [*costs] == ["wide", "base", "thin", "tiny"]
        assert costs["thin"] == (1.0, 2.0)
        assert costs["wide"] > costs["base"] > costs["thin"]
        assert [*relative_costs(**{**facts, "num_train": 2000})] == ["thin", "tiny"]
