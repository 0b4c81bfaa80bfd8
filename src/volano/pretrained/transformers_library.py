"""Networks of Hugging Face's transformers, from a folder or its cache on this machine. Nothing is
downloaded."""

from __future__ import annotations

import contextlib
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from volano.errors import CheckpointError, UsageError, VolanoError, needs_package, reason_of
from volano.pretrained.read_weights import check_fits
from volano.record.files import nearest, nearest_there

# The classes of transformers by which networks are loaded and built.
ENCODER_AUTO, CAUSAL_AUTO = "AutoModel", "AutoModelForCausalLM"
IMAGES_AUTO = "AutoModelForImageClassification"
AUTOS = (ENCODER_AUTO, IMAGES_AUTO, CAUSAL_AUTO)
PIXELS, IDS = "pixel_values", "input_ids"
# No published network has as many layers, or as large a dimension or vocabulary.
_MOST_LAYERS, _MOST_SIZE = 4096, 2**25
_COUNTED = ("layer", "depth", "block", "stage")
# Parts that checkpoints may lack, and that nothing here uses; the head of a language model is used.
_POOLER = "pooler"
_UNUSED = {_POOLER, "classifier", "head"}
_LONGEST_REASON = 160  # characters of another library's error
# The files of tokenizers without tokenizer.json.
_VOCABULARIES = (
    "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"
)  # fmt: skip


