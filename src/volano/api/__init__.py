"""The verbs behind the public door."""

from volano.api.doctor import doctor
from volano.api.tasks import resume, train

__all__ = ["doctor", "resume", "train"]
