"""MVFA as it is here, against a plain transcription of the loop that its authors published: seconds, and peak memory.

    python benchmarks/mvfa.py [--steps 3]        about 5 minutes on one CPU thread

ViT-L/14-336 at 240 pixels, random weights, made-up images and texts; both sides in turn in one process, in seconds of
its CPU time. A job is 4 normal and 4 abnormal images, 11 views of each, 50 epochs of batch 1, and test images, which
the reference scores after every epoch. A few steps are measured and multiplied. Where there is a CUDA device, images a
second on it are printed as well.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from m3dspy.workspace import mvfa

NETWORK, SIZE, LEVELS = "ViT-L-14-336", 240, (6, 12, 18, 24)
SHOTS, VIEWS, EPOCHS, TESTED = 4, 11, 50, (200, 3715)  # test images: a small set, and Brain of the paper
RESIDUALS = {"exact": (0.8, 0.1, 0.1), "without residual": (1.0, 0.0, 0.0)}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16 operations a second, NVIDIA's data sheets


# ------------------------------------------------------------------------------------------------ the reference
class Reference(nn.Module):
    """Its forward: attention weights in every block, gradients for all of CLIP."""

    def __init__(self):
        super().__init__()
        self.clip: Any = mvfa.clip_model(NETWORK, SIZE).requires_grad_(True)
        tower = self.clip.visual
        width, embed = tower.conv1.out_channels, tower.output_dim
        self.seg, self.det = (nn.ModuleList(_Adapter(width, embed) for _ in LEVELS) for _ in range(2))

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        tower, maps = self.clip.visual, []
        x = tower._embeds(image).transpose(0, 1)  # (tokens, images, features), as it lays them out
        seg, det = [], []
        for number, layer in enumerate(tower.transformer.resblocks, 1):
            seen, weights = _attended(layer, layer.ln_1(x))
            x = x + seen
            x = x + layer.mlp(layer.ln_2(x))
            if number == LEVELS[1]:
                maps.append(weights)
            if number in LEVELS:
                level = LEVELS.index(number)
                (h_seg, y_seg), (h_det, y_det) = self.seg[level](x), self.det[level](x)
                x = 0.8 * x + 0.1 * y_seg + 0.1 * y_det
                seg.append(h_seg.transpose(0, 1))
                det.append(h_det.transpose(0, 1))
        return tower.ln_post(x[0]) @ tower.proj, seg, det


class _Adapter(nn.Module):
    def __init__(self, width: int, embed: int):
        super().__init__()
        self.fc1 = nn.Sequential(nn.Linear(width, embed, bias=False), nn.LeakyReLU())
        self.fc2 = nn.Sequential(nn.Linear(embed, width, bias=False), nn.LeakyReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.fc1(x)
        return h, self.fc2(h)


def _attended(layer: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
    attn = layer.attn
    inner = (attn.in_proj_weight, attn.in_proj_bias, None, None, False, 0.0, attn.out_proj.weight, attn.out_proj.bias)
    return F.multi_head_attention_forward(x, x, x, x.shape[2], attn.num_heads, *inner, need_weights=True)


def _logits(h: Tensor, text: Tensor) -> Tensor:
    """(1, L, 2)"""
    p = h[:, 1:] / h[:, 1:].norm(dim=-1, keepdim=True)
    return 100 * p @ text


def _map(values: Tensor) -> Tensor:
    """(1, L, C) -> (1, C, 240, 240)"""
    side = int(values.shape[1] ** 0.5)
    grid = values.transpose(1, 2).reshape(1, -1, side, side)
    return F.interpolate(grid, (SIZE, SIZE), mode="bilinear", align_corners=True)


def reference_loss(seg: list[Tensor], det: list[Tensor], text: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    total = torch.zeros(())
    for level in range(len(LEVELS)):
        score = _logits(det[level], text).softmax(-1)[..., 1].mean(1)
        total = total + F.binary_cross_entropy_with_logits(score, label)
        chance = _map(_logits(seg[level], text)).softmax(1)
        truth = torch.stack([~mask, mask], 1).float().clamp(1e-5, 1 - 1e-5)
        p = (truth * chance).sum(1) + 1e-5
        total = total - ((1 - p) ** 2 * p.log()).mean()
        both, either = (chance[:, 1] * mask).sum(), chance[:, 1].sum() + mask.sum()
        total = total + 1 - (2 * both + 1) / (either + 1)
    return total


def reference_map(seg: list[Tensor], bank: list[Tensor], text: Tensor) -> tuple[Tensor, Tensor]:
    by_text, by_bank = torch.zeros(()), torch.zeros(())
    for h, known in zip(seg, bank, strict=True):
        by_text = by_text + _map(_logits(h, text)).softmax(1)[:, 1]
        query = h[0, 1:]
        cosine = (query / query.norm(dim=1)[:, None]) @ (known / known.norm(dim=1)[:, None]).T
        by_bank = by_bank + _map((1 - cosine).amin(1)[None, :, None])
    return by_text, by_bank


# ------------------------------------------------------------------------------------------------ both sides
def adams(*parts: nn.Module, fused: bool = False) -> list[torch.optim.Adam]:
    return [torch.optim.Adam(part.parameters(), lr=1e-3, betas=(0.5, 0.999), fused=fused) for part in parts]


def stepped(optimisers: list[torch.optim.Adam], loss: Callable[[], Tensor]) -> None:
    for optimiser in optimisers:
        optimiser.zero_grad()
    loss().backward()
    for optimiser in optimisers:
        optimiser.step()


class Data:
    """Made-up images and what else a step needs."""

    def __init__(self):
        made = torch.Generator().manual_seed(0)
        self.images = torch.rand(16, 3, SIZE, SIZE, generator=made)
        self.masks = torch.rand(16, SIZE, SIZE, generator=made) > 0.9
        self.labels = torch.tensor([0.0, 1.0]).repeat(8)
        self.text = F.normalize(torch.randn(768, 2, generator=made), dim=0)

    def one(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        some = slice(number % 16, number % 16 + 1)
        return self.images[some], self.masks[some], self.labels[some]

    def bank(self) -> list[Tensor]:
        """Tokens of the normal images' views, level by level."""
        return [torch.randn(SHOTS * VIEWS, 290, 768, device=self.text.device) for _ in LEVELS]