def load_network(
    name: str,
    auto: str,
    *,
    takes: str | None = None,
    is_pooled: bool = True,
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Loads a network in fp32, whatever its file holds.

    Args:
        name: a folder, or a name in the cache.
        auto: the class of transformers that loads it: ``"AutoModel"`` and its like.
        takes: what it must take, :data:`PIXELS` or :data:`IDS`; None takes any.
        is_pooled: whether it keeps a pooler that its weights lack; without it, it has none then.
        config: the configuration of a part that is wanted; None is that of the whole.

    Raises:
        MissingExtraError: transformers is not installed.
        UsageError: it is not there, is of another kind, or its weights do not fit.
    """
    library = import_library()
    with _quiet(), _told(name), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # what the weights lack is drawn alike each time
        part = {} if config is None else {"config": library.AutoConfig.for_model(**config)}
        network, info = getattr(library, auto).from_pretrained(
            name, local_files_only=True, output_loading_info=True, dtype=torch.float32,
            ignore_mismatched_sizes=True, trust_remote_code=False, **part,
        )  # fmt: skip
    if takes is not None and network.main_input_name != takes:
        words = {PIXELS: "pictures", IDS: "texts"}[takes]
        raise UsageError(
            f"A pretrained network of {words} must take {takes}",
            got=f"{name}, a {type(network).__name__}, which takes {network.main_input_name}",
        )
    lacking = _check_loaded(name, auto, info)
    if not is_pooled and _POOLER in lacking:
        network = without_pooler(network)
    return network.eval()


def _check_loaded(name: str, auto: str, info: Mapping[str, Any]) -> set[str]:
    """Checks what was loaded by what transformers says of it; returns the parts of the names of
    what weights lack.

    Raises:
        UsageError: the weights lack what is used, or are of other shapes.
    """
    problems = dict.fromkeys(sorted(info["missing_keys"]), "is missing")
    for key, there, own in sorted(info["mismatched_keys"]):
        problems[key] = f"is {list(there)}, not {list(own)}"
    unused = {"position_ids"} | (set() if auto == CAUSAL_AUTO else _UNUSED)
    used = [f"{key} {what}" for key, what in problems.items() if unused.isdisjoint(key.split("."))]
    remedy = "It has other weights than it states"
    if auto == CAUSAL_AUTO:
        remedy = "Take a language model; or say `classify`, if texts are to be told apart"
    check_fits(used, f"hf:{name}", remedy)
    return {part for key in problems for part in key.split(".")}


def without_pooler(network: nn.Module) -> nn.Module:
    """Returns a network that gives no pooled output, but that of each place; it is changed in
    place."""
    if getattr(network, _POOLER, None) is not None:
        setattr(network, _POOLER, None)
    return network


def has_pooler(network: nn.Module) -> bool:
    """Returns whether :func:`without_pooler` has not been there."""
    return getattr(network, _POOLER, network) is not None


def save_network(network: nn.Module, folder: Path) -> None:
    """Writes a network as ``from_pretrained`` loads it."""
    write: Any = network.save_pretrained
    with _quiet():
        write(folder)


def build_network(config: dict[str, Any], auto: str) -> nn.Module:
    """Returns a network of a configuration, for weights to be loaded. A stranger may have written
    it: code that it names is not loaded, and its dimensions are bounded.

    Raises:
        CheckpointError: it is none that can be built.
    """
    rule = "The configuration of a run's network must be one of transformers"
    if auto not in AUTOS:
        raise CheckpointError(rule, got=f"the class {auto!r}"[:200])
    _check_dimensions(config, rule)
    library = import_library()
    try:
        with _quiet():
            made = library.AutoConfig.for_model(**config)
            network = getattr(library, auto).from_config(
                made, trust_remote_code=False, dtype=torch.float32
            )
    except MemoryError:
        raise
    except Exception as error:
        raise CheckpointError(rule, got=_shortened(reason_of(error))) from error
    return network.eval()


def _check_dimensions(value: Any, rule: str, name: str = "config") -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_dimensions(item, rule, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            _check_dimensions(item, rule, name)
    elif isinstance(value, int) and "theta" not in name:  # a base of angles is no size
        is_count = any(word in name for word in _COUNTED)
        if not -_MOST_SIZE <= value <= (_MOST_LAYERS if is_count else _MOST_SIZE):
            raise CheckpointError(rule, got=f"{name}={value}"[:200])


def config_of(name: str) -> dict[str, Any]:
    """Returns the configuration of a network.

    Raises:
        UsageError: it is not there.
    """
    with _quiet(), _told(name):
        config = import_library().AutoConfig.from_pretrained(
            name, local_files_only=True, trust_remote_code=False
        )
    return config.to_dict()


def classes_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the classes that a network's own head tells apart, if its configuration names
    them."""
    is_classifier = any("Classification" in name for name in config.get("architectures") or ())
    names = config.get("id2label") if is_classifier else None
    return tuple(str(names[key]) for key in sorted(names, key=int)) if names else ()


def read_json_of(name: str, file: str, kind: type = dict) -> Any:
    """Returns the object (or the list, by ``kind``) in a file next to a network; an empty one if
    there is none.

    Raises:
        UsageError: it holds something else.
    """
    content = read_bytes_of(name, file)
    try:
        found = kind() if content is None else json.loads(content)
    except ValueError as error:
        raise UsageError(f"{file} must be JSON", got=f"that of {name}: {error}") from error
    if not isinstance(found, kind):
        raise UsageError(f"{file} must hold a {kind.__name__}", got=f"{name}: {str(found)[:60]}")
    return found


def made_tokenizer_of(name: str) -> bytes | None:
    """Returns the ``tokenizer.json`` that transformers makes of the other files of a tokenizer;
    None if there are none, or it cannot."""
    if all(read_bytes_of(name, file) is None for file in _VOCABULARIES):
        return None
    with contextlib.suppress(Exception), _quiet():
        made = import_library().AutoTokenizer.from_pretrained(
            name, local_files_only=True, trust_remote_code=False
        )
        return made.backend_tokenizer.to_str().encode()
    return None


def read_bytes_of(name: str, file: str) -> bytes | None:
    """Returns a file next to a network; None if there is none."""
    if Path(name).is_dir():
        path = Path(name, file)
        return path.read_bytes() if path.is_file() else None
    import_library()
    from transformers.utils import cached_file

    found: Any = cached_file(
        name, file, local_files_only=True, _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )  # fmt: skip
    return None if found is None else Path(found).read_bytes()


def import_library() -> Any:
    """Imports transformers.

    Raises:
        MissingExtraError: it is not installed.
    """
    with needs_package("A network of transformers needs transformers", "'volano[transformers]'"):
        import transformers
    return transformers


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """A context in which other libraries fetch nothing from the hub, but take what is cached."""
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except (VolanoError, MemoryError):
        raise
    except Exception as error:
        is_folder = Path(name).is_dir()
        # What is not in the cache is told as a fault of the network, which is not asked.
        is_missing = isinstance(error, OSError) and not is_folder
        is_told = isinstance(error, OSError | ValueError | ImportError)
        reason = _shortened(str(error) if is_told else f"{type(error).__name__}: {error}")
        raise UsageError(
            "A network of transformers must be a folder with config.json and weights, or be in its "
            "cache on this machine",
            got=name if is_missing else f"{name}: {reason}",
            remedy=_how_to_find(name) if is_missing else None,
        ) from error


def _how_to_find(name: str) -> str | None:
    """Returns what a person can do about a name of which nothing is there."""
    if Path(name).is_file():
        return f"Name the folder in which it lies: hf:{Path(name).parent}"
    there = nearest_there(Path(name))
    if name.startswith((".", "/", "~")) or name.count("/") > 1:  # a path, of which no cache knows
        return there
    near, fetch = nearest(name, _cached_names()), f"Fetch it with: hf download {name}"
    cached = f"Nearest in the cache: {', '.join(near)}" if near else None
    return "; ".join(text for text in (there, cached, fetch) if text)


def _shortened(text: str) -> str:
    return textwrap.shorten(text, _LONGEST_REASON, placeholder=" ...")


def _cached_names() -> list[str]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return [repository.repo_id for repository in scan_cache_dir().repos]
    except (CacheNotFound, OSError, ValueError):
        return []


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the library's bars and warnings from the terminal: what matters of them is checked."""
    from transformers.utils import logging

    before, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if had_bar:
            logging.enable_progress_bar()
