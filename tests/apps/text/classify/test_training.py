import pytest

from data.sources.text.test_labelled_texts import read_classes, write_table
from volano.apps.text.classify.model_spec import BAG, HEAD, ClassesSpec, predict_texts
from volano.device import Device
from volano.errors import CheckpointError
from volano.plan import Plan
from volano.training import run_trial


def test_the_bag_learns(tmp_path):
    application = read_classes(write_table(tmp_path / "t.csv"))
    assert application.is_held_out
    assert len(application.test) == 18
    assert not set(application.fit_rows) & set(application.choice)
    plan = Plan.default("cpu").pin(feed="ring", workers=0, memory_format="contiguous")
    trial = run_trial(application.bag_task(everything=False), plan)
    assert trial.metrics["accuracy"] == 1.0
    spec = ClassesSpec(
        classes=application.train.classes,
        kept=BAG,
        candidates={BAG: 1.0},
        num_buckets=application.num_buckets,
    )
    logits = predict_texts(trial.model, spec, ["a hammer", "my horse"], Device("cpu"), None)
    assert [spec.classes[row] for row in logits.argmax(1).tolist()] == ["tool", "animal"]


def test_the_description_comes_back():
    spec = ClassesSpec(
        classes=("a", "b"), kept=HEAD, candidates={BAG: 0.5, HEAD: 0.6}, num_buckets=8,
        vocab_size=300, context=32, depth=2, tokenizer_digest="0",
    )  # fmt: skip
    assert ClassesSpec.from_json(spec.to_json()) == spec
    with pytest.raises(CheckpointError, match="must describe a classifier"):
        ClassesSpec.from_json({**spec.to_json(), "goal": "language"})
