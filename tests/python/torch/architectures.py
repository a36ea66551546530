"""Networks of the shapes that torchvision is known for, built by hand at small size, and tasks that they learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from tests.python.torch import tasks
from tests.python.torch.tasks import Task

Activation = Callable[[], nn.Module]


# -- blocks ------------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """``shortcut(x) + body(x)``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.body(x)  # type: ignore[no-any-return]


class Branches(nn.Module):
    """Several answers to the same input, side by side in axis 1."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class SqueezeExcite(nn.Module):
    """Channels weighted by what a gate makes of their means."""

    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1), gate
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weights(x)  # type: ignore[no-any-return]


class Apply(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Attention(nn.Module):
    """Heads of ``Q K' V / (tokens sqrt(width))``: without softmax, a product of three encrypted matrices."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, features // heads
        self.queries, self.keys, self.values = (nn.Linear(features, features) for _ in range(3))
        self.mix = nn.Linear(features, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part(x).unflatten(2, (self.heads, self.width)).transpose(1, 2)
            for part in (self.queries, self.keys, self.values)
        )
        scores = q @ k.transpose(2, 3) / (x.shape[1] * self.width**0.5)
        return self.mix((scores @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, activation: Activation = nn.ReLU
) -> nn.Sequential:
    """Convolution that keeps the extents (but for the stride), batch normalization, activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        activation(),
    )


def classify(*features: nn.Module, channels: int, classes: int = 4) -> nn.Sequential:
    """The means of feature maps, and a linear layer on them."""
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def patches(x: torch.Tensor) -> torch.Tensor:
    """Images (n, 1, 8, 8) as 16 tokens of 2x2 pixels: (n, 16, 4)."""
    return x.unflatten(3, (4, 2)).unflatten(2, (4, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def mean_of_tokens(x: torch.Tensor) -> torch.Tensor:
    """(n, tokens, features) to (n, features)."""
    return x.mean(dim=1)


def swap_tokens_and_features(x: torch.Tensor) -> torch.Tensor:
    """(n, a, b) to (n, b, a)."""
    return x.transpose(1, 2)


def shuffle(x: torch.Tensor) -> torch.Tensor:
    """Channels of two groups, interleaved."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


# -- networks ----------------------------------------------------------------------------------------------------------


def vgg() -> nn.Module:
    """Plain convolutions and maxima."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4),
    )  # fmt: skip


def vgg_bn() -> nn.Module:
    """The same with batch normalization."""
    return nn.Sequential(
        conv(3, 8), nn.MaxPool2d(2), conv(8, 16), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 16), nn.ReLU(),
        nn.Linear(16, 4),
    )  # fmt: skip


def resnet_basic() -> nn.Module:
    """Two 3x3 convolutions beside a skip connection, which a 1x1 convolution downsamples."""
    same = nn.Sequential(conv(8, 8), conv(8, 8, activation=nn.Identity))
    down = nn.Sequential(conv(8, 12, stride=2), conv(12, 12, activation=nn.Identity))
    shortcut = conv(8, 12, 1, 2, activation=nn.Identity)
    return classify(conv(3, 8), Residual(same), nn.ReLU(), Residual(down, shortcut), nn.ReLU(), channels=12)


def resnet_bottleneck() -> nn.Module:
    """1x1, 3x3, 1x1 beside a skip connection, downsampling in the middle."""

    def block(inputs: int, middle: int, outputs: int, stride: int) -> nn.Module:
        body = nn.Sequential(
            conv(inputs, middle, 1), conv(middle, middle, 3, stride), conv(middle, outputs, 1, activation=nn.Identity)
        )
        shortcut = conv(inputs, outputs, 1, stride, activation=nn.Identity) if stride > 1 else None
        return nn.Sequential(Residual(body, shortcut), nn.ReLU())

    return classify(conv(3, 8), block(8, 4, 8, 1), block(8, 6, 16, 2), channels=16)


def resnet_preactivation() -> nn.Module:
    """Normalization and activation before the convolutions: nothing bounds the sums of the skip connections."""

    def block(channels: int) -> nn.Module:
        half = [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        other = [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        return Residual(nn.Sequential(*half, *other))

    stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    return classify(stem, block(8), block(8), nn.BatchNorm2d(8), nn.ReLU(), channels=8)


def mobilenet_v1() -> nn.Module:
    """Depthwise 3x3, then 1x1."""
    return classify(
        conv(3, 8), conv(8, 8, groups=8), conv(8, 16, 1), conv(16, 16, 3, 2, 16), conv(16, 16, 1), channels=16
    )


def mobilenet_v2() -> nn.Module:
    """Inverted residuals: wide in the middle, linear at the ends, ReLU6."""
    six = partial(conv, activation=nn.ReLU6)

    def body(inputs: int, outputs: int, stride: int) -> nn.Module:
        wide = 3 * inputs
        narrow = conv(wide, outputs, 1, activation=nn.Identity)
        return nn.Sequential(six(inputs, wide, 1), six(wide, wide, 3, stride, wide), narrow)

    return classify(six(3, 6), Residual(body(6, 6, 1)), body(6, 8, 2), six(8, 16, 1), channels=16)


def mobilenet_v3() -> nn.Module:
    """Inverted residuals with Hardswish and squeeze-and-excitation."""
    swish = partial(conv, activation=nn.Hardswish)
    narrow = conv(16, 6, 1, activation=nn.Identity)
    body = nn.Sequential(swish(6, 16, 1), swish(16, 16, 3, 1, 16), SqueezeExcite(16, nn.Hardsigmoid()), narrow)
    return classify(swish(3, 6, 3, 2), Residual(body), swish(6, 16, 1), channels=16)


def squeezenet() -> nn.Module:
    """Fire modules: a narrow 1x1 convolution, then 1x1 and 3x3 side by side."""

    def fire(inputs: int, narrow: int, each: int) -> nn.Module:
        squeeze = nn.Sequential(nn.Conv2d(inputs, narrow, 1), nn.ReLU())
        expand = Branches(
            nn.Sequential(nn.Conv2d(narrow, each, 1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(narrow, each, 3, padding=1), nn.ReLU()),
        )
        return nn.Sequential(squeeze, expand)

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), fire(8, 4, 8), fire(16, 6, 8),
        nn.Conv2d(16, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def densenet() -> nn.Module:
    """Every layer sees all earlier ones; a transition halves the extents."""

    def layer(inputs: int) -> nn.Module:
        return Branches(
            nn.Identity(), nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 4, 3, padding=1))
        )

    transition = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.AvgPool2d(2))
    return classify(
        nn.Conv2d(3, 8, 3, padding=1),
        layer(8),
        layer(12),
        transition,
        layer(8),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        channels=12,
    )


def inception_module(inputs: int) -> nn.Module:
    """1x1, 3x3, 5x5 and pooling side by side; 16 channels."""
    return Branches(
        conv(inputs, 4, 1),
        nn.Sequential(conv(inputs, 3, 1), conv(3, 4)),
        nn.Sequential(conv(inputs, 3, 1), conv(3, 4, 5)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, 4, 1)),
    )


def inception() -> nn.Module:
    """Convolutions of several sizes side by side, flattened."""
    return nn.Sequential(conv(3, 6, 3, 2), inception_module(6), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 4))


def googlenet() -> nn.Module:
    """Two such modules with a maximum between them, and the mean of everything."""
    middle = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
    return classify(conv(3, 8, 3, 2), inception_module(8), middle, inception_module(16), nn.Dropout(0.1), channels=16)


def shufflenet() -> nn.Module:
    """Grouped 1x1 convolutions with a shuffle of the channels between them."""
    body = nn.Sequential(
        conv(12, 12, 1, groups=2), Apply(shuffle), conv(12, 12, 3, 1, 12, nn.Identity),
        conv(12, 12, 1, groups=2, activation=nn.Identity),
    )  # fmt: skip
    return classify(conv(3, 12, 3, 2), Residual(body), nn.ReLU(), channels=12)


def efficientnet() -> nn.Module:
    """Inverted residuals with SiLU and squeeze-and-excitation."""
    silu = partial(conv, activation=nn.SiLU)
    narrow = conv(16, 6, 1, activation=nn.Identity)
    body = nn.Sequential(silu(6, 16, 1), silu(16, 16, 3, 1, 16), SqueezeExcite(16, nn.Sigmoid()), narrow)
    return classify(silu(3, 6, 3, 2), Residual(body), silu(6, 16, 1), channels=16)


def convnext() -> nn.Module:
    """Depthwise 5x5, then two 1x1 convolutions with GELU, beside a skip connection."""

    def block(channels: int) -> nn.Module:
        return Residual(
            nn.Sequential(
                nn.Conv2d(channels, channels, 5, padding=2, groups=channels), nn.Conv2d(channels, 2 * channels, 1),
                nn.GELU(), nn.Conv2d(2 * channels, channels, 1),
            )
        )  # fmt: skip

    return classify(nn.Conv2d(3, 8, 2, 2), block(8), block(8), channels=8)


def lenet() -> nn.Module:
    """Tanh and average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 12, 3), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(48, 24), nn.Tanh(), nn.Linear(24, 8),
    )  # fmt: skip


