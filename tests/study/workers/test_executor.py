"""Assignments and answers travel as bytes, and whatever goes wrong is one of our errors."""

import pickle

import pytest

from volano.errors import ExploreError, RunError
from volano.study.workers.executor import InProcess, answer_of, report_in
from volano.study.workers.messages import Assignment, Report


class Worker:
    """Answers with a report, or raises."""

    def __init__(self, error=None):
        self.error, self.seen = error, []

    def run(self, assignment):
        self.seen.append(assignment)
        if self.error is not None:
            raise self.error
        return report()


def report():
    return Report(assignment=3, outcomes=())


def assignment():
    return Assignment(number=3, trials=(), share=1.0)


def test_a_report_comes_back():
    worker = Worker()
    assert report_in(answer_of(worker, pickle.dumps(assignment()))) == report()
    assert worker.seen == [assignment()]


@pytest.mark.parametrize(
    ("raised", "told", "words"),
    [
        (ExploreError("A rule", got="this"), ExploreError, "A rule; got this"),
        (
            KeyError("x"),
            RunError,
            "A worker of a study must answer each assignment; got KeyError: 'x'",
        ),
    ],
)
def test_what_a_worker_raises_is_raised_here(raised, told, words):
    answer = answer_of(Worker(raised), pickle.dumps(assignment()))
    with pytest.raises(told, match=words):
        report_in(answer)


def test_in_this_process_a_worker_is_made_once_and_when_it_is_needed():
    made = []
    with InProcess(lambda: made.append(Worker()) or made[-1]) as executor:
        assert executor.next_finished() is None
        executor.submit(0, assignment())
        assert made == []
        assert executor.next_finished() == (0, report())
        executor.submit(0, assignment())
        executor.next_finished()
    assert len(made) == 1
    assert len(made[0].seen) == 2
