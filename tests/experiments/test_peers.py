"""The comparison with other codebases: contenders as processes, turn by turn, rows with ratios."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"
#: A contender that counts its calls; the second argument is what it says that it is.
FAKE = """
import json, sys
print(json.dumps({"parameters": int(sys.argv[1]), "versions": {}}), flush=True)
for count, line in enumerate(sys.stdin, 1):
    print(float(line) * count * int(sys.argv[2]), flush=True)
"""


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import peers

    return peers


def fake(peers, name, parameters=100, speed=1, task="train"):
    command = [sys.executable, "-c", FAKE, str(parameters), str(speed)]
    return peers.Contender(name, task, "small", command)


def test_rows_are_medians_and_ratios_are_taken_within_rounds(peers):
    contenders = [fake(peers, "torchrl", speed=2), fake(peers, "rssm", speed=10)]
    for _ in range(3):
        for one in contenders:
            one.chunk(0.5)
    for one in contenders:
        one.end()
    peer, ours = (peers.row(one, contenders) for one in contenders)
    assert (peer["frames_per_second"], ours["frames_per_second"]) == (2.0, 10.0)
    assert (ours["low"], ours["high"]) == (5.0, 15.0)
    # Rates go 1, 2, 3 and 5, 10, 15: the ratio is 5 in every round, so it has no spread.
    assert ours["times_peer"] == {"peer": "torchrl", "times": [5.0, 5.0, 5.0]}
    assert "times_peer" not in peer and ours["parameters"] == 100


def test_a_contender_of_another_size_or_that_dies_ends_the_run_with_a_sentence(peers):
    contenders = [fake(peers, "torchrl"), fake(peers, "rssm", parameters=111)]
    with pytest.raises(SystemExit, match=r"rssm \(small\) has 111 parameters and torchrl 100"):
        peers.same_size(contenders)
    peers.same_size([contenders[0], contenders[0]])
    for one in contenders:
        one.end()
    with pytest.raises(SystemExit, match=r"gone \(small\) ended before it answered"):
        peers.Contender("gone", "train", "small", [sys.executable, "-c", "pass"])


def test_a_worker_serves_until_its_input_ends():
    script = "from contender import serve; serve(lambda: None, 256, {'parameters': 3})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="0.01\n0.02\n",
        capture_output=True,
        text=True,
        cwd=FOLDER,
        check=True,
    )
    about, *rates = done.stdout.splitlines()
    assert json.loads(about) == {"parameters": 3}
    assert len(rates) == 2 and all(float(rate) > 256 for rate in rates)


def test_all_see_the_same_frames(peers):
    np.testing.assert_array_equal(peers.frames(), peers.frames())
    assert peers.frames().shape == (8, 32, 64, 64, 3) and peers.frames().std() > 70


def test_a_checkout_that_is_not_there_is_one_sentence(peers, tmp_path):
    with pytest.raises(SystemExit, match=r"--dreamerv3 .*nowhere is no checkout of DreamerV3"):
        peers.checkout("dreamerv3", tmp_path / "nowhere")
    with pytest.raises(argparse.ArgumentTypeError, match="'x' is not NAME=COMMAND"):
        peers.pair("x")
