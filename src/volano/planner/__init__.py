"""Finds the Plan: predicts memory and time, races candidates, guards parity, remembers,
explains."""

from volano.plan.explanation import Candidate, Explanation
from volano.planner.analyze import measured_beside
from volano.planner.cluster.cluster_spec import names_cluster
from volano.planner.cluster.explain_cluster import explain_cluster
from volano.planner.offline import NotPredictedError, absent_plan, absent_step, explain_absent
from volano.planner.request import EXPLANATION, PlanRequest, PlanResult
from volano.planner.search.per_rank import share_of_rank, share_of_threads
from volano.planner.search.search import find_plan

__all__ = [
    "EXPLANATION",
    "Candidate",
    "Explanation",
    "NotPredictedError",
    "PlanRequest",
    "PlanResult",
    "absent_plan",
    "absent_step",
    "explain_absent",
    "explain_cluster",
    "find_plan",
    "measured_beside",
    "names_cluster",
    "share_of_rank",
    "share_of_threads",
]
