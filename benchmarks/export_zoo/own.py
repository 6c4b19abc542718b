# ruff: noqa: D102 - what forward does is said by its class
"""Small models written for the zoo: recurrent, graph, flow, control flow, several outputs, and other code from practice.

The last few are traps: no tool can export them correctly, and the question is which tools report this.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as all of torch's users write it


class Recurrent(nn.Module):
    """A recurrent layer and a head on its last step."""

    def __init__(self, cell: type[nn.RNNBase], **options: int | bool) -> None:
        super().__init__()
        self.cell = cell(8, 12, batch_first=True, **options)
        self.head = nn.Linear(24 if options.get("bidirectional") else 12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class LstmStates(nn.Module):
    """An LSTM that takes its state and returns the next one, as streaming speech models do."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12, batch_first=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x, (h[None], c[None]))
        return y, h[0], c[0]


class LstmCell(nn.Module):
    """A loop over the steps in Python: unrolled by a tracer, kept as a loop when scripted."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 12)
        c = torch.zeros(x.shape[0], 12)
        for step in range(x.shape[1]):
            h, c = self.cell(x[:, step], (h, c))
        return h


class AttentionTagger(nn.Module):
    """Embedding, bidirectional LSTM, additive attention, and a tag for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.lstm = nn.LSTM(16, 8, batch_first=True, bidirectional=True)
        self.score = nn.Linear(16, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, ids: Tensor) -> Tensor:
        y = self.lstm(self.embed(ids))[0]
        context = (self.score(y).softmax(1) * y).sum(1, keepdim=True)
        return self.head(torch.cat([y, context.expand_as(y)], -1)).log_softmax(-1)


class GruSeq2Seq(nn.Module):
    """An encoder and a teacher-forced decoder of two lengths, with attention between."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.encoder = nn.GRU(12, 12, batch_first=True)
        self.decoder = nn.GRU(12, 12, batch_first=True)
        self.head = nn.Linear(24, 50)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, state = self.encoder(self.embed(source))
        y = self.decoder(self.embed(target), state)[0]
        weights = (y @ memory.transpose(1, 2)).softmax(-1)
        return self.head(torch.cat([y, weights @ memory], -1))


class Encoder(nn.Module):
    """`nn.TransformerEncoder` with a padding mask and learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.positions = nn.Parameter(torch.randn(1, 32, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        first = torch.zeros_like(padding[:, :1])  # the first token is always real
        padding = torch.cat([first, padding[:, 1:]], 1)
        x = self.embed(ids) + self.positions[:, : ids.shape[1]]
        return self.encoder(x, src_key_padding_mask=padding)[:, 0]


class CrossAttention(nn.Module):
    """`nn.MultiheadAttention` between two sets of different sizes; returns the weights too."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(query, keys, keys)


class UNet(nn.Module):
    """Two levels with a skip; resizes to the skip's size, so any height and width works."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.Conv2d(24, 2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        skip = self.down(image)
        deep = F.interpolate(self.deep(skip), size=skip.shape[2:], mode="bilinear", align_corners=False)
        return self.up(torch.cat([skip, deep], 1))


def super_resolution() -> nn.Module:
    """Return convolutions and a pixel shuffle (ESPCN)."""
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2))


def generator() -> nn.Module:
    """Return a DCGAN generator."""
    return nn.Sequential(
        nn.Unflatten(1, (16, 1, 1)),
        nn.ConvTranspose2d(16, 16, 4),
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(3, affine=True),
        nn.Tanh(),
    )


class VariationalAutoencoder(nn.Module):
    """Mean, log variance and the reconstruction of the mean, as it is served."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 8))
        self.decoder = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 32))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        return {"mean": mean, "log_variance": log_variance, "reconstruction": self.decoder(mean)}


class SpatialTransformer(nn.Module):
    """affine_grid and grid_sample, from the PyTorch tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(nn.Conv2d(1, 4, 7, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 6))
        self.head = nn.Linear(784, 10)

    def forward(self, image: Tensor) -> Tensor:
        theta = 0.1 * self.locate(image).view(-1, 2, 3) + torch.eye(2, 3)
        warped = F.grid_sample(image, F.affine_grid(theta, list(image.shape), align_corners=False), align_corners=False)
        return self.head(warped.flatten(1))


