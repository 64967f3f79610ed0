"""One mesh or many: compile, judge by the roofline, and say it as one object or as text."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from wm_jax import mesh as meshes
from wm_jax.ahead import hlo, program
from wm_jax.ahead.chips import GIB, Topology
from wm_jax.ahead.roofline import by_kind, roofline
from wm_jax.mesh_choice import Devices, Sizes, divisors

Report = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is compiled: a config for the chips of a topology. batch_size in windows an update."""

    config: Any
    topology: Topology
    devices: list[Any]
    batch_size: int

    def with_mesh(self, data: int, fsdp: int, tensor: int = 1, cells: int = 1) -> Task:
        config = self.config.copy_and_resolve_references()
        config.mesh.update(data=data, fsdp=fsdp, tensor=tensor, cells=cells, auto=False)
        return dataclasses.replace(self, config=config)

    @property
    def chips(self) -> Devices:
        """As `wm_jax.mesh_choice` asks for them: a process drives the chips of one host."""
        host = sum(chip.process_index == self.devices[0].process_index for chip in self.devices)
        return Devices(self.topology.size, self.topology.chip.hbm_bytes, host)


def measure(task: Task) -> Report:
    """Compiles the step and reports; of one that does not fit, only what it would need."""
    begin = time.monotonic()
    mesh = meshes.make_mesh(task.config.mesh, task.devices)
    step = program.compile_step(task.config, mesh, task.batch_size)
    chips, chip = mesh.size, task.topology.chip
    out: Report = {
        "fits": step.fits,
        "topology": task.topology.name,
        "chips": chips,
        "mesh": dict(mesh.shape),
        "batch_size": task.batch_size,
        "window": task.config.data.window,
        "parameters": step.parameters,
        "hbm_bytes_per_chip": step.hbm_bytes,
        "hbm_bytes_limit": step.limit or chip.hbm_bytes,
        "memory_per_chip": step.memory,
        "flops": {
            "model": step.model_flops,
            "program": step.flops,
            "xla_per_chip": step.xla_flops or None,
        },
        "xla_bytes_per_chip": step.xla_bytes or None,
        "hbm_bytes_moved_per_chip": None,
        "predicted_mfu": None,
        "step_seconds": None,
        "collectives": None,
        "roofline": None,
        "loops": None,
        "compile_seconds": step.compile_seconds or None,
    }
    if step.fits:
        out |= _judged(task, mesh, step)
    return out | {"seconds": round(time.monotonic() - begin, 1)}


def _judged(task: Task, mesh: Any, step: program.Program) -> Report:
    parsed = hlo.parse(step.text)
    places = [device.coords for device in mesh.devices.flat]
    kinds = by_kind(parsed.collectives, places, task.topology)
    hidden = sum(row["overlapped_seconds"] for row in kinds.values())
    blocking = sum(row["seconds"] for row in kinds.values()) - hidden
    shares = step.flops / mesh.size, step.model_flops / mesh.size
    line = roofline(task.topology.chip, *shares, parsed.hbm_bytes, hidden, blocking)
    return {
        "predicted_mfu": line.mfu,
        "step_seconds": line.step_seconds,
        "collectives": kinds,
        "roofline": line._asdict(),
        "hbm_bytes_moved_per_chip": parsed.hbm_bytes,
        "loops": {"times": parsed.loops, "unknown": parsed.unknown_loops},
    }


