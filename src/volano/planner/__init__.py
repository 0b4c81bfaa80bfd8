"""Finds the Plan: predicts memory and time, races candidates, guards parity, remembers, explains.

Which file answers which question, in the order in which a search asks them:

- What is asked, what is answered: wish, explanation (values), search (the order of it all), answer.
- What may run? facts, candidates, feeding, share (of one rank).
- Was it planned before? fingerprint, code_digest, cache, recalling.
- How much memory? prediction (values), memory (the door), capture, tracker, operations, workspace, emulation,
  liveness (compiled), record (measured), isolated (in a process of its own); fitting (what it takes to fit).
- How long? roofline, rates, calibration, sharded (several devices); oracle keeps both kinds of predictions.
- Which is fastest? contest (who runs), race (running), allowance (for how long).
- Does it compute the same? judge (the door), parity, reference, specimen, float64, slope, coupling, blame.
- And without the device, or beside it? absent, analysis.
"""

from volano.plan.explanation import Candidate, Explanation
from volano.planner.analyze import measured_beside
from volano.planner.offline import explain_absent
from volano.planner.request import PlanRequest, PlanResult
from volano.planner.search.per_rank import share_of_rank, share_of_threads
from volano.planner.search.search import find_plan

__all__ = [
    "Candidate",
    "Explanation",
    "PlanRequest",
    "PlanResult",
    "explain_absent",
    "find_plan",
    "measured_beside",
    "share_of_rank",
    "share_of_threads",
]