class TemporalConvolution(nn.Module):
    """Dilated causal convolutions over a sequence of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(4 if i == 0 else 8, 8, 3, dilation=2**i) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(F.pad(x, ((layer.kernel_size[0] - 1) * layer.dilation[0], 0))))
        return x.mean(-1)


class WaveNet(nn.Module):
    """Gated residual layers with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, 8, 1)
        self.gates = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=2**i, padding=2**i) for i in range(4))
        self.leave = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        total = torch.zeros_like(x)
        for gate, leave in zip(self.gates, self.leave, strict=True):
            a, b = gate(x)[..., : x.shape[-1]].chunk(2, 1)
            y = leave(a.tanh() * b.sigmoid())
            total, x = total + y, x + y
        return total


class SpectrogramClassifier(nn.Module):
    """Magnitudes of a short-time Fourier transform, then a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(128))
        self.conv = nn.Conv1d(65, 8, 3)

    def forward(self, audio: Tensor) -> Tensor:
        spectrum = torch.stft(audio, 128, 64, window=self.window, center=False, return_complex=True)
        return self.conv(torch.log1p(spectrum.real**2 + spectrum.imag**2)).amax(-1)


class FourierOperator(nn.Module):
    """One layer of a Fourier neural operator: real FFT, complex weights on the low modes, inverse FFT."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(1, 6)
        self.weights = nn.Parameter(torch.randn(6, 6, 8, 2) / 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lift(x).transpose(1, 2)
        low = torch.fft.rfft(y)[..., :8]
        low = torch.einsum("bik,iok->bok", low, torch.view_as_complex(self.weights))
        return y + torch.fft.irfft(F.pad(low, (0, 25)), n=64)


class GraphConvolution(nn.Module):
    """Two layers of message passing: gather at the sources, index_add at the targets, mean by degree."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 4)])

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges[0], edges[1]
        degree = torch.zeros(x.shape[0]).index_add(0, target, torch.ones(edges.shape[1])).clamp(min=1)
        for layer in self.layers:
            messages = layer(x)[source]
            x = torch.zeros(x.shape[0], messages.shape[1]).index_add(0, target, messages) / degree[:, None]
            x = F.elu(x)
        return x


class GraphAttention(nn.Module):
    """A softmax over each node's edges with scatter_reduce (GAT)."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(8, 6)
        self.score = nn.Linear(12, 1)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges[0], edges[1]
        value = self.value(x)
        score = F.leaky_relu(self.score(torch.cat([value[source], value[target]], -1))).squeeze(-1)
        highest = torch.full((x.shape[0],), -1e9).scatter_reduce(0, target, score, "amax")
        weight = (score - highest[target]).exp()
        total = torch.zeros(x.shape[0]).scatter_add(0, target, weight)
        index = target[:, None].expand(-1, 6)
        return torch.zeros(x.shape[0], 6).scatter_add(0, index, (weight / total[target])[:, None] * value[source])


class BatchedGather(nn.Module):
    """Messages from three neighbours of each node, for a batch of graphs of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.message = nn.Linear(16, 8)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        index = neighbours.flatten(1)[..., None].expand(-1, -1, x.shape[-1])
        gathered = torch.gather(x, 1, index).view(x.shape[0], 12, 3, 8)
        pairs = torch.cat([gathered, x[:, :, None].expand_as(gathered)], -1)
        return self.message(pairs).amax(2)


class PointCloud(nn.Module):
    """Edge convolution over the four nearest neighbours (DGCNN): cdist, topk, advanced indexing."""

    def __init__(self) -> None:
        super().__init__()
        self.edge = nn.Linear(6, 8)

    def forward(self, points: Tensor) -> Tensor:
        nearest = torch.cdist(points, points).topk(4, largest=False).indices
        rows = torch.arange(points.shape[0])[:, None, None]
        around = points[rows, nearest]
        pairs = torch.cat([around - points[:, :, None], points[:, :, None].expand_as(around)], -1)
        return self.edge(pairs).amax(2).mean(1)


class DeepSets(nn.Module):
    """A function of a set: mean, maximum and standard deviation over its items."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Sequential(nn.Linear(6, 8), nn.SiLU())
        self.head = nn.Linear(24, 2)

    def forward(self, items: Tensor) -> Tensor:
        y = self.item(items)
        return self.head(torch.cat([y.mean(1), y.amax(1), y.std(1, unbiased=False)], -1))


class RealNvp(nn.Module):
    """Affine couplings; returns the latent and the log density."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6)) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = torch.zeros(x.shape[0])
        for net in self.nets:
            a, b = x.chunk(2, -1)
            scale, shift = net(a).chunk(2, -1)
            x = torch.cat([b * scale.tanh().exp() + shift, a], -1)
            log_det = log_det + scale.tanh().sum(-1)
        return x, torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1) + log_det


class AutoregressiveFlow(nn.Module):
    """Masked autoregressive layers, with in-place writes to columns for the inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 5, 5) / 4)

    def forward(self, x: Tensor) -> Tensor:
        lower = torch.tril(torch.ones(5, 5), -1)
        y = torch.zeros_like(x)
        for i in range(5):
            shift = (y @ (self.weight[0] * lower).T)[:, i]
            scale = (y @ (self.weight[1] * lower).T)[:, i].tanh()
            y[:, i] = x[:, i] * scale.exp() + shift
        return y


