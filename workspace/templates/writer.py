"""From images to words: the tokens of reports, and a decoder that attends to the image and searches for a text.

It lies beside train.py in an emitted folder. The encoder is the folder's network; the decoder is a causal language
model of transformers with cross-attention: a small GPT-2 (Radford et al. 2019) with random weights and tokens learnt
from the training reports, or one of a folder in transformers' form, with config.json, safetensors and tokenizer.json.
Nothing is downloaded, and no code or pickle of such a folder is read.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
)

MARKS = ("<pad>", "<begin>", "<end>", "<impression>")
HEADS = 4
KINDS = ("gpt2", "bert")  # to which transformers can add cross-attention, and which write here as they learnt


# ---------------------------------------------------------------------------------------------------- text
class Words:
    """The tokens of reports. Args: written: a tokenizer as JSON text, with MARKS."""

    def __init__(self, written: str):
        self.tokenizer = Tokenizer.from_str(written)
        self.tokenizer.encode_special_tokens = True  # "<end>" in a report is text
        self.size = self.tokenizer.get_vocab_size()
        numbers = self.tokenizer.get_vocab()
        self.marks = [numbers[mark] for mark in MARKS]
        self.pad, self.begin, self.end, self.impression = self.marks

    def numbered(self, findings: str, impression: str) -> list[int]:
        """Begin, the numbers of the findings' tokens, the mark of the impression, those of the impression, end."""
        return [self.begin, *self._numbers(findings), self.impression, *self._numbers(impression), self.end]

    def texts(self, numbers: list[int]) -> dict[str, str]:
        """The findings and the impression; marks are left out."""
        mark = numbers.index(self.impression) if self.impression in numbers else len(numbers)
        parts = {"findings": numbers[:mark], "impression": numbers[mark:]}
        return {name: self.tokenizer.decode(part).strip() for name, part in parts.items()}

    def _numbers(self, text: str) -> list[int]:
        return self.tokenizer.encode(_spaced(text), add_special_tokens=False).ids


def _spaced(text: str) -> str:
    """One space before every word, the first too: it is the same token wherever it stands."""
    return " ".join(["", *text.split()])


def learnt_tokens(reports: Iterable[dict[str, str]], most: int) -> str:
    """A tokenizer as JSON text: bytes that often follow each other in these reports are merged, up to `most` tokens.

    Sennrich et al. 2016, arXiv:1508.07909; on bytes, as in GPT-2.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=most, min_frequency=2, special_tokens=list(MARKS), show_progress=False)
    tokenizer.train_from_iterator((_spaced(text) for report in reports for text in report.values()), trainer)
    return tokenizer.to_str()


# ---------------------------------------------------------------------------------------------------- decoder
def small(s, words: Words) -> GPT2Config:
    """A small GPT-2. Args: s: Settings."""
    return GPT2Config(
        vocab_size=words.size,
        n_positions=s.longest,
        n_embd=s.dim,
        n_layer=s.depth,
        n_head=HEADS,
        resid_pdrop=s.dropout,
        embd_pdrop=s.dropout,
        attn_pdrop=0.0,
        initializer_range=(3 * s.dim) ** -0.5,
        add_cross_attention=True,
        bos_token_id=words.begin,
        eos_token_id=words.end,
    )


def known(config: str) -> PreTrainedConfig:
    """A config that was written as JSON text."""
    return AutoConfig.for_model(**json.loads(config))


def places(model: PreTrainedModel) -> int:
    """The tokens of the longest text that a model takes."""
    return model.config.max_position_embeddings


def drawn(config: PreTrainedConfig) -> PreTrainedModel:
    """A language model with random weights."""
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", trust_remote_code=False)


def pretrained(folder: Path) -> tuple[PreTrainedModel, str]:
    """The causal language model of a folder, with new cross-attention and new MARKS, and its tokenizer as JSON text.

    Raises: ValueError: the folder holds none that can be read safely, or one that cannot attend to an image.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the tokenizer's own are plain Exceptions
        raise ValueError(f"no language model of transformers: {_line(error)}") from error
    if config.model_type not in KINDS:
        raise ValueError(f"a {config.model_type}; what can be made to attend to an image: {', '.join(KINDS)}")
    config.is_decoder, config.add_cross_attention, config.dtype = True, True, torch.float32
    try:
        model, report = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            folder,
            config=config,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # of safetensors, of transformers, of the operating system
        raise ValueError(f"a {config.model_type} whose weights cannot be read safely: {_line(error)}") from error
    if missing := sorted(name for name in report["missing_keys"] if "cross" not in name):
        raise ValueError(f"a {config.model_type} whose weights lack {missing[0]} and {len(missing) - 1} more tensors")
    tokenizer.add_special_tokens(list(MARKS))
    tokenizer.no_truncation()
    model.resize_token_embeddings(max(config.vocab_size, tokenizer.get_vocab_size()), mean_resizing=False)
    return model, tokenizer.to_str()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# ---------------------------------------------------------------------------------------------------- network
