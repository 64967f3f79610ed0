"""What the flow decoder gains over the plain one that it stands beside, and what it costs.

    python experiments/benchmarks/sharpness.py --workdir runs/a --json

Both decode the same rollouts of a run with model.sharp_steps > 0, so that all that differs is the
decoder. For the plain one and for the flow at 1, 2 and 4 steps, by horizon step:

  sharpness       power above half the Nyquist frequency, over the truth's: 1 is as sharp
  ssim, psnr, position_error, missed_share   as in `wm-jax evaluate`

and each flow's difference from the plain decoder (``control``), paired, with 95 % bootstrap
intervals over episodes; and ``decode_ms``, milliseconds for the frames of 16 states (median).
--image draws truth, plain and flow of a few rollouts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax import checkpoint, models
from wm_jax.errors import UserError
from wm_jax.evaluation import statistics, suite
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.spectrum import high_frequency_power
from wm_jax.evaluation.statistics import Sums
from wm_jax.evaluation.suite import Subject
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.twins_world import open_world
from wm_jax.evaluation.world import Clips

METRICS = {
    "sharpness": "1",
    "ssim": "1",
    "psnr": "dB",
    "position_error": "px",
    "missed_share": "1",
}
STEPS = (1, 5, 10, 20, 40, 60)
FLOWS = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class Plain:
    """A model seen through its plain decoder."""

    model: Any

    def initial(self, params, batch_size):
        return self.model.initial(params, batch_size)

    def step(self, params, state, conditions, frame=None, key=None):
        return self.model.step(params, state, conditions, frame, key)

    def decode(self, params, state):
        return self.model.plain(params, state)


def decoders(config: Any) -> dict[str, Any]:
    """The model with each of its decoders; the weights are the same."""
    config = config.copy_and_resolve_references().unlock()
    found: dict[str, Any] = {}
    for steps in FLOWS:
        config.sharp_steps = steps
        found[f"flow_{steps}"] = models.build(config)
    return {"plain": Plain(found["flow_1"])} | found


def measure(subject: Subject, clips: Clips, protocol: Protocol, instrument: Instrument):
    """Sums per episode of each of `METRICS`, and the first frames predicted."""
    powers: list[np.ndarray] = []
    kept: list[np.ndarray] = []

    def predict(some: Clips, sample: int):
        prediction = subject.predict(some, sample)
        powers.append(np.asarray(high_frequency_power(prediction.frames)))
        kept.append(prediction.frames[:2])
        return prediction

    scores, _ = suite.measure(subject._replace(predict=predict), clips, protocol, instrument)
    truth = np.asarray(high_frequency_power(clips.frames[:, protocol.context :]))
    parts = (np.concatenate(powers), truth)
    sums = (statistics.sums_by_unit(x, clips.unit).total for x in parts)
    return {"sharpness": Sums(*sums)} | {m: scores[m] for m in METRICS if m in scores}, kept[0]


def milliseconds(model: Any, params: Any, batch: int = 16, repeats: int = 10) -> float:
    """To decode the initial state of ``batch`` streams, median."""
    state = jax.jit(lambda params: model.initial(params, batch))(params)
    decode = jax.jit(model.decode)
    decode(params, state).block_until_ready()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        decode(params, state).block_until_ready()
        times.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(times))


def rows_of(scores: dict[str, dict[str, Sums]], protocol: Protocol) -> list[dict[str, Any]]:
    rows = []
    for name, sums in scores.items():
        for metric, unit in METRICS.items():
            found = [(None, statistics.estimate(sums[metric], protocol.seed))]
            if name != "plain":
                pair = sums[metric], scores["plain"][metric]
                found.append(("plain", statistics.difference(*pair, protocol.seed)))
            for control, mean in found:
                for i in (s - 1 for s in STEPS if s <= protocol.horizon):
                    row = {"model": name, "metric": metric, "unit": unit, "step": i + 1}
                    row |= {k: float(getattr(mean, k)[i]) for k in ("value", "low", "high")}
                    rows.append(row | {"control": control, "n": int(mean.n[i])})
    return rows


def draw(path: Path, clips: Clips, frames: dict[str, np.ndarray], context: int) -> None:
    """A row for the truth and one a decoder, for two clips; steps of `STEPS` from left to right."""
    from PIL import Image

    at = [s - 1 for s in STEPS if s <= clips.frames.shape[1] - context]
    strips = []
    for clip in range(2):
        pictures = [clips.frames[clip, context:], *(f[clip] for f in frames.values())]
        strips += [np.concatenate(list(p[at]), 1) for p in pictures]
    whole = np.concatenate(strips, 0).repeat(3, 0).repeat(3, 1)
    Image.fromarray(whole).save(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=Path, help="a run with a flow decoder")
    parser.add_argument("--data", help="folder of the data set, if not the run's own")
    parser.add_argument("--episodes", type=int, default=16, help="at most so many")
    parser.add_argument("--horizon", type=int, default=40, help="frames predicted")
    parser.add_argument("--image", type=Path, help="a PNG to draw")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    try:
        params, config, _ = checkpoint.restore_params(args.workdir)
        if not config.model.sharp_steps:
            raise UserError(f"{args.workdir} has no flow decoder; train with model.sharp_steps=2.")
        resolution = config.model.resolution
        protocol = Protocol(episodes=args.episodes, horizon=args.horizon, resolution=resolution)
        data = args.data or config.data.directory
        world = open_world(data, resolution, tuple(config.data.conditions))
        clips = world.clips("test", protocol.length, protocol.starts, protocol.episodes)
    except UserError as error:
        print(f"sharpness: {error}", file=sys.stderr)
        return 2
    instrument = Instrument(world.palette, resolution)
    params = jax.tree.map(jnp.asarray, params)
    scores, frames, rows = {}, {}, []
    for name, model in decoders(config.model).items():
        subject = suite.model_subject(name, model, params, protocol)
        scores[name], frames[name] = measure(subject, clips, protocol, instrument)
        cost = {"model": name, "metric": "decode_ms", "unit": "ms", "step": 0, "control": None}
        rows.append(cost | {"value": milliseconds(model, params), "n": 10})
    rows = rows_of(scores, protocol) + rows
    if args.image:
        draw(args.image, clips, frames, protocol.context)
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        bounds = f"({row['low']:.3f} to {row['high']:.3f})" if "low" in row else ""
        what = row["model"] + (" - plain" if row["control"] else "")
        print(f"{what:16s} {row['metric']:15s} step {row['step']:2d} {row['value']:8.3f} {bounds}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
