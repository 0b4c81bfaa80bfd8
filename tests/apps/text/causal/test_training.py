"""A pretrained language model and a text become a Task."""

import dataclasses

import pytest
import torch

import volano
from pretrained_networks import save_small_gpt2
from volano.apps.study_build import application_build, application_of_trial
from volano.apps.text.causal.training import WINDOWS, CausalTraining
from volano.apps.text.options import TextOptions
from volano.errors import DataError, UsageError
from volano.plan import Plan
from volano.study.observe import StudyObserver

pytest.importorskip("peft", reason="peft is not installed")
LINES = "".join(
    f"line {number} of a small book, {number % 7} words long.\n" for number in range(300)
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    book = tmp_path_factory.mktemp("books") / "book.txt"
    book.write_text(LINES)
    return str(book), f"hf:{save_small_gpt2(tmp_path_factory.mktemp('gpt2'))}"


@pytest.fixture(scope="module")
def application(folders):
    return CausalTraining.read(TextOptions(path=folders[0], from_=folders[1], context=64))


def test_the_text_is_cut_into_windows_that_predict_each_token_once(application):
    assert application.train.shape[1] == 33  # the network takes 32
    assert "context=32: the network takes no more" in application.notices
    assert torch.equal(application.train[1:, 0], application.train[:-1, -1])
    num = int((application.held[:, 1:] >= 0).sum())
    assert num == application.num_held_bytes  # a token a byte, and the end for the first
    assert application.bytes_per_token == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_loss_curve_is_that_of_peft_by_hand(application, folders, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    task = dataclasses.replace(application.task(6), evaluate_every="1st")
    losses = []

    class Keep(volano.Observer):
        def on_evaluation(self, record):
            losses.append(record["valid_loss"])

    task = dataclasses.replace(task, valid=volano.data.Arrays(application.train[:4]))
    volano.train(task, out=tmp_path / "run", plan=Plan.baseline("cpu"), observer=Keep())
    network = GPT2LMHeadModel.from_pretrained(folders[1].removeprefix("hf:"))
    torch.manual_seed(task.seed)  # of the adapters alone
    config = LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear", fan_in_fan_out=True
    )
    model = get_peft_model(network, config)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=2e-4, weight_decay=0.0)
    order = volano.data.Order.of(task)
    theirs = []
    for step in range(6):
        for group in optimizer.param_groups:
            group["lr"] = 2e-4 * task.schedule((step + 0.5) / 6)
        ids = application.train[list(order.key(step).indices)].long()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model(input_ids=ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        with torch.no_grad():
            ids = application.train[:4].long()
            logits = model(input_ids=ids[:, :-1]).logits.flatten(0, 1)
            theirs.append(torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).item())
    assert losses == pytest.approx(theirs, rel=1e-5)


def test_what_cannot_be_is_refused(folders, tmp_path):
    with pytest.raises(UsageError, match="tuned by lora or all"):
        CausalTraining.read(TextOptions(path=folders[0], from_=folders[1], tune="head"))
    with pytest.raises(UsageError, match="must be one of transformers"):
        CausalTraining.read(TextOptions(path=folders[0], from_="timm:x"))
    (tmp_path / "run.json").touch()
    (tmp_path / WINDOWS).touch()
    with pytest.raises(UsageError, match="Export it to hf, and name the folder"):
        CausalTraining.read(TextOptions(path=folders[0], from_=str(tmp_path)))
    with pytest.raises(UsageError, match="`depth` together with `from_`"):
        TextOptions(path=folders[0], from_=folders[1], depth=4)


def test_a_text_without_a_window_is_refused(folders, tmp_path):
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(DataError):
        CausalTraining.read(TextOptions(path=str(tmp_path / "a.txt"), from_=folders[1]))


def test_a_study_varies_rate_and_decay(folders, monkeypatch, tmp_path):
    monkeypatch.setattr("volano.apps.study_build._TIMING_SECONDS", 0.05)
    build = application_build(
        "text", folders[0], from_=folders[1], context=16, trials=2, rungs=1, minutes=0.5,
        device="cpu",
    )  # fmt: skip
    assert (build.kind, build.metric, build.direction) == ("causal", "bits_per_byte", "minimize")
    assert set(build.space.parameters) == {"lr", "weight_decay"}
    build.num_steps = 2
    study = volano.explore(
        build, trials=2, rungs=1, out=tmp_path / "study", device="cpu", nproc=1,
        observer=StudyObserver(),
    )  # fmt: skip
    assert {trial.state for trial in study.trials} == {"complete"}
    kind, options, _ = application_of_trial(study.folder)
    assert (kind, options.tune, options.num_steps) == ("causal", "lora", 2)
