"""A small language model in transformers' form, with random weights, as a folder."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

TEXT = "The lungs are clear. There is a nodule on the left, on the right. No effusion. Normal."


def tiny_gpt2(folder: Path) -> Path:
    """Two layers, 16 wide, and a tokenizer as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    bytes_ = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(initial_alphabet=bytes_, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    torch.manual_seed(7)
    config = GPT2Config(vocab_size=tokenizer.get_vocab_size(), n_positions=64, n_embd=16, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