class Theirs:
    """The reference's pieces of work."""

    def __init__(self, data: Data):
        self.data, self.model = data, Reference()
        self.optimisers = adams(self.model.seg, self.model.det)
        self.bank = [level.flatten(0, 1) for level in data.bank()]

    def step(self, number: int) -> None:
        image, mask, label = self.data.one(number)

        def loss() -> Tensor:
            _, seg, det = self.model(image)
            return reference_loss(seg, det, self.data.text, mask, label)

        stepped(self.optimisers, loss)

    @torch.no_grad()
    def forward(self, number: int) -> None:
        self.model(self.data.one(number)[0])

    @torch.no_grad()
    def test(self, number: int) -> None:
        reference_map(self.model(self.data.one(number)[0])[1], self.bank, self.data.text)


class Ours:
    """The same with the trunk frozen, on an MVFA with the paper's residual, or without one: all of CLIP is kept."""

    def __init__(self, data: Data, model: mvfa.MVFA):
        self.data, self.model = data, model
        self.optimisers = adams(model.seg_adapters, model.det_adapters, fused=True)
        self.bank, self.kept = mvfa.MemoryBank(data.bank()), model.frozen(data.images[:1].to(data.text.device))

    def frozen(self, number: int) -> None:
        self.kept = self.model.frozen(self.data.one(number)[0])

    def step(self, number: int) -> None:
        _, mask, label = self.data.one(number)
        stepped(self.optimisers, lambda: self._loss(mask, label))

    def _loss(self, mask: Tensor, label: Tensor) -> Tensor:
        return mvfa.losses(self.model.adapted(self.kept), self.data.text, mask, label, SIZE)["pixel"]

    @torch.no_grad()
    def rest(self, number: int) -> None:
        self.model.adapted(self.kept)

    @torch.no_grad()
    def test(self, number: int) -> None:
        """What is left of a test image whose frozen tokens are known."""
        seg = self.model.adapted(self.kept).seg_tokens
        mvfa.anomaly_map(seg, self.data.text, SIZE).sum(0)
        self.bank.map(seg, SIZE)


def in_turn(steps: int, works: dict[str, Callable[[int], Any]]) -> dict[str, float]:
    """Seconds of one of each: the median of `steps`, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(steps + 1):
        for name, work in works.items():
            began = time.process_time()
            work(number)
            seconds[name].append(time.process_time() - began)
    return {name: median(times[1:]) for name, times in seconds.items()}


def aucs(millions: float = 2.0) -> tuple[float, float]:
    """Seconds that the pixels of a test image take: sklearn's AUROC, and ours."""
    made = np.random.default_rng(0)
    truth, score = made.random(int(millions * 1e6)) < 0.03, made.random(int(millions * 1e6), dtype=np.float32)
    share = SIZE * SIZE / len(truth)
    works = {"sklearn": lambda _: roc_auc_score(truth, score), "ours": lambda _: mvfa.auroc(truth, score)}
    seconds = in_turn(1, works)
    return seconds["sklearn"] * share, seconds["ours"] * share


def peak_memory(side: str) -> float:
    """Megabytes that building a model, two steps and one test image take, in a process of its own."""
    command = [sys.executable, __file__, "--memory", side]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def use_memory(side: str) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = Data()
    if side == "reference":
        work: Any = Theirs(data)
    else:
        model = mvfa.MVFA(mvfa.clip_model(NETWORK, SIZE), LEVELS, residual=RESIDUALS[side])
        work = Ours(data, model)
    work.step(0)
    work.step(1)
    work.test(0)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) / 1024)


