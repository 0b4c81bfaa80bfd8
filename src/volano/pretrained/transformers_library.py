"""Networks of Hugging Face's transformers, from a folder or its cache on this machine. Nothing is
downloaded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from volano.errors import CheckpointError, MissingExtraError, UsageError
from volano.pretrained.weights import check_fits
from volano.record.files import nearest

# The classes of transformers by which networks are loaded and built.
AUTOS = ("AutoModel", "AutoModelForImageClassification", "AutoModelForCausalLM")
# No published network has as many layers, or as large a dimension or vocabulary.
_MOST_LAYERS, _MOST_SIZE = 4096, 2**25
_COUNTED = ("layer", "depth", "block", "stage")
# Parts that checkpoints may lack, and that nothing here uses.
_UNUSED = ("pooler.", "classifier.", "head.", "position_ids")


def load_network(name: str, auto: str) -> nn.Module:
    """Loads a network.

    Args:
        name: a folder, or a name in the cache.
        auto: the class of transformers that loads it: ``"AutoModel"`` and its like.

    Raises:
        MissingExtraError: transformers is not installed.
        UsageError: it is not there, is of another kind, or its weights do not fit.
    """
    library = import_library()
    with _quiet(), _told(name):
        network, info = getattr(library, auto).from_pretrained(
            name, local_files_only=True, output_loading_info=True, dtype=torch.float32,
            ignore_mismatched_sizes=True, trust_remote_code=False,
        )  # fmt: skip
    problems = [f"{key} is missing" for key in sorted(info["missing_keys"])]
    problems += [
        f"{key} is {list(there)}, not {list(own)}"
        for key, there, own in sorted(info["mismatched_keys"])
    ]
    used = [text for text in problems if not any(part in text for part in _UNUSED)]
    check_fits(used, f"hf:{name}")
    return network.eval()


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
    with _quiet():
        made = library.AutoConfig.for_model(**config)
        return getattr(library, auto).from_config(made, trust_remote_code=False).eval()


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


def read_json_of(name: str, file: str) -> dict[str, Any]:
    """Returns the object in a file next to a network; an empty one if there is none."""
    content = read_bytes_of(name, file)
    return {} if content is None else json.loads(content)


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
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            "A network of transformers needs transformers",
            got=str(error),
            remedy="pip install 'volano[transformers]'",
        ) from error
    return transformers


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        is_folder = Path(name).is_dir()
        # What is not in the cache is told as a fault of the network, which is not asked.
        is_missing = isinstance(error, OSError) and not is_folder
        there = [] if is_folder else nearest(name, _cached_names())
        fetch = f"Fetch it with: hf download {name}"
        raise UsageError(
            "A network of transformers must be a folder with config.json and weights, or be in its "
            "cache on this machine",
            got=name if is_missing else f"{name}: {' '.join(str(error).split())[:160]}",
            remedy=f"Nearest in the cache: {', '.join(there)}; {fetch}"
            if there
            else None
            if is_folder
            else fetch,
        ) from error


def _cached_names() -> list[str]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return [repository.repo_id for repository in scan_cache_dir().repos]
    except CacheNotFound:
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
