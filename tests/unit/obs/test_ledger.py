"""Sums over workers that never fall, whatever workers and tenants do."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.obs.ledger import OTHER, Ledger, TenantLabels, Words

Q = ("queries_total", "acme")


def test_living_workers_are_added_up():
    ledger = Ledger()
    ledger.update(1, {Q: 5})
    ledger.update(2, {Q: 7})
    assert ledger.totals() == {Q: 12}


def test_a_dead_workers_counts_stay():
    ledger = Ledger()
    ledger.update(1, {Q: 5})
    ledger.update(2, {Q: 7})
    ledger.retire([2])
    ledger.update(3, {Q: 1})  # its successor counts from 0
    assert ledger.totals() == {Q: 13}


def test_a_worker_that_does_not_answer_keeps_its_last_counts():
    ledger = Ledger()
    ledger.update(1, {Q: 5})
    ledger.retire([1])
    assert ledger.totals() == {Q: 5}


def test_a_count_that_falls_in_a_living_worker_does_not_make_the_sum_fall():
    ledger = Ledger()
    ledger.update(1, {("queries_total", OTHER): 50})
    ledger.update(1, {("queries_total", OTHER): 20, Q: 30})  # acme got a label of its own
    assert ledger.totals() == {("queries_total", OTHER): 50, Q: 30}
    ledger.update(1, {("queries_total", OTHER): 21, Q: 31})
    assert ledger.totals() == {("queries_total", OTHER): 51, Q: 31}


def test_what_is_forgotten_begins_anew():
    ledger = Ledger()
    ledger.update(1, {Q: 5, ("queries_total", "beta"): 1})
    ledger.retire([])
    ledger.forget(lambda key: key[1] == "acme")
    assert ledger.totals() == {("queries_total", "beta"): 1}


def test_another_process_goes_on_from_a_dump():
    ledger = Ledger()
    ledger.update(1, {Q: 5})
    ledger.update(2, {Q: 7})
    ledger.retire([2])
    assert ledger.dirty
    kept = json.loads(json.dumps(ledger.dump()))
    successor = Ledger()
    successor.load(kept)
    assert not successor.dirty
    successor.update(2, {Q: 8})
    assert successor.totals() == {Q: 13}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("count"), st.integers(0, 3), st.sampled_from("abc"), st.integers(0, 9)),
            st.tuples(st.just("die"), st.integers(0, 3)),
            st.tuples(st.just("vanish"), st.integers(0, 3), st.sampled_from("abc")),
            st.tuples(st.just("restart control")),
        ),
        max_size=40,
    )
)
def test_no_sum_ever_falls(events):
    ledger = Ledger()
    incarnations = {slot: slot + 1 for slot in range(4)}
    counters: dict[int, dict[tuple[str, ...], int]] = {slot: {} for slot in range(4)}
    before: dict[tuple[str, ...], int] = {}
    for event in events:
        match event:
            case "count", slot, key, n:
                counters[slot][key,] = counters[slot].get((key,), 0) + n
            case "die", slot:
                incarnations[slot] = max(incarnations.values()) + 1
                counters[slot] = {}
            case "vanish", slot, key:
                counters[slot].pop((key,), None)
            case _:
                kept, ledger = ledger.dump(), Ledger()
                ledger.load(kept)
        ledger.retire(incarnations.values())
        for slot, incarnation in incarnations.items():
            ledger.update(incarnation, dict(counters[slot]))
        totals = ledger.totals()
        assert all(totals.get(key, 0) >= value for key, value in before.items())
        before = totals


# --- labels -------------------------------------------------------------------------


def test_the_busiest_get_the_places_and_the_rest_is_other():
    labels = TenantLabels(2)
    labels.admit({"a": 1, "b": 9, "c": 5, "idle": 0})
    assert [labels.of(name) for name in ("a", "b", "c", "idle")] == [OTHER, "b", "c", OTHER]


def test_who_is_in_stays_in():
    labels = TenantLabels(1)
    labels.admit({"a": 1})
    labels.admit({"a": 1, "b": 100})
    assert (labels.of("a"), labels.of("b")) == ("a", OTHER)


def test_a_tenant_that_is_gone_gives_its_place_back():
    labels = TenantLabels(1)
    labels.admit({"a": 1})
    assert labels.release(lambda tenant: tenant != "a") == ["a"]
    labels.admit({"b": 1})
    assert labels.of("b") == "b"


def test_a_tenant_named_other_is_summed_with_the_rest():
    labels = TenantLabels(5)
    labels.admit({"other": 100})
    assert labels.of("other") == OTHER
    assert len(labels) == 0


def test_what_belongs_to_no_tenant_has_an_empty_label():
    assert TenantLabels(5).of("") == ""
    assert TenantLabels(5).of(None) == ""


def test_no_places_at_all():
    labels = TenantLabels(0)
    labels.admit({"a": 1})
    assert labels.of("a") == OTHER


def test_labels_survive_the_process():
    labels = TenantLabels(2)
    labels.admit({"a": 1, "b": 1})
    successor = TenantLabels(2)
    successor.load(labels.dump())
    successor.admit({"c": 100})
    assert [successor.of(name) for name in "abc"] == ["a", "b", OTHER]


def test_words_are_bounded_per_series():
    words = Words(2)
    assert [words.of("x", word) for word in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
    assert words.of("y", "c") == "c"
    successor = Words(2)
    successor.load(words.dump())
    assert successor.of("x", "c") == OTHER
