"""A whole few-shot run, fast, against the same run done step by step without any shortcut; in float64."""

import torch
import torch.nn.functional as F
from mvfa_micro import golden, images, micro_clip
from torch import nn

from m3dspy.workspace import mvfa

LEVELS, SIZE = (6, 12, 18, 24), 70
TEXT = golden()["text"].double()
STEPS = 44  # each of 22 views twice


def shots():
    """Eleven views of a normal image, eleven of an abnormal one; masks and labels."""
    normal = golden()["normal_u8"].double() / 255
    marked = torch.stack([torch.zeros(70, 70, dtype=torch.bool), golden()["mask"][0, 0]])
    views, masks = mvfa.augment(torch.cat([normal, images()[:1].double()]), marked)
    return views, masks, torch.tensor([0.0, 1.0]).repeat(11)


def order():
    """Which view each step learns from."""
    drawn = torch.Generator().manual_seed(111)
    return torch.cat([torch.randperm(22, generator=drawn) for _ in range(STEPS // 22)]).tolist()


def adams(seg, det):
    return [torch.optim.Adam(part.parameters(), lr=1e-3, betas=(0.5, 0.999)) for part in (seg, det)]


# ------------------------------------------------------------------------------------------------ step by step
class Plain(nn.Module):
    """MVFA on open_clip's own blocks, with gradients for all of it."""

    def __init__(self):
        super().__init__()
        self.visual = micro_clip().visual
        self.seg = nn.ModuleList(nn.ModuleList([nn.Linear(32, 24, False), nn.Linear(24, 32, False)]) for _ in LEVELS)
        self.det = nn.ModuleList(nn.ModuleList([nn.Linear(32, 24, False), nn.Linear(24, 32, False)]) for _ in LEVELS)
        for kind, part in (("seg", self.seg), ("det", self.det)):
            for level, adapter in enumerate(part):
                for number, layer in enumerate(adapter, 1):
                    layer.weight.data = golden()["adapters_fp16"][
                        f"{kind}_adapters.{level}.fc{number}.0.weight"
                    ].float()

    def forward(self, image):
        x, tokens = self.visual._embeds(image), ([], [])
        for number, layer in enumerate(self.visual.transformer.resblocks, 1):
            x = layer(x)
            if number in LEVELS:
                mixed = 0.8 * x
                for part, kept in zip((self.seg, self.det), tokens, strict=True):
                    down, up = part[LEVELS.index(number)]
                    kept.append(F.leaky_relu(down(x)))
                    mixed = mixed + 0.1 * F.leaky_relu(up(kept[-1]))
                x = mixed
        return tokens


def chance(h):
    """(2, 5, 5): logits of one image's patches."""
    p = h[0, 1:] / h[0, 1:].norm(dim=1, keepdim=True)
    return (100 * p @ TEXT).T.reshape(2, 5, 5)


def whole(grid):
    return F.interpolate(grid[None], (SIZE, SIZE), mode="bilinear", align_corners=True)[0]


def plain_loss(tokens, mask, label):
    total = torch.zeros((), dtype=torch.float64)
    for seg, det in zip(*tokens, strict=True):
        sure = chance(det).flatten(1).softmax(0)[1].mean()
        total = total + F.softplus(sure) - label * sure
        probability = whole(chance(seg)).softmax(0)
        truth = torch.stack([~mask, mask]).double().clamp(1e-5, 1 - 1e-5)
        p = (truth * probability).sum(0) + 1e-5
        total = total - ((1 - p) ** 2 * p.log()).mean()
        overlap = 2 * (probability[1] * mask).sum() + 1
        total = total + 1 - overlap / (probability[1].sum() + mask.sum() + 1)
    return total


def plain_run(views, masks, labels):
    model = Plain().double()
    optimisers = adams(model.seg, model.det)
    for step in order():
        for optimiser in optimisers:
            optimiser.zero_grad()
        plain_loss(model(views[step : step + 1]), masks[step], labels[step]).backward()
        for optimiser in optimisers:
            optimiser.step()
    with torch.no_grad():
        memory = [torch.cat(level) for level in zip(*(model(view[None])[0] for view in views[::2]), strict=True)]
        maps = []
        for image in images().double():
            text, bank = 0, 0
            for h, known in zip(model(image[None])[0], memory, strict=True):
                text = text + whole(chance(h)).softmax(0)[1]
                nearest = F.cosine_similarity(h[0, 1:, None], known.flatten(0, 1)[None], dim=2).max(1).values
                bank = bank + whole((1 - nearest).reshape(1, 5, 5))[0]
            maps.append((text, bank))
    text, bank = (torch.stack(part) for part in zip(*maps, strict=True))
    scores = [(part - part.min()) / (part.max() - part.min()) for part in (text, bank)]
    return [layer.weight for part in (model.seg, model.det) for adapter in part for layer in adapter], sum(scores) / 2


# ------------------------------------------------------------------------------------------------ the fast way
def fast_run(views, masks, labels):
    model = mvfa.MVFA(micro_clip().double())
    mvfa.load_adapters(model, golden()["adapters_fp16"])
    cache = mvfa.FeatureCache("float64")
    arrays = [torch.from_numpy(array) for array in cache.of(views, model.frozen)]
    optimisers = adams(model.seg_adapters, model.det_adapters)
    for step in order():
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        output = model.adapted(arrays[step][None])
        mvfa.losses(output, TEXT, masks[step], labels[step], SIZE)["pixel"].backward()
        for optimiser in optimisers:
            optimiser.step()
    with torch.no_grad():
        bank = mvfa.MemoryBank(model.adapted(torch.stack(arrays[::2])).seg_tokens)
        seg = model.adapted(model.frozen(images().double())).seg_tokens
        maps = mvfa.anomaly_map(seg, TEXT, SIZE).sum(0), bank.map(seg, SIZE)
    return list(model.adapters.parameters()), mvfa.fuse(*map(mvfa.min_max, maps), 0.5)


def test_a_run_on_cached_tokens_ends_where_the_plain_one_does():
    given = shots()
    (plain, wanted), (fast, found) = plain_run(*given), fast_run(*given)
    moved = max(
        float((weight.detach() - golden()["adapters_fp16"][name]).abs().max())
        for name, weight in zip(mvfa.Adapters(32, 24, 4).state_dict(), fast, strict=True)
    )
    assert moved > 0.01  # it did learn
    for one, other in zip(plain, fast, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert found.shape == (2, 70, 70)
