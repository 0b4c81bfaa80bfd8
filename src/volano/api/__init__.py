"""The verbs behind the public door."""

from volano.api.doctor import doctor
from volano.api.explain import explain
from volano.api.processes import Processes
from volano.api.tasks import resume, train

__all__ = ["Processes", "doctor", "explain", "resume", "train"]