class Writer(nn.Module):
    """Images to texts.

    Args: encoder: images (B, channels, *size) to maps (B, features, *grid).  decoder: of tokens.  s: Settings, with
          the tokenizer and the telling words.
    """

    def __init__(self, encoder: nn.Module, decoder: PreTrainedModel, s):
        super().__init__()
        self.encoder, self.decoder, self.words = encoder, decoder, Words(s.tokenizer)
        with torch.no_grad():
            maps = encoder.eval()(torch.zeros(1, s.channels, *s.size))
        features, cells, width = maps.shape[1], maps[0, 0].numel(), int(decoder.config.hidden_size)
        self.project = nn.Linear(features, width)
        self.places = nn.Parameter(0.02 * torch.randn(cells, width))
        self.bag = nn.Linear(2 * features, len(s.telling))
        decoder.generation_config = GenerationConfig(
            max_length=s.longest,
            suppress_tokens=[self.words.pad, self.words.begin],
            bos_token_id=self.words.begin,
            eos_token_id=self.words.end,
            pad_token_id=self.words.pad,
        )
        self.tied = dict(_tied(self))

    def forward(self, x: torch.Tensor, words: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """What the next token is after each of `words` (B, n), as logits (B, n, tokens), and the bag of words.

        The bag: logits (B, telling words) of the words that the report says of the image. Without words: of the first.
        """
        seen, bag = self.look(x)
        words = self._begun(len(x)) if words is None else words
        return self.decoder(input_ids=words, encoder_hidden_states=seen, use_cache=False).logits, bag

    def look(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the decoder attends to in images, (B, cells, width), and the bag of words."""
        maps = self.encoder(x).flatten(2)
        bag = self.bag(torch.cat([maps.mean(2), maps.amax(2)], 1))
        return self.project(maps.transpose(1, 2)) + self.places, bag

    @torch.no_grad()
    def write(self, seen: torch.Tensor, beams: int) -> list[list[int]]:
        """The tokens of a report an image: the best mean log-probability that a beam search finds; 1 beam is greedy.

        Args: seen: what `look` gave.
        """
        begun = self._begun(len(seen))
        kept = EncoderDecoderCache(DynamicCache(), DynamicCache())  # of earlier tokens, and of the image
        told = self.decoder.generate(begun, encoder_hidden_states=seen, num_beams=beams, cache=kept)  # pyright: ignore
        return told.tolist()

    def _begun(self, count: int) -> torch.Tensor:
        return torch.full((count, 1), self.words.begin, device=self.places.device)

    def state_dict(self, *args, **kwargs):
        """Tensors that stand in two places only once: a file of safetensors cannot hold them twice."""
        return {name: tensor for name, tensor in super().state_dict(*args, **kwargs).items() if name not in self.tied}

    def load_state_dict(self, state_dict, *args, **kwargs):
        """All of them."""
        whole = {**state_dict, **{name: state_dict[first] for name, first in self.tied.items()}}
        return super().load_state_dict(whole, *args, **kwargs)


def _tied(net: nn.Module) -> Iterator[tuple[str, str]]:
    """Parameters that were named before: the later name, and the first one."""
    first: dict[int, str] = {}
    for name, tensor in net.named_parameters(remove_duplicate=False):
        if first.setdefault(id(tensor), name) != name:
            yield name, first[id(tensor)]
