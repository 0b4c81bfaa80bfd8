"""A small GPT-2 from random weights with the Trainer of transformers.

python trainer_gpt2.py --epochs 1
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Characters(Dataset):
    """Windows of characters of Python's own source."""

    def __init__(self, context, count):
        folder = Path(argparse.__file__).parent
        text = "".join((folder / name).read_text() for name in ("argparse.py", "typing.py"))
        self.codes = torch.tensor([min(ord(letter), 127) for letter in text])
        self.context, self.count = context, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        start = index * 97 % (len(self.codes) - self.context)
        window = self.codes[start : start + self.context]
        return {"input_ids": window, "labels": window}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    width, context, count = (32, 32, 160) if args.small else (192, 128, 1600)
    config = GPT2Config(
        vocab_size=128, n_positions=context, n_embd=width, n_layer=4, n_head=4,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=16,
            num_train_epochs=args.epochs,
            learning_rate=1e-3,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        data = Characters(context, count)
        trainer = Trainer(model=GPT2LMHeadModel(config), args=arguments, train_dataset=data)
        result = trainer.train()
    print(f"loss {result.training_loss:.6f}")


if __name__ == "__main__":
    main()
