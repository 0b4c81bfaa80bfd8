"""Numbers of a training follow from its data and its length."""

from volano.apps.image.recipe import choose_recipe, choose_size


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
        assert (recipe.translate, recipe.tta_translate, recipe.cutout) == (1, 0, 0)

    def test_the_size_follows_the_time(self):
        facts = {"num_train": 60000, "resolution": 28, "channels": 1, "num_classes": 10}
        sizes = [choose_size(epochs_of_thin=epochs, **facts) for epochs in (4, 30, 1000)]
        assert sizes == ["thin", "base", "wide"]
        assert choose_size(epochs_of_thin=1000, **{**facts, "num_train": 2000}) == "thin"
