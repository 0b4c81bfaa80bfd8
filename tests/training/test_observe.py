"""Several observers hear the same."""

from conftest import Quiet
from volano.training.observe import Observer, Observers, StartInfo

INFO = StartInfo(
    name="x", folder="y", first_step=0, num_steps=3, steps_per_epoch=1, batch_size=2,
    device="cpu", num_parameters=4,
)  # fmt: skip


class Heard(Quiet):
    """Keeps starts and previews too."""

    def __init__(self):
        super().__init__()
        self.starts, self.previews = [], []

    def on_start(self, info):
        self.starts.append(info)

    def on_preview(self, record):
        self.previews.append(record)


def tell(observer):
    observer.on_start(INFO)
    observer.on_log({"step": 1})
    observer.on_evaluation({"step": 2})
    observer.on_preview({"step": 3})
    observer.on_notice("a word")
    observer.on_end("finished")


def test_each_hears_everything():
    heard = [Heard(), Heard()]
    tell(Observers(*heard))
    for one in heard:
        assert one.starts == [INFO]
        assert (one.logs, one.evaluations, one.previews) == (
            [{"step": 1}], [{"step": 2}], [{"step": 3}],
        )  # fmt: skip
        assert (one.notices, one.ends) == (["a word"], ["finished"])


def test_methods_may_be_left_as_they_are():
    tell(Observers(Observer(), Observers()))