class SplineFlow(nn.Module):
    """A monotone piecewise-linear transform: softmax widths, cumsum, searchsorted, gather."""

    def __init__(self) -> None:
        super().__init__()
        self.heights = nn.Parameter(torch.randn(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        u = x.sigmoid() * 0.999
        steps = F.softmax(self.heights, -1)
        edges = F.pad(steps.cumsum(-1), (1, 0))
        position = u * 8
        bin_ = position.floor().long().clamp(0, 7)
        low = torch.gather(edges.expand(x.shape[0], -1, -1), 2, bin_[..., None]).squeeze(-1)
        step = torch.gather(steps.expand(x.shape[0], -1, -1), 2, bin_[..., None]).squeeze(-1)
        return low + step * (position - bin_)


class Glow(nn.Module):
    """Actnorm, an invertible 1x1 convolution with its log determinant, an affine coupling, a squeeze."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(0.1 * torch.randn(1, 4, 1, 1))
        self.mix = nn.Parameter(torch.linalg.qr(torch.randn(4, 4))[0])
        self.net = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = F.conv2d(image * self.log_scale.exp(), self.mix[:, :, None, None])
        a, b = x.chunk(2, 1)
        scale, shift = self.net(a).chunk(2, 1)
        log_det = scale.sigmoid().log().sum((1, 2, 3)) + 64 * self.log_scale.sum()
        y = F.pixel_unshuffle(torch.cat([a, b * scale.sigmoid() + shift], 1), 2)
        return y, log_det


class NeuralOde(nn.Module):
    """Ten steps of Runge-Kutta."""

    def __init__(self) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        h = 0.1
        for _ in range(10):
            k1 = self.field(x)
            k2 = self.field(x + h / 2 * k1)
            k3 = self.field(x + h / 2 * k2)
            k4 = self.field(x + h * k3)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x


class Capsules(nn.Module):
    """Routing by agreement: einsum and a fixed number of softmax iterations."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(10, 3, 8, 6))

    def forward(self, x: Tensor) -> Tensor:
        votes = torch.einsum("bni,ncio->bnco", x, self.weight)
        logits = torch.zeros(votes.shape[:3])
        out = votes.sum(1)
        for _ in range(3):
            s = (logits.softmax(-1)[..., None] * votes).sum(1)
            norm = s.norm(dim=-1, keepdim=True)
            out = norm / (1 + norm**2) * s
            logits = logits + (votes * out[:, None]).sum(-1)
        return out.norm(dim=-1)


class MixtureOfExperts(nn.Module):
    """The two best of four experts for each token, all computed and then gathered."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        answers = torch.stack([expert(x) for expert in self.experts], -2)
        picked = torch.gather(answers, -2, chosen[..., None].expand(*chosen.shape, 8))
        return (weights[..., None] * picked).sum(-2)


class SelectiveScan(nn.Module):
    """A state space model whose step sizes depend on the input, scanned in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.Parameter(-torch.rand(8, 4))
        self.project = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        step, mix = self.project(x).chunk(2, -1)
        step = F.softplus(step)
        state = x.new_zeros(x.shape[0], 8, 4)
        out = []
        for t in range(x.shape[1]):
            state = state * torch.exp(step[:, t, :, None] * self.rates) + (step * x)[:, t, :, None]
            out.append((state * mix[:, t, :4].unsqueeze(1)).sum(-1))
        return torch.stack(out, 1)


class Viterbi(nn.Module):
    """The best path through a linear-chain CRF: maxima forwards, gathers backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.randn(5, 5))

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        best = scores[:, 0]
        back = []
        for t in range(1, scores.shape[1]):
            best, origin = (best[:, :, None] + self.transitions).max(1)
            best = best + scores[:, t]
            back.append(origin)
        total, tag = best.max(-1)
        path = [tag]
        for origin in reversed(back):
            tag = origin.gather(1, tag[:, None]).squeeze(1)
            path.insert(0, tag)
        return total, torch.stack(path, 1)


class Recommender(nn.Module):
    """Embeddings, a bottom network and pairwise products (DLRM)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(20, 6) for _ in range(3))
        self.bottom = nn.Linear(4, 6)
        self.top = nn.Linear(12, 1)
        self.register_buffer("pairs", torch.tril_indices(4, 4, -1))

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        low = self.bottom(dense).relu()
        features = torch.stack([low, *(table(sparse[:, i]) for i, table in enumerate(self.tables))], 1)
        products = (features @ features.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([low, products], 1)).sigmoid()


class TabTransformer(nn.Module):
    """Categories through attention, numbers through a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(28, 8)
        self.register_buffer("offsets", torch.arange(4) * 7)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(37, 2)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        y = self.layer(self.embed(categories + self.offsets)).flatten(1)
        return self.head(torch.cat([y, self.norm(numbers)], 1))


class Siamese(nn.Module):
    """One tower over two images, and their cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return F.cosine_similarity(self.tower(left), self.tower(right))


class MultiTask(nn.Module):
    """A shared trunk with heads in a nested dict."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.Mish())
        self.classes = nn.Linear(8, 4)
        self.mask = nn.ConvTranspose2d(8, 1, 2, 2)

    def forward(self, image: Tensor) -> dict[str, Tensor | dict[str, Tensor]]:
        y = self.trunk(image)
        logits = self.classes(y.mean((2, 3)))
        return {"label": {"logits": logits, "index": logits.argmax(-1)}, "mask": self.mask(y).sigmoid()}


class ManyOutputs(nn.Module):
    """Tensors of several types: floats, integers, booleans, and one that is an input's copy."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(10, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        y = self.linear(x)
        values, order = y.sort(-1, descending=True)
        return y, (values, order), y > 0


@dataclasses.dataclass
class Estimate:
    """What `DataclassOutput` returns."""

    mean: Tensor
    spread: Tensor


torch.utils._pytree.register_dataclass(Estimate)


class DataclassOutput(nn.Module):
    """A dataclass of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Estimate:
        mean, spread = self.linear(x).unbind(-1)
        return Estimate(mean, F.softplus(spread))


class TopBoxes(nn.Module):
    """A detector's end: centre form to corners, the five best by score."""

    def forward(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        centre, size = boxes[..., :2], boxes[..., 2:].exp()
        corners = torch.cat([centre - size / 2, centre + size / 2], -1)
        best = scores.sigmoid().topk(5, -1)
        return torch.gather(corners, 1, best.indices[..., None].expand(-1, -1, 4)), best.values


class QuantileHead(nn.Module):
    """A forecast with quantiles that may not cross: cumsum of softplus."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.head(self.gru(x)[0])
        return raw[..., :1] + F.pad(F.softplus(raw[..., 1:]).cumsum(-1), (1, 0))


class BranchOnValues(nn.Module):
    """An `if` on the values of a tensor: scripting is correct, tracing keeps one branch, and export refuses it."""

    def __init__(self) -> None:
        super().__init__()
        self.quiet = nn.Linear(8, 2)
        self.loud = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.loud(x) if bool(x.mean() > 0) else self.quiet(x)


class BranchWithCond(BranchOnValues):
    """The same branch written with `torch.cond`, as torch.export requires."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.mean() > 0, self.loud, self.quiet, (x,))


class BranchOnLength(nn.Module):
    """Short sequences take a shorter way, which is decided while exporting."""

    def __init__(self) -> None:
        super().__init__()
        self.short = nn.Linear(8, 4)
        self.long = nn.Conv1d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < 5:
            return self.short(x).mean(1)
        return self.long(x.transpose(1, 2)).mean(-1)


class ScriptedLoop(nn.Module):
    """A running maximum with a decision at each step, which only scripting keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], 8)
        for step in range(x.shape[1]):
            y = self.linear(x[:, step])
            state = torch.maximum(y, state) if step % 2 == 0 else state + y.tanh()
        return state


class FoldedBatch(nn.Module):
    """Trap: normalizes over the whole batch, so an output depends on the other samples in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(1, -1)
        return self.linear((flat / flat.norm()).reshape(-1, 8))


class BakedPositions(nn.Module):
    """Trap: a length taken with int() is a number to a tracer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        length = int(torch.tensor(x.shape[1]))
        weights = torch.linspace(0.0, 1.0, length)
        return self.linear((x * weights[:, None]).sum(1))


class BatchStatistics(nn.Module):
    """Trap: a norm without running statistics uses those of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)
        self.linear = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(torch.cat([x, -x], 0))[: x.shape[0]])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.LayerNorm(32), nn.Dropout(), nn.Linear(32, 4)),
    "rnn": lambda: Recurrent(nn.RNN),
    "gru": lambda: Recurrent(nn.GRU),
    "lstm": lambda: Recurrent(nn.LSTM),
    "lstm_two_layers_both_ways": lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
    "lstm_states": LstmStates,
    "lstm_cell_unrolled": LstmCell,
    "lstm_cell_scripted": lambda: torch.jit.script(LstmCell()),
    "lstm_attention_tagger": AttentionTagger,
    "gru_seq2seq": GruSeq2Seq,
    "transformer_encoder": Encoder,
    "multihead_attention": CrossAttention,
    "unet": UNet,
    "unet_any_size": UNet,
    "super_resolution": super_resolution,
    "generator": generator,
    "variational_autoencoder": VariationalAutoencoder,
    "spatial_transformer": SpatialTransformer,
    "conv3d": lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(588, 3)),
    "temporal_convolution": TemporalConvolution,
    "wavenet": WaveNet,
    "spectrogram_classifier": SpectrogramClassifier,
    "fourier_operator": FourierOperator,
    "graph_convolution": GraphConvolution,
    "graph_attention": GraphAttention,
    "graph_batched_gather": BatchedGather,
    "point_cloud_neighbours": PointCloud,
    "deep_sets": DeepSets,
    "real_nvp": RealNvp,
    "masked_autoregressive_flow": AutoregressiveFlow,
    "spline_flow": SplineFlow,
    "glow": Glow,
    "neural_ode": NeuralOde,
    "capsules": Capsules,
    "mixture_of_experts": MixtureOfExperts,
    "selective_scan": SelectiveScan,
    "viterbi": Viterbi,
    "recommender": Recommender,
    "tab_transformer": TabTransformer,
    "siamese": Siamese,
    "multi_task_dict": MultiTask,
    "multi_output_tuple": ManyOutputs,
    "multi_output_dataclass": DataclassOutput,
    "top_k_boxes": TopBoxes,
    "quantile_head": QuantileHead,
    "branch_on_values": BranchOnValues,
    "branch_on_values_scripted": lambda: torch.jit.script(BranchOnValues()),
    "branch_on_values_cond": BranchWithCond,
    "branch_on_length": BranchOnLength,
    "loop_scripted": lambda: torch.jit.script(ScriptedLoop()),
    "folded_batch": FoldedBatch,
    "baked_positions": BakedPositions,
    "batch_statistics": BatchStatistics,
}
