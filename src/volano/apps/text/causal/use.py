"""A language model of transformers that was trained further: evaluate, generate, export."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volano.apps.application import Table, TrainedModel
from volano.apps.model_card import write_card
from volano.apps.options import DeclaredOptions, takes_options
from volano.apps.text.causal.training import CausalTraining, KeptWindows, windows_of
from volano.apps.text.classify.encoder import tokenizer_of_run
from volano.apps.text.corpus import texts_to_evaluate
from volano.apps.text.generate import TokenSampling, WrittenText
from volano.apps.text.options import TextGenerationOptions
from volano.apps.text.scores import perplexity
from volano.device import Device
from volano.errors import DataError, RunError, UsageError
from volano.pretrained.causal_networks import CausalLogits, build_causal
from volano.pretrained.text_encoders import EncoderTokenizer
from volano.pretrained.transformers_library import CAUSAL_AUTO, load_network, save_network
from volano.record.files import check_out, written_folder
from volano.running.checks import evaluation_name
from volano.training import WEIGHTS, RunFolder, build_and_load

_WINDOWS_AT_ONCE = 4


class CausalModel(TrainedModel):
    """A language model of transformers with its tokenizer; adapters are added to its weights."""

    generate_options: ClassVar[type[DeclaredOptions] | None] = TextGenerationOptions

    def __init__(
        self, folder: RunFolder, about: Mapping[str, Any], module: nn.Module,
        tokenizer: EncoderTokenizer, device: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(folder, module, device)
        self.about, self.tokenizer = about, tokenizer

    @classmethod
    def open(cls, folder: RunFolder, device: str | None = None) -> Self:
        about = folder.read_json("text.json")
        module = build_and_load(
            lambda: build_causal(about["config"], about["tune"]), folder.path / WEIGHTS
        )
        model = cast(CausalLogits, module)
        return cls(folder, about, model.merged(), tokenizer_of_run(folder.path, about), device)

    def evaluate(self, path: str | Path | None = None) -> dict[str, Any]:
        """Computes bits per byte, in fp32.

        Args:
            path: any source of text, all of which is evaluated; None is the run's own held-out
                text.

        Returns:
            See :func:`held_out_figures`. The same stands in the run's folder as
            ``eval-NAME.json``.
        """
        name, notices, faults = "test", (), []
        if path is None:
            kept = KeptWindows.of_run(self.folder)
            origin = f"{kept.origin}, held out"
        else:
            name = evaluation_name(path)
            source, texts, faults = texts_to_evaluate(Path(path))
            kept, origin = self._windows_of(texts, source.origin), source.origin
            notices = source.notices
        figures = held_out_figures(self.module, kept, self.device)
        return self._evaluated(name, origin, {**figures, "notices": notices}, faults)

    def _windows_of(self, texts: Sequence[str], origin: str) -> KeptWindows:
        held = windows_of(texts, self.tokenizer, self.about["end_id"], self.about["context"])
        num_bytes = len("".join(texts).encode())
        return KeptWindows(train=held[:0], held=held, num_held_bytes=num_bytes, origin=origin)

    def describe_evaluation(self, result: Mapping[str, Any]) -> list[str | Table]:
        return [
            f"bits per byte {result['bits_per_byte']:.4f} on {result['num_bytes']:,} bytes of "
            f"{result['origin']}; perplexity {result['perplexity']:.1f} a token"
        ]

    @takes_options(TextGenerationOptions)
    def generate(self, **options: Any) -> CausalGeneration:
        """Writes text behind a prompt, to be iterated over; see ``TextGenerationOptions``."""
        return CausalGeneration(self, TextGenerationOptions.of(options, "writing text"))

    def export(self, to: str, out: str | Path | None = None) -> dict[str, Any]:
        """Writes a folder that ``from_pretrained`` loads, with a model card; loads it back and
        compares.

        Raises:
            UsageError: another format.
            RunError: what was loaded back predicts something else.
        """
        if to != "hf":
            raise UsageError("A fine-tuned language model must be exported to hf", got=repr(to))
        target = Path(out) if out is not None else self.path / "hf"
        if out is not None:
            check_out(target)
        network: Any = copy.deepcopy(self.module).cpu()
        with written_folder(target) as partial:
            save_network(network, partial)
            self.tokenizer.save(partial, eos_token=self.tokenizer.token_of(self.about["end_id"]))
            write_card(self.folder, partial, target.name)
            difference = self._difference(network, partial)
            size = sum(file.stat().st_size for file in partial.iterdir())
        return {
            "run": str(self.path), "path": str(target), "format": to, "bytes": size,
            "num_compared": 1, "largest_difference": difference,
        }  # fmt: skip

    def _difference(self, network: Any, folder: Path) -> float:
        """Returns by how much logits differ from those of what was written."""
        again: Any = load_network(str(folder), CAUSAL_AUTO)
        ids = torch.arange(8)[None] % int(self.about["config"]["vocab_size"])
        with torch.no_grad():
            difference = (again(ids).logits - network(ids).logits).abs().max().item()
        if difference > 1e-4:
            raise RunError(
                "An exported model must predict what the run's model does",
                got=f"logits that differ by {difference}",
            )
        return difference


class CausalGeneration(WrittenText):
    """The text that the model writes."""

    def __init__(self, model: CausalModel, given: TextGenerationOptions) -> None:
        super().__init__(model.path, given)
        self._model, self._given = model, given

    def pieces(self) -> Iterator[str]:
        given, model, sampling = self._given, self._model, TokenSampling.of(self._given)
        generator = torch.Generator().manual_seed(given.seed)
        end, context = model.about["end_id"], model.about["context"]
        seen = model.tokenizer.ids_of(given.prompt) or [end or 0]
        new: list[int] = []
        for _ in range(given.tokens):
            with torch.inference_mode():
                ids = torch.tensor([(seen + new)[-context:]], device=model.device.torch_device)
                logits = model.module(input_ids=ids, use_cache=False).logits[0, -1].float().cpu()
            drawn = sampling.draw(logits, generator)
            if drawn == end:
                break
            new.append(drawn)
            self.num_written = len(new)
            whole = model.tokenizer.text_of(new)
            if not whole.endswith("\ufffd") and len(whole) > len(self.text):
                yield whole[len(self.text) :]


def held_out_figures(
    model: nn.Module, application: CausalTraining | KeptWindows, device: Device
) -> dict[str, Any]:
    """Returns ``bits_per_byte``, ``perplexity``, ``num_bytes`` and ``num_tokens`` of the held-out
    text.

    Raises:
        DataError: there is no token to predict.
    """
    nats, num = 0.0, 0
    with torch.inference_mode():
        for batch in application.held.split(_WINDOWS_AT_ONCE):
            ids = device.move(batch.long())
            found: Any = model(input_ids=ids[:, :-1].clamp(min=0), use_cache=False)
            logits: Tensor = found.logits.float()
            losses = F.cross_entropy(
                logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-1, reduction="sum"
            )
            nats, num = nats + float(losses), num + int((ids[:, 1:] >= 0).sum())
    if not num:
        raise DataError("There must be text to evaluate on", got="no token to predict")
    return {
        "bits_per_byte": nats / math.log(2) / application.num_held_bytes,
        "perplexity": perplexity(nats / num),
        "num_bytes": application.num_held_bytes,
        "num_tokens": num,
    }