def sweep(task: Task, tell: Callable[[str], None]) -> list[Report]:
    """A report for every mesh over the topology's chips, the best first. Chips that see the same
    windows share them by ``tensor`` or by ``cells``, never by both."""
    model, out = task.config.model, []
    groups = [Sizes(1, 1, size) for size in divisors(task.chips.together)]
    for size in divisors(task.chips.together):
        if size > 1 and model.resolution // model.patch % size == 0:
            groups.append(Sizes(1, 1, 1, size))
    for group in groups:
        left = task.topology.size // (group.tensor * group.cells)
        for fsdp in divisors(left):
            sizes = group._replace(data=left // fsdp, fsdp=fsdp)
            out.append(measure(task.with_mesh(**sizes._asdict())))
            tell(row(out[-1]))
    return sorted(out, key=lambda r: (not r["fits"], r["step_seconds"] or r["hbm_bytes_per_chip"]))


def largest_batch(task: Task, report: Report) -> Report:
    """The largest batch that fits, from a line through this compile and one of twice or half the
    batch: memory is what a window adds, and what is there without one."""
    parts = report["mesh"]["data"] * report["mesh"]["fsdp"]
    more = task.batch_size * 2 if report["fits"] else task.batch_size // 2 // parts * parts
    if not more:
        return {"method": "one compile", "windows": 0}
    other = measure(dataclasses.replace(task, batch_size=more))
    sizes = report["batch_size"], other["batch_size"]
    needs = report["hbm_bytes_per_chip"], other["hbm_bytes_per_chip"]
    limit = min(report["hbm_bytes_limit"], other["hbm_bytes_limit"])
    return {
        "method": f"linear, from compiles at {min(sizes)} and {max(sizes)} windows",
        "windows": fitted(sizes, needs, limit, parts),
        "points": dict(zip(map(str, sizes), needs, strict=True)),
    }


def fitted(
    sizes: tuple[int, int], needs: tuple[float, float], limit: float, parts: int
) -> int | None:
    """The largest multiple of ``parts`` whose memory, on the line through both points, is within
    ``limit``; None where memory does not grow with the batch."""
    slope = (needs[1] - needs[0]) / (sizes[1] - sizes[0])
    if slope <= 0:
        return None
    most = sizes[0] + (limit - needs[0]) / slope
    return max(0, int(most // parts) * parts)


def row(report: Report) -> str:
    """One line of the sweep's table."""
    shape = ",".join(f"{axis}={size}" for axis, size in report["mesh"].items())
    memory = f"{report['hbm_bytes_per_chip'] / GIB:7.2f} GiB"
    if not report["fits"]:
        return f"{shape:<24}{memory}  does not fit"
    line = report["roofline"]
    return (
        f"{shape:<24}{memory}  step {1e3 * line['step_seconds']:9.2f} ms  "
        f"MFU {100 * line['mfu']:5.1f} %  exposed {100 * line['exposed_share']:5.1f} %"
    )


def text(report: Report) -> str:
    """A report for people."""
    head = (
        f"{report['topology']} ({report['chips']} chips), batch {report['batch_size']} windows of "
        f"{report['window']} frames, {report['parameters'] / 1e6:.1f} M parameters"
    )
    kinds = ", ".join(f"{k} {v / GIB:.2f}" for k, v in report["memory_per_chip"].items())
    limit = report["hbm_bytes_limit"] / GIB
    count = report["flops"]
    lines = [
        head,
        row(report),
        f"memory a chip, GiB: {kinds}; of {limit:.1f}",
        f"FLOPs of matrix products, all chips (our count): {count['model']:.3e} of the model, "
        f"{count['program']:.3e} with what is computed anew",
    ]
    if report["fits"]:
        lines += _details(report)
    if report.get("largest_batch"):
        found = report["largest_batch"]
        lines.append(f"largest batch that fits: {found['windows']} windows ({found['method']})")
    return "\n".join(lines)


def _details(report: Report) -> list[str]:
    line, loops = report["roofline"], report["loops"]
    lines = [
        f"a chip's FLOPs {report['flops']['xla_per_chip']:.3e} by XLA's count, with a loop's body "
        f"once (loops run {loops['times'] or 'never'}; {loops['unknown']} of unknown length), "
        f"bytes of HBM read and written {report['hbm_bytes_moved_per_chip']:.3e}",
        f"roofline, ms: arithmetic {1e3 * line['compute_seconds']:.2f}, memory "
        f"{1e3 * line['memory_seconds']:.2f}, links {1e3 * line['overlapped_seconds']:.2f} "
        f"overlapped and {1e3 * line['blocking_seconds']:.2f} blocking; exposed "
        f"{1e3 * line['exposed_seconds']:.2f}",
    ]
    for kind, one in report["collectives"].items():
        lines.append(
            f"  {kind:<19}{one['count']:>5} ×  {one['bytes_sent'] / 1e9:9.3f} GB sent a chip  "
            f"{1e3 * one['seconds']:9.2f} ms, {1e3 * one['overlapped_seconds']:.2f} overlapped"
        )
    return [*lines, f"compiled in {report['compile_seconds']:.0f} s"]
