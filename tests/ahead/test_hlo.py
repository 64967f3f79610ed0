"""Collectives off compiled text: a real one, trimmed to its collectives, and small ones by hand."""

from pathlib import Path

import pytest

from wm_jax.ahead import hlo

GOLDEN = Path(__file__).parent.parent / "golden" / "hlo"


def test_a_gradient_step_of_two_layers_on_four_chips():
    """w - c · d loss / d w of tanh(tanh(x w₀) w₁), w (2048, 2048) split by columns and gathered in
    bfloat16; libtpu 0.0.42.1, v5e:2x2. One of the two gathers is overlapped: it starts, goes on in
    a fusion, and is waited for, all in one channel."""
    program = hlo.parse((GOLDEN / "v5e_2x2.txt").read_text())
    four = (0, 1, 2, 3)
    want = [
        hlo.Collective("all-gather", 2048 * 2048 * 2, four, 1, False),
        hlo.Collective("all-gather", 2048 * 2048 * 2, four, 1, True),
        hlo.Collective("reduce-scatter", 2048 * 2048 * 4, four, 1, False),
        hlo.Collective("reduce-scatter", 2048 * 2048 * 4, four, 1, False),
    ]
    assert sorted(program.collectives) == want
    assert program.loops == [] and program.unknown_loops == 0


LOOP = """\
HloModule looped, is_scheduled=true

%body (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %sum = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups=[2,2]<=[4], to_apply=%a
}

%condition (y: f32[8]) -> pred[] {
  %y = f32[8]{0} parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %in = f32[32]{0} all-gather(%p), channel_id=2, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %w = f32[8]{0} while(%p), condition=%condition, body=%body, backend_config={TRIPS}
}
"""


def test_what_is_in_a_loop_counts_as_often_as_it_runs():
    known = LOOP.replace("TRIPS", '"known_trip_count":{"n":"48"},"x":"y"')
    program = hlo.parse(known)
    assert {one.kind: one.times for one in program.collectives} == {
        "all-gather": 1,
        "all-reduce": 48,
    }
    assert program.loops == [48] and program.unknown_loops == 0


def test_a_loop_of_unknown_length_is_told():
    program = hlo.parse(LOOP.replace("TRIPS", ""))
    assert [one.times for one in program.collectives] == [1, 1]
    assert program.loops == [] and program.unknown_loops == 1


def line(text):
    entry = "HloModule m\n\nENTRY %main (p: f32[8]) -> f32[8] {\n  %x = " + text + "\n}\n"
    return hlo.parse(entry).collectives


@pytest.mark.parametrize(
    ("text", "kind", "size", "sent", "overlapped"),
    [
        ("f32[40]{0} all-gather(%p), replica_groups={{0,1,2,3}}", "all-gather", 160, 120, False),
        ("f32[40]{0} all-reduce(%p), replica_groups={{0,1,2,3}}", "all-reduce", 160, 240, False),
        ("f32[10] reduce-scatter(%p), replica_groups={{0,1,2,3}}", "reduce-scatter", 160, 120,
         False),
        ("(bf16[10], bf16[20]) all-gather-start(%p), replica_groups={{0,1}}", "all-gather", 40, 20,
         True),
        ("(f32[4], s8[8]) all-reduce(%p, %q), replica_groups={{0,1}}", "all-reduce", 24, 24, False),
        ("(f32[4], f32[4], u32[], u32[]) collective-permute-start(%p), "
         "source_target_pairs={{0,1},{1,0}}", "collective-permute", 16, 16, True),
        ("pred[16] all-to-all(%p), replica_groups=[1,4]<=[4]", "all-to-all", 16, 12, False),
    ],
)  # fmt: skip
def test_bytes_by_kind(text, kind, size, sent, overlapped):
    (one,) = line(text)
    assert (one.kind, one.size, one.sent, one.overlapped) == (kind, size, sent, overlapped)


def test_a_chip_alone_sends_nothing():
    assert line("f32[8] all-reduce(%p), replica_groups={{0},{1}}") == []


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,2},{1,3}}", (0, 2)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("replica_groups=mesh['data'=2,'fsdp'=4] {'fsdp'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['data'=2,'fsdp'=4] {'data'}", (0, 4)),
        ("replica_groups=mesh['data'=2,'fsdp'=4] {'data','fsdp'}", tuple(range(8))),
        ("replica_groups=mesh['fsdp'=8] {'fsdp':(1)2}", (0, 4)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", (0, 4)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=(0,2,1,3) {'b'}", (0, 2)),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([4]) {'a'}", (0, 2)),
        ("replica_groups=mesh['fsdp'=8] {'fsdp':(2)4}", (0, 1, 2, 3)),
        ("source_target_pairs={{0,1},{1,2},{2,0}}", (0, 1, 2)),
        ("dimensions={0}", ()),
    ],
)
def test_groups_in_every_way_to_write_them(text, group):
    assert hlo.groups(f"%p), {text}, use_global_device_ids=true") == group


MOVES = """\
HloModule moves, is_scheduled=true

%fused (x: f32[8,4]) -> bf16[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  ROOT %y = bf16[8,4]{1,0} convert(%x)
}

%body (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %negated = f32[8]{0} negate(%x)
}

ENTRY %main (p: f32[8,4], q: f32[8]) -> bf16[8,4] {
  %p = f32[8,4]{1,0:T(8,128)} parameter(0)
  %q = f32[8]{0} parameter(1)
  %start = ((f32[8,4]{1,0:T(8,128)}), f32[2,4]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%p)
  %done = f32[2,4]{1,0:T(8,128)S(1)} slice-done(%start)
  %near = bf16[2,4]{1,0:T(8,128)(2,1)S(1)} convert(%done)
  %w = f32[8]{0} while(%q), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %far = bf16[8,4]{1,0:T(8,128)(2,1)} fusion(%p, %near), kind=kLoop, calls=%fused
}
"""


def test_memory_traffic_is_what_lies_in_hbm():
    prefetched, looped, fused = 2 * 4 * 4, 5 * 2 * 8 * 4, 8 * 4 * (4 + 2)
    assert hlo.parse(MOVES).hbm_bytes == prefetched + looped + fused
