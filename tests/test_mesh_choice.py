"""A mesh is chosen by what a run needs, and says why in one line."""

import jax
import pytest

from tests import tiny
from wm_jax.config import base_config, change
from wm_jax.errors import UserError
from wm_jax.mesh_choice import GIB, Devices, Needs, Sizes, choose, devices_here
from wm_jax.optim import make_optimizer
from wm_jax.train_step import state_size

SMALL = Needs(140_000, 16 * 140_000, batch_size=8)


def needs(parameters, batch_size=64):
    return Needs(parameters, 16 * parameters, batch_size)


def test_weights_that_fit_every_device_are_not_split():
    sizes, why = choose(SMALL, Devices(8, 16 * GIB, 8))
    assert sizes == Sizes(8, 1, 1)
    assert why == (
        "mesh: 8 devices, 0.14 M parameters: data=8 (the weights fit every device, so only the "
        "batch is split)."
    )


def test_weights_are_shared_no_more_than_they_must():
    sizes, why = choose(needs(7_000_000_000), Devices(64, 95 * GIB, 4))  # 112 GB, of 25 a device
    assert sizes == Sizes(8, 8, 1)
    assert "data=8, fsdp=8 (" in why and "104.3 GiB, 13.04 GiB a device" in why


def test_weights_that_leave_little_room_are_split_by_all_and_it_is_said():
    sizes, why = choose(needs(7_000_000_000), Devices(16, 16 * GIB, 4))
    assert sizes == Sizes(1, 16, 1)
    assert "6.52 GiB a device, more than a quarter of its memory, 4.0 GiB" in why


def test_weights_that_no_devices_hold_are_refused():
    with pytest.raises(UserError, match="104.3 GiB, more than 4 devices of 16.0 GiB hold; use mo"):
        choose(needs(7_000_000_000), Devices(4, 16 * GIB, 4))


@pytest.mark.parametrize(
    "batch_size, devices, want",
    [
        (2, Devices(8, None, 8), Sizes(2, 1, 4)),
        (6, Devices(8, None, 8), Sizes(2, 1, 4)),
        (12, Devices(16, None, 4), Sizes(4, 1, 4)),  # 4 processes of 4
        (1, Devices(1, None, 1), Sizes(1, 1, 1)),
    ],
)
def test_devices_without_a_window_of_their_own_share_the_work(batch_size, devices, want):
    assert choose(needs(1000, batch_size), devices)[0] == want


def test_no_work_is_shared_over_processes():
    with pytest.raises(
        UserError, match="batch_size=6 does not divide over the 4 processes.*use 16"
    ):
        choose(needs(1000, 6), Devices(16, None, 4))


def test_the_state_counts_weights_moments_average_and_gradient():
    model, optimizer = tiny.TinyModel(), make_optimizer(base_config().optim)
    parameters, size = state_size(model, optimizer, None, ema=0.9)
    assert parameters == 192 * 16 * 2 + 16 * 16 + 16
    assert 0 <= size - 4 * 5 * parameters < 100  # and counters and a key


def test_a_run_chooses_says_so_and_keeps_it_out_of_its_config(tmp_path, capsys):
    asked = {"mesh__auto": True, "mesh__data": 1, "mesh__fsdp": -1}  # sizes that are not read
    result = tiny.train(tmp_path, train__steps=2, train__window_doublings=(), **asked)
    assert result["step"] == 2
    count = jax.device_count()
    assert f"mesh: {count} device" in capsys.readouterr().err
    assert '"auto": true' in (tmp_path / "config.json").read_text()
    assert (
        '"mesh": {"data": 1, "fsdp": 1, "tensor": 1, "cells": 1}'
        in (tmp_path / "events.jsonl").read_text()
    )


def test_a_cpu_says_nothing_of_its_memory():
    assert devices_here() == Devices(jax.device_count(), None, jax.local_device_count())
    assert change(base_config(), {"mesh.auto": "true"}).mesh.auto is True
