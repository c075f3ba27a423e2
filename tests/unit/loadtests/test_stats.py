"""Medians, ratios, percentiles and the steady part of a run."""

import pytest

from loadtests.stats import Reading, Spread, percentile, ratio, slope, spread, steady_window


def test_a_spread_is_the_median_and_the_range():
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert spread([]) is None


def test_noise_is_the_range_in_relation_to_the_median():
    assert Spread(100.0, 95.0, 105.0, 3).noise == pytest.approx(0.1)
    assert Spread(0.0, 0.0, 0.0, 1).noise == 0


def test_a_ratio_is_of_the_medians_and_its_range_of_neighbouring_rounds():
    ours = {1: 10.0, 2: 12.0, 3: 90.0}
    theirs = {1: 20.0, 2: 20.0, 3: 100.0}
    found = ratio(ours, theirs)
    assert found is not None
    assert found.median == pytest.approx(12 / 20)
    assert found.low == pytest.approx(0.5)
    assert found.high == pytest.approx(0.9)


def test_a_ratio_needs_rounds_that_both_have():
    assert ratio({1: 1.0}, {2: 1.0}) is None
    assert ratio({1: 1.0}, {}) is None
    assert ratio({1: 1.0}, {1: 0.0}) is None
    found = ratio({1: 2.0, 2: 2.0}, {2: 1.0})
    assert found is not None
    assert found.count == 1


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (0.07, 7), (1.0, 100)]
)
def test_percentiles_are_the_nearest_rank(share, expected):
    assert percentile(range(1, 101), share) == expected


def test_percentiles_of_few_values():
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([1.0, 2.0], 0.5) == 1.0
    with pytest.raises(ValueError):
        percentile([], 0.5)


def test_the_steady_part_leaves_out_the_start_and_what_follows_the_last_event():
    readings = [Reading(float(at), at * 10.0) for at in range(10)]
    events = [1.0, 2.5, 3.0, 4.5, 6.0, 7.5]
    window = steady_window(readings, events, settle_s=1.0)
    assert window is not None
    assert (window.start, window.end) == (2.0, 7.0)
    assert window.growth == 50.0
    assert window.events == 4  # 2.5, 3.0, 4.5, 6.0
    assert window.seconds == 5.0


@pytest.mark.parametrize(
    ("readings", "events"),
    [
        ([], [1.0, 2.0]),
        ([Reading(1.0, 0.0)], [0.5, 2.0]),
        ([Reading(1.0, 0.0), Reading(2.0, 0.0)], []),
        ([Reading(1.0, 0.0), Reading(2.0, 0.0)], [0.5, 3.0]),
    ],
    ids=["no readings", "one reading", "no events", "nothing between"],
)
def test_no_steady_part(readings, events):
    assert steady_window(readings, events, settle_s=0.0) is None


def test_the_slope_of_a_line_and_of_a_point():
    assert slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) == pytest.approx(2.0)
    assert slope([(0.0, 1.0)]) == 0
    assert slope([(1.0, 1.0), (1.0, 2.0)]) == 0
