"""An explanation as it is printed, for comparing."""

import io

from volano.cli.show.explanation import print_explanation
from volano.planner import Explanation


def printed(record, width=100):
    file = io.StringIO()
    print_explanation(Explanation.from_json(record), file=file, width=width)
    return file.getvalue()


def squeezed(text):
    """Without line breaks and indentation: what wrapped is whole again."""
    return " ".join(text.split())
