"""The video application: trains a model that generates clips and predicts how they continue."""

from __future__ import annotations

from dataclasses import dataclass

from volano.apps.application import Finished, Fitted
from volano.apps.video.fit import fit_into
from volano.apps.video.scoring.figures import distances_in_words, write_results
from volano.apps.video.training import VideoTraining
from volano.apps.video.use import VideoModel
from volano.device import Device, random_state_kept
from volano.report.verdict import Score
from volano.running.time_limit import TimeLimit
from volano.task import Task
from volano.training import Run, RunFolder, settings_of


@dataclass(frozen=True, kw_only=True)
class VideoApplication(VideoTraining):
    """An application: clips and a model to train on them, from the time that there is to the final
    test."""

    model_type = VideoModel
    next_words = ("eval RUN", "generate RUN --clips 16")

    def fit(self, limit: TimeLimit) -> Fitted:
        """Finds the network, the plan, the number of steps and the effort of the final figures that
        suit the time."""
        return fit_into(self, limit)

    def finish(self, run: Run, task: Task) -> Finished:  # noqa: ARG002 - of the contract
        """Tests a finished run, and draws what its report shows."""
        if run.status != "finished":
            return Finished(details={"self_test": None})
        device = Device(run.plan.device)
        with settings_of(run.plan, device), random_state_kept(device):
            figures, self_test, notices = write_results(
                RunFolder(run.path), run.model, self, device, precision=run.plan.precision
            )
        baselines = figures["psnr_baselines"]
        score = Score(
            name="the first predicted frame",
            value=figures["psnr_first_frame"],
            trivial={name.replace("_", " "): psnr for name, psnr in baselines.items()},
            digits=2,
            unit=" dB",
        )
        details = {"self_test": self_test}
        return Finished(metrics=figures, notices=notices, details=details, score=score)

    @staticmethod
    def summary(run: Run) -> list[str]:
        """Returns the figures of predicted frames with those of trivial ones, and the distances of
        generated clips."""
        metrics = run.metrics
        trivial = ", ".join(
            f"{name.replace('_', ' ')} {psnr:.2f}"
            for name, psnr in metrics["psnr_baselines"].items()
        )
        where = (
            f"{metrics['num_test']:,} {'held-out' if run.details['is_held_out'] else 'test'} clips"
        )
        return [
            f"first predicted frame {metrics['psnr_first_frame']:.2f} dB   ({trivial}; {where})",
            *distances_in_words({**metrics, "self_test": run.details["self_test"]}),
        ]
