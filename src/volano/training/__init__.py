"""Runs a Task under a Plan: the loop, the step, checkpoints, the folder. Knows neither planner nor
application."""

from volano.record.run_folder import PREPARED, RunFolder
from volano.training.checkpoints.weights import (
    WEIGHTS,
    build_and_load,
    load_tensors,
    load_weights,
    save_tensors,
    save_weights,
)
from volano.training.distributed.data_parallel import check_ranks
from volano.training.evaluate import evaluate
from volano.training.graphs.compiling import settings_of
from volano.training.graphs.recorded_call import check_recorded
from volano.training.health.length_revision import LengthRule
from volano.training.memory.out_of_memory import is_out_of_memory
from volano.training.memory.recompute import blocks_of
from volano.training.observe import Observer, Observers
from volano.training.optim.make_optimizer import choose_implementation, make_optimizer
from volano.training.optim.muon import MuonAdamW
from volano.training.progress import PlainProgress, RichProgress, make_progress
from volano.training.run import Run, load_run, prepare_run, run_task
from volano.training.safety import Safety
from volano.training.session import Session, check_plan
from volano.training.step import seed_of_augmentation
from volano.training.step_timing import StepTime, StepTimer, measure_step_time
from volano.training.throwaway import run_trial, throwaway_session, throwaway_settings

__all__ = [
    "PREPARED",
    "WEIGHTS",
    "LengthRule",
    "MuonAdamW",
    "Observer",
    "Observers",
    "PlainProgress",
    "RichProgress",
    "Run",
    "RunFolder",
    "Safety",
    "Session",
    "StepTime",
    "StepTimer",
    "blocks_of",
    "build_and_load",
    "check_plan",
    "check_ranks",
    "check_recorded",
    "choose_implementation",
    "evaluate",
    "is_out_of_memory",
    "load_run",
    "load_tensors",
    "load_weights",
    "make_optimizer",
    "make_progress",
    "measure_step_time",
    "prepare_run",
    "run_task",
    "run_trial",
    "save_tensors",
    "save_weights",
    "seed_of_augmentation",
    "settings_of",
    "throwaway_session",
    "throwaway_settings",
]
