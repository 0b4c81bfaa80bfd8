"""The pretrained network of an image run: found, kept, built again."""

import dataclasses
import shutil

import pytest
import torch
from PIL import Image

import volano
from pretrained_networks import save_small_vit
from volano.apps.image.fine_tuning.network import fresh_classifier, load_classifier, network_of
from volano.apps.image.options import ImageOptions
from volano.apps.image.training import ImageTraining
from volano.errors import CheckpointError, UsageError
from volano.running import trust
from volano.running.trust import trust_folder
from volano.training import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return volano.train(
        "image", from_="pretrained_networks:small", epochs=1, tune="head", out=out,
        plan=volano.Plan.baseline("cpu"),
    )  # fmt: skip


def test_the_run_says_what_is_trained_and_what_to_expect(run):
    said = " ".join(run.notices)
    assert "pretrained_networks:small: 16 features; pictures are brought to 8 px" in said
    assert "trainable: 170 of 1,610 parameters" in said
    assert "tune=head: as asked" in said
    assert "accuracy to expect of a linear head" in said
    assert run.metrics["test_accuracy"] > run.metrics["baseline_accuracy"] + 0.2


def test_eval_predict_and_export_feed_it_as_it_was_trained(run, tmp_path):
    model = volano.load(run)
    assert model.evaluate()["accuracy"] == pytest.approx(run.metrics["test_accuracy"])
    assert len(model.predict(torch.zeros(8, 8, dtype=torch.uint8))) == 1
    assert model.export("safetensors", tmp_path / "a.safetensors")["largest_difference"] == 0
    assert model.export("pt2", tmp_path / "a.pt2")["largest_difference"] < 1e-3


def test_a_run_is_a_network_to_begin_with(run, tmp_path):
    network = network_of(ImageOptions(from_=str(run.path)))
    assert (network.num_features, len(network.classes)) == (16, 0)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(network.trunk(images), run.model.trunk(images))
    assert all(parameter.requires_grad for parameter in network.trunk.parameters())
    again = volano.train(
        "image", from_=str(run.path), epochs=1, tune="all", out=tmp_path / "again",
        plan=volano.Plan.baseline("cpu"),
    )  # fmt: skip
    folder = RunFolder.open(again.path)
    spec = volano.load(again).spec
    trust_folder(folder.path)
    model = fresh_classifier(spec, folder.path)
    model.load_state_dict(again.model.state_dict())
    assert torch.equal(model.eval()(images), again.model(images))
    said = next(text for text in again.notices if "tune=all" in text)
    assert said.startswith("trainable: 1,610 of 1,610 parameters")


def test_a_run_has_its_network_and_must_have_ended(run, tmp_path):
    with pytest.raises(UsageError, match="must come with `model`"):
        network_of(ImageOptions(from_=str(run.path), model="pretrained_networks:small"))
    shutil.copytree(run.path, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="Continue it: volano resume"):
        network_of(ImageOptions(from_=str(tmp_path / "cut")))


def test_a_run_of_volanos_own_network_is_one_too(tmp_path):
    own = volano.train("image", epochs=0.1, out=tmp_path / "own", plan=volano.Plan.baseline("cpu"))
    network = network_of(ImageOptions(from_=str(own.path)))
    assert network.skeleton["kind"] == "volano"
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(own.model.head(network.trunk(images)), own.model(images))


def test_a_run_of_another_application_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"schema_version": 1, "source": {"kind": "video"}}')
    with pytest.raises(UsageError, match="must be one of the image application"):
        network_of(ImageOptions(from_=str(tmp_path)))


def test_a_network_of_transformers_needs_no_code_of_a_persons(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    folder = save_small_vit(tmp_path / "vit")
    run = volano.train(
        "image", from_=f"hf:{folder}", epochs=1, out=tmp_path / "run",
        plan=volano.Plan.baseline("cpu"),
    )  # fmt: skip
    (folder / "model.safetensors").unlink()  # the run holds all of it
    assert volano.load(run.path).evaluate()["accuracy"] == pytest.approx(
        run.metrics["test_accuracy"]
    )


@pytest.mark.parametrize(
    ("asked", "fit"), [(None, "squeeze"), ("cut", "cut"), ("pad", "pad")], ids=str
)
def test_squares_are_made_as_the_network_states_unless_it_is_asked_for(tmp_path, asked, fit):
    pytest.importorskip("transformers", reason="transformers is not installed")
    for number in range(8):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 16), (30 * number, 0, 0)).save(folder / f"{number}.png")
    network = f"hf:{save_small_vit(tmp_path / 'vit')}"
    found = ImageTraining.read(
        ImageOptions(path=str(tmp_path / "photos"), from_=network, fit=asked, flip="no")
    )
    assert found.spec.fit == fit
    black = (found.train.images[:, :, 0] == 0).all()  # what pads the upper edge
    assert bool(black) == (fit == "pad")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tune": "head"}, "must come with a pretrained network"),
        ({"from_": "pretrained_networks:small", "size": "thin"}, "`size` together with `from_`"),
        ({"from_": "no-such-thing"}, "must name a pretrained network"),
    ],
)
def test_what_does_not_go_together_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        network_of(ImageOptions(**options))


def test_all_code_that_a_run_names_must_be_named(run, monkeypatch):
    monkeypatch.setattr(trust, "_NAMED", {"pretrained_networks:small"})
    monkeypatch.setattr(trust, "_TRUSTED", set())
    spec = volano.load(run.path).spec
    skeleton = {**spec.pretrained["skeleton"], "kind": "volano",
                "spec": {**spec.to_json(), "model_reference": "os:system"}}  # fmt: skip
    changed = dataclasses.replace(spec, pretrained={**spec.pretrained, "skeleton": skeleton})
    with pytest.raises(UsageError, match="os:system in "):
        load_classifier(changed, run.path)
