"""The pretrained causal language models of transformers, whole or behind low-rank adapters (Hu et
al. 2022, "LoRA", by peft).

Shapes: B windows, T tokens, V ids.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from volano.errors import UsageError, needs_package
from volano.pretrained.network_references import LORA
from volano.pretrained.read_weights import digest_of_weights
from volano.pretrained.text_encoders import EncoderTokenizer, load_encoder_tokenizer
from volano.pretrained.transformers_library import (
    CAUSAL_AUTO,
    IDS,
    build_network,
    config_of,
    load_network,
)

# peft's own practice: adapters of rank 8 beside every linear layer, doubled.
RANK, ALPHA = 8, 16
# Logits that do not depend on a token differ by less, of the largest, if it is another one: rows of
# a batch may be rounded differently, and those that depend on it differ by more.
_ROUNDING = 1e-4


class CausalLogits(nn.Module):
    """A language model: ids int64 [B, T] in, logits [B, T, V] out.

    Args:
        network: one of transformers.
        tune: ``"all"``, or ``"lora"`` for frozen weights behind adapters.
    """

    def __init__(self, network: nn.Module, tune: str) -> None:
        super().__init__()
        self.network = with_adapters(network) if tune == LORA else network

    def forward(self, ids: Tensor) -> Tensor:
        return self.network(input_ids=ids, use_cache=False).logits

    def merged(self) -> nn.Module:
        """Returns the network of transformers with the adapters added to its weights."""
        network: Any = self.network
        return network.merge_and_unload() if hasattr(network, "merge_and_unload") else network


def with_adapters(network: nn.Module) -> nn.Module:
    """Returns a network whose weights are frozen, with fresh adapters beside its linear layers.

    Raises:
        MissingExtraError: peft is not installed.
    """
    with needs_package("Low-rank adapters need peft", "'volano[transformers]'"):
        from peft import LoraConfig, get_peft_model
    own: Any = network
    is_conv = any(type(module).__name__ == "Conv1D" for module in network.modules())
    config = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear",
        fan_in_fan_out=is_conv,  # GPT-2 keeps its matrices the other way round
    )  # fmt: skip
    with warnings.catch_warnings():  # peft asks transformers for what is renamed there
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(own, config)


@dataclass(frozen=True, kw_only=True)
class CausalNetwork:
    """A pretrained causal language model.

    Attributes:
        reference: what names it.
        config: its configuration, by which it can be built again.
        end_id: the id behind each document; None if it has none.
        digest: of its weights and its tokenizer.
        module: with its weights.
        notices: texts that a person should read.
    """

    reference: str = field(repr=False)
    config: dict[str, Any] = field(repr=False)
    tokenizer: EncoderTokenizer = field(repr=False)
    end_id: int | None
    digest: str
    module: nn.Module = field(repr=False)
    notices: tuple[str, ...] = field(default=(), repr=False)

    def tuned(self, tune: str) -> CausalLogits:
        """Returns a copy with the pretrained weights, as it is trained."""
        return CausalLogits(copy.deepcopy(self.module), tune)


def load_causal_network(name: str, reference: str) -> CausalNetwork:
    """Loads a causal language model from a folder or the library's cache.

    Raises:
        UsageError: it is not there, has no tokenizer, its weights do not fit, or it sees what it
            is to predict.
    """
    config = config_of(name)
    module = load_network(name, CAUSAL_AUTO, takes=IDS)
    tokenizer, _ = load_encoder_tokenizer(name, config, module)  # nothing is padded: full windows
    _check_causal(module, reference)
    end = config.get("eos_token_id")
    return CausalNetwork(
        reference=reference, config=config, tokenizer=tokenizer,
        end_id=end[0] if isinstance(end, list) else end,
        digest=f"{digest_of_weights(module)}{tokenizer.digest}", module=module,
    )  # fmt: skip


def _check_causal(module: Any, reference: str) -> None:
    """Raises UsageError if the logits of a token depend on those behind it, as in a BERT, which
    transformers takes for a language model too."""
    ids = torch.tensor([[0, 1, 0, 1, 0], [0, 1, 0, 1, 1]])
    with torch.no_grad():
        one, other = module(input_ids=ids, use_cache=False).logits[:, :-1].float()
    if (one - other).abs().max() > _ROUNDING * one.abs().max():
        raise UsageError(
            "A language model must not see the tokens that it is to predict",
            got=f"{reference}, a {type(module).__name__} that looks at both sides",
            remedy="Take one that was trained to continue texts; or say `classify`",
        )


def build_causal(config: dict[str, Any], tune: str) -> CausalLogits:
    """Returns a network of a configuration as it was trained, for its weights to be loaded."""
    return CausalLogits(build_network(config, CAUSAL_AUTO), tune)
