"""The learning rate over a training, and the clock of a budget."""

import time
from types import SimpleNamespace

import pytest

from veloxseg.training.schedule import Budget, WarmupCosine


@pytest.fixture
def optimizer():
    return SimpleNamespace(param_groups=[{"lr": 0.0}, {"lr": 1.0}])


@pytest.fixture
def cosine(optimizer):
    return WarmupCosine(optimizer=optimizer, peak=2.5e-4)


def test_the_published_schedule_starts_near_zero_peaks_after_ten_epochs_and_ends_at_6e_6(cosine):
    assert 0 < cosine.rate(0.0) < 1e-6
    assert cosine.rate(5 / 300) == pytest.approx(1.25e-4)
    assert cosine.rate(10 / 300) == pytest.approx(2.5e-4)
    assert cosine.rate(155 / 300) == pytest.approx((2.5e-4 + 6e-6) / 2)  # half of the cosine
    assert cosine.rate(1.0) == pytest.approx(6e-6)


def test_the_rate_rises_through_the_warm_up_then_falls(cosine):
    rates = [cosine.rate(i / 3000) for i in range(3001)]
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert max(rates) == pytest.approx(2.5e-4)


def test_past_the_end_the_rate_stays_at_its_last_value(cosine):
    assert cosine.rate(1.7) == cosine.rate(1.0)


def test_advance_sets_every_group_and_step_none(cosine, optimizer):
    cosine.advance(0.5)
    expected = cosine.rate(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [expected, expected]
    cosine.step(7)
    assert optimizer.param_groups[0]["lr"] == expected


def test_without_a_warm_up_the_first_rate_is_the_peak(optimizer):
    assert WarmupCosine(optimizer=optimizer, peak=1.0, warmup=0.0).rate(0.0) == 1.0


class Clock:
    """A clock that a test moves."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


def test_a_budget_counts_from_its_start_only(clock):
    budget = Budget(seconds=100, clock=clock)
    clock.seconds += 50
    assert budget.elapsed == 0
    budget.start()
    clock.seconds += 25
    assert budget.elapsed == 25
    assert budget.fraction == 0.25
    clock.seconds += 1000
    assert budget.fraction == 1.0


def test_time_that_is_only_waited_for_spends_no_budget_of_cpu_time():
    budget = Budget(seconds=100, clock=time.process_time)
    budget.start()
    started = time.monotonic()
    time.sleep(0.2)
    assert budget.elapsed < 0.1
    while time.process_time() - budget._started < 0.2:
        sum(range(1000))
    assert 0.2 <= budget.elapsed <= time.monotonic() - started - 0.1


def test_a_budget_goes_on_where_an_earlier_session_stopped(clock):
    first = Budget(seconds=100, clock=clock)
    first.start()
    clock.seconds += 40
    second = Budget(seconds=100, clock=clock)
    second.spent = first.elapsed
    clock.seconds += 500  # between the sessions no time is used
    second.start()
    clock.seconds += 20
    assert second.elapsed == 60
    assert second.fraction == 0.6


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 5.0), (30, 45.0), (1000, 300.0)])
def test_a_budget_has_forty_epochs_within_bounds(minutes, seconds):
    assert Budget(seconds=60 * minutes).epoch_seconds == seconds
