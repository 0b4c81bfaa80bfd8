"""The verbs behind the public door."""

from volano.api.doctor import doctor
from volano.api.explain import explain
from volano.api.explore import explore
from volano.api.processes import Processes
from volano.api.tasks import resume, train
from volano.api.verify import verify

__all__ = ["Processes", "doctor", "explain", "explore", "resume", "train", "verify"]