def conv1d() -> nn.Module:
    """Sequences: strided convolutions and maxima."""
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 12, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip


def temporal_convolutions() -> nn.Module:
    """Causal convolutions with dilations 1, 2, 4 beside skip connections; the last moment answers."""

    def block(dilation: int) -> nn.Module:
        pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)
        return nn.Sequential(Residual(nn.Sequential(pad, nn.Conv1d(8, 8, 3, dilation=dilation), nn.ReLU())))

    return nn.Sequential(nn.Conv1d(2, 8, 1), block(1), block(2), block(4), Apply(last_moment), nn.Linear(8, 4))


def last_moment(x: torch.Tensor) -> torch.Tensor:
    """(n, channels, length) to (n, channels)."""
    return x[:, :, -1]


def autoencoder() -> nn.Module:
    """Strided convolutions to 16 numbers, transposed ones back to the image."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(4, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 1, 3, 2, 1, output_padding=1),
    )  # fmt: skip


def mixer() -> nn.Module:
    """Perceptrons across tokens and across features, in turn."""
    across_tokens = nn.Sequential(
        Apply(swap_tokens_and_features),
        nn.Linear(16, 16),
        nn.GELU(),
        nn.Linear(16, 16),
        Apply(swap_tokens_and_features),
    )
    across_features = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    return nn.Sequential(
        Apply(patches), nn.Linear(4, 8), Residual(across_tokens), Residual(across_features), Apply(mean_of_tokens),
        nn.Linear(8, 4),
    )  # fmt: skip


def transformer() -> nn.Module:
    """Attention and a perceptron beside skip connections."""
    perceptron = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    return nn.Sequential(
        Apply(patches), nn.Linear(4, 8), Residual(Attention(8, heads=2)), Residual(perceptron), Apply(mean_of_tokens),
        nn.Linear(8, 4),
    )  # fmt: skip


def unet() -> nn.Module:
    """Down, up by repetition, and beside what was there before."""
    down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2))
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), Branches(nn.Identity(), down),
        nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1),
    )  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A network and the task that it learns."""

    make: Callable[[], nn.Module]
    task: Callable[[], Task]
    epochs: int = 8
    learning_rate: float = 1e-2


