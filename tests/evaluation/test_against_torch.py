"""Beside PyTorch itself, where it is installed (it is not part of any extra):

pip install torch torchvision lpips && pytest tests/evaluation/test_against_torch.py
"""

from __future__ import annotations

import numpy as np
import pytest

from wm_jax.evaluation import lpips, torch_files

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
