"""Pictures of predicted over true numbers."""

from PIL import Image

from volano.report.targets.scatter import draw_scatter


def test_a_square_for_each_number(tmp_path):
    pairs = {"$price": [[1.0, 2.0], [3.0, 2.5]], "rooms \u4e2d": [[0.0, 0.0]]}
    draw_scatter(pairs, "a $table", tmp_path / "two.png")
    draw_scatter({"rooms": pairs["$price"]}, "one", tmp_path / "one.png")
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one.png") as one:
        assert two.width > 1.5 * one.width
        assert two.height == one.height
