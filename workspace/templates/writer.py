"""From images to words: the vocabulary of reports, a decoder that attends to the image, and its search for a text.

It lies beside train.py in an emitted folder. The encoder is the folder's network; the decoder is that of Vaswani et al.
2017, arXiv:1706.03762, with layer normalisation first, and keeps keys and values so that a word costs one step.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

PAD, BEGIN, END, IMPRESSION, UNKNOWN = range(5)
SPECIAL = ("<pad>", "<begin>", "<end>", "<impression>", "<unknown>")
NEVER = (PAD, BEGIN, UNKNOWN)  # said
HEADS = 4


# ---------------------------------------------------------------------------------------------------- text
def words_of(text: str) -> list[str]:
    """The words, numbers and punctuation marks of a text in lower case.

    >>> words_of("No X-ray changes; 2.5 cm.")
    ['no', 'x-ray', 'changes', ';', '2.5', 'cm', '.']
    """
    return re.findall(r"\d+(?:\.\d+)+|[^\W_]+(?:[-'/][^\W_]+)*|[^\w\s]", text.lower())


def text_of(words: Iterable[str]) -> str:
    """Words as sentences again.

    >>> text_of(["no", "change", ",", "2.5", "cm", ".", "stable", "."])
    'No change, 2.5 cm. Stable.'
    """
    text = re.sub(r" (?=[.,;:!?%)\]])|(?<=[(\[]) ", "", " ".join(words))
    return re.sub(r"(?:^|[.!?] )[a-z]", lambda start: start[0].upper(), text)


def vocabulary_of(reports: Iterable[Sequence[str]], most: int) -> tuple[str, ...]:
    """SPECIAL and the words that come twice or more, the most frequent first."""
    counts = Counter(word for words in reports for word in words if word not in SPECIAL)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return SPECIAL + tuple(word for word, count in ranked if count > 1)[: most - len(SPECIAL)]


def numbered(words: Sequence[str], places: dict[str, int]) -> list[int]:
    """BEGIN, the number of each word, END."""
    return [BEGIN, *(places.get(word, UNKNOWN) for word in words), END]


# ---------------------------------------------------------------------------------------------------- network
Past = tuple[torch.Tensor, torch.Tensor]  # keys and values, (B, HEADS, words, width / HEADS)


class Block(nn.Module):
    """One layer of the decoder: earlier words, the image, a feed-forward step."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.seen, self.asked = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.step = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, image: Past, past: Past | None) -> tuple[torch.Tensor, Past]:
        """Args: x: (B, words, width), one word only where there is a past.  image: keys and values of its tokens."""
        queries, keys, values = map(by_head, self.own(self.norms[0](x)).chunk(3, -1))
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=past is None)
        x = x + self.dropout(self.out[0](together(attended)))
        attended = F.scaled_dot_product_attention(by_head(self.asked(self.norms[1](x))), *image)
        x = x + self.dropout(self.out[1](together(attended)))
        return x + self.dropout(self.step(self.norms[2](x))), (keys, values)

    def look(self, tokens: torch.Tensor) -> Past:
        """Keys and values of an image's tokens (B, tokens, width)."""
        keys, values = map(by_head, self.seen(tokens).chunk(2, -1))
        return keys, values


def by_head(x: torch.Tensor) -> torch.Tensor:
    """(B, n, width) to (B, HEADS, n, width / HEADS)."""
    return x.unflatten(2, (HEADS, -1)).transpose(1, 2)


def together(x: torch.Tensor) -> torch.Tensor:
    """The way back."""
    return x.transpose(1, 2).flatten(2)


