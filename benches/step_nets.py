"""The networks of models/ and the full-width 11-layer CNN in PyTorch, with their loss, for benches/step.py and benches/gpu.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Cross entropy behind a network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = self.net(x)
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def mlp() -> nn.Module:
    layers = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)]
    return Classifier(nn.Sequential(*layers))


# (channels, kernel, whether 2×2 max pooling follows), of all but the last convolution; as in nets.py.
CNN11 = [
    (192, 5, True), (192, 1, False), (240, 3, True), (240, 1, False), (260, 3, True), (260, 1, False),
    (280, 3, True), (280, 1, False), (300, 3, True), (300, 1, False),
]  # fmt: skip


def cnn11(width: float) -> nn.Module:
    layers, channels = [], 3
    for wide, kernel, is_pooled in CNN11:
        out = max(4, int(wide * width))
        layers += [nn.Conv2d(channels, out, kernel, padding=kernel // 2), nn.ELU()]
        layers += [nn.MaxPool2d(2)] if is_pooled else []
        channels = out
    return Classifier(nn.Sequential(*layers, nn.Conv2d(channels, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


class FixupBlock(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(4)])
        self.scale = nn.Parameter(torch.ones(1))
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.is_shortcut_pooled = stride != 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c, d = self.biases
        h = F.relu(self.conv1(x + a) + b)
        h = self.conv2(h + c) * self.scale + d
        if self.is_shortcut_pooled:
            x = torch.cat((F.avg_pool2d(x + a, 1, 2), torch.zeros_like(F.avg_pool2d(x, 1, 2))), 1)
        return F.relu(h + x)


class NormalizedBlock(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        shortcut = [nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)] if stride != 1 else []
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(h + self.shortcut(x))


def residual(block: type[nn.Module], stem: list[nn.Module], widths: list[tuple[int, int]]) -> nn.Module:
    layers, channels = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), *stem, nn.ReLU()], 16
    for out, stride in widths:
        layers.append(block(channels, out, stride))
        channels = out
    return Classifier(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)))


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(200, 32)
        self.lstm1, self.lstm2 = nn.LSTM(32, 48), nn.LSTM(48, 32)
        self.out = nn.Linear(32, 200)
        self.out.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm2(self.lstm1(self.embedding(x))[0])[0])


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow, self.heads = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        each = width // self.heads
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, time, 3, self.heads, each).permute(2, 0, 3, 1, 4).unbind(0)
        mask = torch.full((time, time), float("-inf")).triu(1)
        attention = ((q @ k.transpose(-1, -2)) * each**-0.5 + mask).softmax(-1)
        x = x + self.out((attention @ v).transpose(1, 2).reshape(batch, time, width))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(100, 32), nn.Parameter(torch.zeros(12, 32))
        self.blocks, self.norm, self.out = nn.Sequential(Block(32, 4), Block(32, 4)), nn.LayerNorm(32), nn.Linear(32, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(self.blocks(self.embedding(x) + self.position)))



def fixup(depth: int) -> nn.Module:
    blocks = (depth - 2) // 6
    widths = [(width, 2 if width > 16 and n == 0 else 1) for width in (16, 32, 64) for n in range(blocks)]
    return residual(FixupBlock, [], widths)


NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp_relu": mlp,
    "cnn11_elu": lambda: cnn11(1 / 8),
    "cnn11": lambda: cnn11(1.0),
    "fixup_resnet20": lambda: fixup(20),
    "bn_resnet8": lambda: residual(NormalizedBlock, [nn.BatchNorm2d(16)], [(16, 1), (32, 2), (64, 2)]),
    "seq_lstm_lm": lambda: Classifier(LanguageModel()),
    "gpt_gelu": lambda: Classifier(Transformer()),
}
