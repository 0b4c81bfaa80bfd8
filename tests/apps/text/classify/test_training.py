from data.sources.text.test_labelled_texts import read_classes, write_table
from volano.apps.text.classify.model_spec import BAG, ClassesSpec, predict_texts
from volano.device import Device
from volano.plan import Plan
from volano.training import run_trial


def test_the_bag_learns(tmp_path):
    application = read_classes(write_table(tmp_path / "t.csv"))
    assert application.is_held_out
    assert 3 <= len(application.test) <= 36
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