class Writer(nn.Module):
    """Images to texts.

    Args: encoder: images (B, channels, *size) to maps (B, features, *grid).  s: Settings, with the vocabulary.
    """

    def __init__(self, encoder: nn.Module, s):
        super().__init__()
        self.encoder, self.longest, words = encoder, s.longest, len(s.vocabulary)
        with torch.no_grad():
            maps = encoder.eval()(torch.zeros(1, s.channels, *s.size))
        features, cells = maps.shape[1], maps[0, 0].numel()
        self.project = nn.Linear(features, s.dim)
        self.places = nn.Parameter(0.02 * torch.randn(cells, s.dim))
        self.bag = nn.Linear(2 * features, words)
        self.embed = nn.Embedding(words, s.dim)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.order = nn.Parameter(0.02 * torch.randn(s.longest, s.dim))
        self.blocks = nn.ModuleList(Block(s.dim, s.dropout) for _ in range(s.depth))
        self.norm, self.dropout = nn.LayerNorm(s.dim), nn.Dropout(s.dropout)

    def forward(self, x: torch.Tensor, words: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """What the next word is after each of `words` (B, n), as logits (B, n, vocabulary), and the bag of words.

        The bag: logits (B, vocabulary) of the words that the report says of the image. Without words: after BEGIN.
        """
        maps = self.encoder(x).flatten(2)
        bag = self.bag(torch.cat([maps.mean(2), maps.amax(2)], 1))
        if words is None:
            words = torch.full((len(x), 1), BEGIN, device=x.device)
        return self.next(words, self.look(maps))[0], bag

    def look(self, maps: torch.Tensor) -> list[Past]:
        """What each layer attends to in the encoder's maps (B, features, cells)."""
        tokens = self.project(maps.transpose(1, 2)) + self.places
        return [block.look(tokens) for block in self.blocks]  # pyright: ignore[reportCallIssue]

    def next(
        self, words: torch.Tensor, image: list[Past], past: list[Past] | None = None
    ) -> tuple[torch.Tensor, list[Past]]:
        """Logits after each word, and what the next call needs to know of these words."""
        start = past[0][0].shape[2] if past else 0
        x = self.dropout(self.embed(words) + self.order[start : start + words.shape[1]])
        kept = []
        for number, block in enumerate(self.blocks):
            x, seen = block(x, image[number], past[number] if past else None)
            kept.append(seen)
        return self.norm(x) @ self.embed.weight.T, kept

    @torch.no_grad()
    def write(self, x: torch.Tensor, beams: int) -> list[list[int]]:
        """The words of a report an image: the best mean log-probability that a beam search finds; 1 beam is greedy."""
        count, device = len(x), x.device
        image = [
            (keys.repeat_interleave(beams, 0), values.repeat_interleave(beams, 0))
            for keys, values in self.look(self.encoder(x).flatten(2))
        ]
        words = torch.full((count * beams, 1), BEGIN, device=device)
        scores = torch.full((count, beams), -torch.inf, device=device)
        scores[:, 0] = 0  # the others are the same text
        ended, lengths, past = torch.zeros_like(scores, dtype=torch.bool), torch.ones_like(scores), None
        for _ in range(self.longest - 1):
            logits, past = self.next(words[:, -1:], image, past)
            logits = logits[:, -1].float()
            logits[:, list(NEVER)] = -torch.inf
            chances = logits.log_softmax(-1).view(count, beams, -1)
            chances[ended] = -torch.inf
            chances[..., PAD][ended] = 0  # a text that has ended stays as it is
            vocabulary = chances.shape[2]
            scores, best = (scores[..., None] + chances).flatten(1).topk(beams)
            origin, said = best // vocabulary, best % vocabulary
            rows = (torch.arange(count, device=device)[:, None] * beams + origin).flatten()
            past = [(keys[rows], values[rows]) for keys, values in past]
            words = torch.cat([words[rows], said.view(-1, 1)], 1)
            ended, lengths = ended.gather(1, origin), lengths.gather(1, origin)
            lengths += ~ended
            ended = ended | (said == END)
            if ended.all():
                break
        chosen = words.view(count, beams, -1)[torch.arange(count, device=device), (scores / lengths).argmax(1)]
        return [[word for word in row if word not in (BEGIN, END, PAD)] for row in chosen.tolist()]
