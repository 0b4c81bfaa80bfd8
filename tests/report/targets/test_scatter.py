"""Pictures of predicted over true numbers."""

from PIL import Image

from volano.report.targets.scatter import draw_scatter


def test_a_square_for_each_number(tmp_path):
    pairs = {"$price": [[1.0, 2.0], [3.0, 2.5]], "rooms \u4e2d": [[0.0, 0.0]]}
    draw_scatter(pairs, "a $table", tmp_path / "two.png")
    with Image.open(tmp_path / "two.png") as two:
        assert two.width > 1.5 * two.height
