"""Beside PyTorch itself, where it is installed (it is not part of any extra):

pip install torch torchvision lpips && pytest tests/evaluation/test_against_torch.py
"""

from __future__ import annotations

import numpy as np
import pytest

from wm_jax.evaluation import i3d, lpips, outside, torch_files
from wm_jax.evaluation.judge import judge
from wm_jax.evaluation.summary import find

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
reference = pytest.importorskip("lpips")

MAKE = {"alex": "alexnet", "vgg": "vgg16"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("net", ["alex", "vgg"])
@pytest.mark.parametrize("size", [64, 96])
def test_lpips_is_that_of_its_authors(tmp_path, net, size):
    """Classifiers with random weights, the authors' own linear ones."""
    torch.manual_seed(0)
    classifier = getattr(torchvision.models, MAKE[net])(weights=None).eval()
    theirs = reference.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    state = classifier.state_dict()
    for name, parameter in theirs.net.named_parameters():
        _, number, kind = name.split(".")
        parameter.data = state[f"features.{number}.{kind}"]
    torch.save(state, tmp_path / lpips.NETS[net][0])
    linear = {
        k: v for k, v in theirs.state_dict().items() if k.startswith("lin") and "lins" not in k
    }
    torch.save(linear, tmp_path / f"lpips_{net}.pth", _use_new_zipfile_serialization=False)
    rng = np.random.default_rng(0)
    truth, frames = rng.integers(0, 256, (2, 3, size, size, 3), dtype=np.uint8)
    ours = np.asarray(lpips.lpips(lpips.load(tmp_path, net), net, truth, frames))
    with torch.no_grad():
        pair = (torch.tensor(x).permute(0, 3, 1, 2) / 127.5 - 1 for x in (truth, frames))
        wanted = theirs(*pair).reshape(-1).numpy()
    np.testing.assert_allclose(ours, wanted, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_read_too(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv3d(2, 3, 3), torch.nn.BatchNorm3d(3))
    torch.jit.script(net).save(str(tmp_path / "x.pt"))
    found = torch_files.load(tmp_path / "x.pt")
    for name, value in net.state_dict().items():
        assert np.array_equal(found[name], value.numpy()), name


class Unit(torch.nn.Module):
    """A convolution, a normalisation and a ReLU, padded as TensorFlow does."""

    def __init__(self, channels, width, kernel, stride=(1, 1, 1)):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = torch.nn.Conv3d(channels, width, kernel, stride, bias=False)
        self.bn = torch.nn.BatchNorm3d(width, eps=1e-3)

    def forward(self, x):
        return torch.relu(self.bn(self.conv3d(padded(x, self.kernel, self.stride))))


def padded(x, kernel, stride):
    pads = []
    for size, k, s in list(zip(x.shape[2:], kernel, stride, strict=True))[::-1]:
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return torch.nn.functional.pad(x, pads)


class Mixed(torch.nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.b0 = Unit(channels, width, (1, 1, 1))
        self.b1a, self.b1b = Unit(channels, width, (1, 1, 1)), Unit(width, width, (3, 3, 3))
        self.b2a, self.b2b = Unit(channels, width, (1, 1, 1)), Unit(width, width, (3, 3, 3))
        self.b3b = Unit(channels, width, (1, 1, 1))

    def forward(self, x):
        pooled = torch.nn.functional.max_pool3d(padded(x, (3, 3, 3), (1, 1, 1)), 3, 1)
        return torch.cat(
            [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1
        )


class Narrow(torch.nn.Module):
    """I3D with few channels; figure 3 of the paper."""

    def __init__(self):
        super().__init__()
        channels = 3
        for name, *rest in i3d.LAYERS:
            if not isinstance(name, str):
                continue
            if rest:
                side = int(name[-1])
                setattr(self, name, Unit(channels, 5, (side,) * 3, rest[0]))
                channels = 5
            else:
                setattr(self, name, Mixed(channels, 3))
                channels = 12
        self.logits = torch.nn.ModuleDict({"conv3d": torch.nn.Conv3d(channels, 11, 1)})

    def forward(self, x):
        for name, *rest in i3d.LAYERS:
            if isinstance(name, str):
                x = getattr(self, name)(x)
            else:
                x = torch.nn.functional.max_pool3d(padded(x, name, rest[0]), name, rest[0])
        x = torch.nn.functional.avg_pool3d(x, (2, 7, 7), (1, 1, 1))
        return self.logits["conv3d"](x).squeeze(4).squeeze(3).mean(2)


@pytest.mark.filterwarnings("ignore")
def test_i3d_is_the_network_of_the_paper(tmp_path):
    torch.manual_seed(0)
    net = Narrow().eval()
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    torch.save(net.state_dict(), tmp_path / i3d.FILE)
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 64, 64, 3), dtype=np.uint8)
    ours = np.asarray(i3d.logits(i3d.load(tmp_path), frames))
    flat = torch.tensor(frames).float().reshape(-1, 64, 64, 3).permute(0, 3, 1, 2)
    large = torch.nn.functional.interpolate(flat, (224, 224), mode="bilinear", align_corners=False)
    video = (2 * large / 255 - 1).reshape(2, 16, 3, 224, 224).permute(0, 2, 1, 3, 4)
    with torch.no_grad():
        wanted = net(video).numpy()
    np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-5)


MINE = """
import torch


class Mine(torch.nn.Module):
    def encode(self, frames, conditions):
        return torch.as_tensor(frames[:, -1]).float() / 255

    def step(self, state, conditions):
        return state

    def decode(self, state):
        return state.detach().numpy()
"""


@pytest.mark.filterwarnings("ignore")
def test_a_model_in_pytorch_is_a_model_from_outside(world, protocol, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    model = outside.load(f"{tmp_path / 'mine.py'}:Mine")
    report, _ = judge({"outside": model}, world, protocol, "wm-jax evaluate")
    for metric in ("psnr", "position_error"):
        values = [find(report.rows, m, metric, 5)["value"] for m in ("outside", "copy_last")]
        assert values[0] == values[1]
