"""The verbs behind the public door."""

from volano.api.doctor import doctor
from volano.api.explain import explain
from volano.api.explore import explore
from volano.api.verify import verify
from volano.running.processes import Processes
from volano.running.train import resume, train

__all__ = ["Processes", "doctor", "explain", "explore", "resume", "train", "verify"]
