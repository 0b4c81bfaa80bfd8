from volano.apps.study_build import default_space
from volano.apps.video.classify.recipe import choose_recipe


def recipe(num_train=400, **options):
    return choose_recipe(**{"size": 64, "epochs": 8.0, "batch_size": None, **options},
                         num_train=num_train)  # fmt: skip


def test_batches_shrink_with_the_clips():
    assert [recipe(count).batch_size for count in (400, 40, 8, 3)] == [16, 10, 4, 3]
    assert recipe(400, batch_size=50).batch_size == 50


def test_a_study_has_numbers_to_try():
    space = default_space(recipe())
    assert set(space.parameters) == {"kernel_lr", "rest_lr", "label_smoothing", "translate"}