# ------------------------------------------------------------------------------------------------ tables
def on_the_processor(steps: int) -> None:
    memory = {name: peak_memory(name) for name in ("reference", *RESIDUALS)}  # first: a process starts at its parent's
    data, samples = Data(), 2 * SHOTS * VIEWS
    theirs = Theirs(data)
    tower = mvfa.clip_model(NETWORK, SIZE)
    sides = {name: Ours(data, mvfa.MVFA(tower, LEVELS, residual=shares)) for name, shares in RESIDUALS.items()}
    works = {"their step": theirs.step, "their forward": theirs.forward, "their test": theirs.test}
    for name, side in sides.items():
        works |= {f"{name} trunk": side.frozen, f"{name} step": side.step, f"{name} rest": side.rest}
        works[f"{name} test"] = side.test
    s = in_turn(steps, works)
    del theirs
    sklearn, ranks = aucs()

    training = EPOCHS * samples * s["their step"]
    print("| | reference | paper's, exact | ratio | without residual | ratio |\n|---|---|---|---|---|---|")

    def row(name: str, reference: float, ours: list[float], unit: str) -> None:
        cells = "".join(f" {value:.4g} {unit} | {reference / value:.1f}x |" for value in ours)
        print(f"| {name} | {reference:.4g} {unit} |{cells}", flush=True)

    names, ours = list(sides), range(2)
    trunk, step, rest, test = ([s[f"{name} {part}"] for name in names] for part in ("trunk", "step", "rest", "test"))
    row("training step, batch 1", s["their step"], step, "s")
    row("test image, not seen before", s["their test"], [trunk[i] + test[i] for i in ours], "s")
    row("pixel AUROC, a test image", 1000 * sklearn, [1000 * ranks] * 2, "ms")
    tuned = [EPOCHS * samples * step[i] for i in ours]
    row("one more trial: training alone", training / 60, [tuned[i] / 60 for i in ours], "min")
    for images in TESTED:
        job = training + EPOCHS * (SHOTS * VIEWS * s["their forward"] + images * (s["their test"] + sklearn))
        trial = [tuned[i] + SHOTS * VIEWS * rest[i] + images * (test[i] + ranks) for i in ours]
        first = [trial[i] + (samples + images) * trunk[i] for i in ours]
        row(f"job, {images} test images", job / 60, [value / 60 for value in first], "min")
        row("one more trial of it", job / 60, [value / 60 for value in trial], "min")
    row("peak memory", memory["reference"], [memory[name] for name in names], "MB")


def on_a_device(steps: int, device: str, batch: int = 16) -> None:
    """Images a second in bfloat16, and what the operations counted make of the device's peak."""
    from torch.utils.flop_counter import FlopCounterMode

    data, name = Data(), torch.cuda.get_device_name() if device == "cuda" else device
    data.text = data.text.to(device)
    peak = next((value for known, value in PEAK.items() if known in name), None)
    tower = mvfa.clip_model(NETWORK, SIZE).to(device)
    print(f"\n{name}, batch {batch}\n\n| | images/s | TFLOP/s | of peak | job |\n|---|---|---|---|---|")
    for kind, residual in RESIDUALS.items():
        side = Ours(data, mvfa.MVFA(tower, LEVELS, residual=residual).to(device))
        images, masks, labels = (part[:batch].to(device) for part in (data.images, data.masks, data.labels))

        def tokens(side: Ours = side, images: Tensor = images) -> None:
            side.kept = side.model.frozen(images)

        def step(side: Ours = side, masks: Tensor = masks, labels: Tensor = labels) -> None:
            stepped(side.optimisers, lambda: side._loss(masks, labels))

        rates = {}
        for part, work in (("trunk", tokens), ("training", step), ("scoring", lambda side=side: side.test(0))):
            with torch.autocast(device, torch.bfloat16):
                with FlopCounterMode(display=False) as counted:
                    work()
                began = _now(device)
                for _ in range(steps):
                    work()
            rates[part] = steps * batch / (_now(device) - began)
            speed = counted.get_total_flops() / batch * rates[part]
            share = f"{speed / peak:.0%}" if peak else "unknown"
            print(f"| {kind}, {part} | {rates[part]:.0f} | {speed / 1e12:.1f} | {share} | |")
        samples = 2 * SHOTS * VIEWS
        seen, tested = samples + TESTED[0], TESTED[0]
        job = seen / rates["trunk"] + EPOCHS * samples / rates["training"] + tested / rates["scoring"]
        print(f"| {kind}, {tested} test images | | | | {job:.1f} s |", flush=True)


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="of each kind; the median counts")
    parser.add_argument("--memory", choices=("reference", *RESIDUALS), help="print what one side takes, in MB")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        use_memory(given.memory)
        return
    on_the_processor(given.steps)
    if torch.cuda.is_available():
        on_a_device(20, "cuda")


if __name__ == "__main__":
    main()
