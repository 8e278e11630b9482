"""Which random numbers the processes and sessions of a training draw."""

import random

import numpy as np
import torch

from veloxseg.training.seeding import process_seed, set_seed


def drawn(seed):
    set_seed(seed)
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_the_first_session_of_one_process_has_the_seed_of_the_run():
    assert process_seed(7) == 7


def test_no_two_processes_and_no_two_sessions_draw_the_same():
    seeds = [process_seed(7, rank=rank, epoch=epoch) for rank in range(8) for epoch in range(1001)]
    assert len(set(seeds)) == len(seeds)


def test_runs_of_neighbouring_seeds_share_no_patches_between_their_processes():
    seeds = [process_seed(seed, rank=rank) for seed in range(10) for rank in range(8)]
    assert len(set(seeds)) == len(seeds)


def test_a_seed_decides_what_all_three_generators_draw():
    first, again, other = drawn(3), drawn(3), drawn(process_seed(3, rank=1))
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_a_seed_below_zero_is_one_as_well():
    assert drawn(-1) == drawn(-1) != drawn(-2)
