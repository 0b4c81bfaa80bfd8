"""What a person reads while a run is made."""

import io

from volano.training.observe import Observer, Observers
from volano.training.progress import PlainProgress, RichProgress


def test_phases_are_lines():
    for kind in (PlainProgress, RichProgress):
        stream = io.StringIO()
        kind(stream).on_phase("reading photos")
        assert stream.getvalue() == "reading photos ...\n"


def test_every_observer_hears_of_a_phase():
    heard = []

    class Listening(Observer):
        def on_phase(self, text):
            heard.append(text)

    Observers(Listening(), Observer(), Listening()).on_phase("testing")
    assert heard == ["testing", "testing"]
