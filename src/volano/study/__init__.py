"""Many configurations: a study samples them, packs train them, rungs prune them.

- Asking: ``settings``, ``asking``, ``sampling``, ``storage``. Which go on: ``rungs``, ``dealing``, ``pace``.
- The study while it runs: ``explore`` (puts it together), ``driver``, ``crew``, ``book``, ``interruption``; what it
  says: ``observe``, ``progress``.
- What it leaves: ``record`` (the files), ``states``, ``study`` (the value).
- Training: ``work`` (values between driver and workers), ``worker``, ``candidates``, ``kinds``, ``same_data``; where:
  ``placement``, ``executors``, ``processes``, ``cluster``.
"""

from volano.study.study import Study

__all__ = ["Study"]