ARCHITECTURES: dict[str, Architecture] = {
    each.make.__name__: each
    for each in (
        Architecture(vgg, tasks.gratings),
        Architecture(vgg_bn, tasks.gratings),
        Architecture(resnet_basic, tasks.gratings),
        Architecture(resnet_bottleneck, tasks.gratings),
        Architecture(resnet_preactivation, tasks.gratings),
        Architecture(mobilenet_v1, tasks.gratings),
        Architecture(mobilenet_v2, tasks.gratings),
        Architecture(mobilenet_v3, tasks.gratings),
        Architecture(squeezenet, tasks.clear_gratings),
        Architecture(densenet, tasks.gratings),
        Architecture(inception, tasks.clear_gratings),
        Architecture(googlenet, tasks.clear_gratings),
        Architecture(shufflenet, tasks.clear_gratings),
        Architecture(efficientnet, tasks.gratings),
        Architecture(convnext, tasks.clear_gratings),
        Architecture(lenet, tasks.patterns),
        Architecture(conv1d, tasks.waves),
        Architecture(temporal_convolutions, tasks.waves),
        Architecture(autoencoder, tasks.noisy_patterns),
        Architecture(mixer, tasks.grey_gratings),
        Architecture(transformer, tasks.clear_grey_gratings, epochs=20),
        Architecture(unet, tasks.blobs),
    )
}
