"""The sequence as a value: immutable edits, and an order refused with its reason."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon_context import DEFAULT_STEPS, Steps
from daemon_context.errors import SequenceError, UnknownStepError
from tests.helpers.stepping import ORDER, Mark, named

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# --- the sequence as a value


def test_the_default_order_is_the_designs() -> None:
    assert DEFAULT_STEPS.names == ORDER
    assert len(DEFAULT_STEPS) == len(ORDER)


def test_stock_steps_have_no_fields() -> None:
    assert [vars(step) for step in DEFAULT_STEPS] == [{}] * len(ORDER)


def test_verbs_return_a_new_sequence() -> None:
    mark = Mark()
    before = DEFAULT_STEPS.insert_before("detach", mark)
    after = DEFAULT_STEPS.insert_after("detach", mark)
    instead = DEFAULT_STEPS.replace("detach", mark)
    without = DEFAULT_STEPS.remove("detach", "set-umask")
    at = ORDER.index("detach")
    assert before.names == (*ORDER[:at], "mark", *ORDER[at:])
    assert after.names == (*ORDER[: at + 1], "mark", *ORDER[at + 1 :])
    assert instead.names == (*ORDER[:at], "mark", *ORDER[at + 1 :])
    assert without.names == tuple(n for n in ORDER if n not in ("detach", "set-umask"))
    assert DEFAULT_STEPS.names == ORDER


def test_verbs_take_several_steps() -> None:
    one, two = named("one"), named("two")
    steps = Steps([Mark()])
    assert steps.insert_before("mark", one, two).names == ("one", "two", "mark")
    assert steps.insert_after("mark", one, two).names == ("mark", "one", "two")
    assert steps.replace("mark", one, two).names == ("one", "two")
    assert Steps().names == ()


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: setattr(s, "_steps", ()),
        lambda s: setattr(s, "names", ()),
        lambda s: delattr(s, "_steps"),
        lambda s: s.__setitem__(0, Mark()),
        lambda s: s.append(Mark()),
    ],
)
def test_the_sequence_can_not_be_changed(edit: Any) -> None:
    with pytest.raises((AttributeError, TypeError)):
        edit(DEFAULT_STEPS)
    assert DEFAULT_STEPS.names == ORDER


def test_lookup() -> None:
    assert DEFAULT_STEPS["set-umask"].name == "set-umask"
    assert DEFAULT_STEPS[3] is DEFAULT_STEPS["detach"]
    assert DEFAULT_STEPS[-1].name == "report-ready"
    assert DEFAULT_STEPS.index("detach") == 3
    assert "detach" in DEFAULT_STEPS
    assert DEFAULT_STEPS["detach"] in DEFAULT_STEPS
    assert "no-such-step" not in DEFAULT_STEPS
    assert Mark() not in DEFAULT_STEPS
    assert tuple(DEFAULT_STEPS) == tuple(DEFAULT_STEPS[name] for name in ORDER)


def test_equality_hash_and_pickle() -> None:
    again = Steps(DEFAULT_STEPS)
    assert again == DEFAULT_STEPS
    assert hash(again) == hash(DEFAULT_STEPS)
    assert again != again.remove("set-umask")
    assert again != tuple(again)
    assert pickle.loads(pickle.dumps(again)).names == again.names


def test_the_repr_is_a_numbered_list() -> None:
    lines = repr(DEFAULT_STEPS).splitlines()
    assert lines[0] == "Steps("
    assert lines[-1] == ")"
    assert [line.split()[:2] for line in lines[1:-1]] == [
        [str(number), name] for number, name in enumerate(ORDER, 1)
    ]
    assert "Detach()" in lines[4]


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s.insert_before("detatch", Mark()),
        lambda s: s.insert_after("detatch", Mark()),
        lambda s: s.replace("detatch", Mark()),
        lambda s: s.remove("set-umask", "detatch"),
        lambda s: s.index("detatch"),
        lambda s: s["detatch"],
    ],
)
def test_an_unknown_name_lists_the_known_ones(edit: Any) -> None:
    with pytest.raises(UnknownStepError) as caught:
        edit(DEFAULT_STEPS)
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == f"there is no step 'detatch'; known steps: {', '.join(ORDER)}"


# --- what is no sequence


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([None], "None is not a step; a step is an object of a subclass"),
        (["detach"], "'detach' is not a step"),
        ([Mark], "put an object in, not its class: Mark()"),
        ([Mark(), Mark()], "two steps are named 'mark'"),
        ([*DEFAULT_STEPS, *DEFAULT_STEPS], "two steps are named 'flush-streams'"),
        ([named(5)], "must be a string"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_step_is_refused(members: Any, words: str) -> None:
    with pytest.raises(SequenceError) as caught:
        Steps(members)
    assert words in str(caught.value)
    with pytest.raises(SequenceError):
        DEFAULT_STEPS.insert_after("detach", *members, named("detach"))


DECLARED = [(s.name, other, why) for s in DEFAULT_STEPS for other, why in s.after.items()]


@pytest.mark.parametrize(
    ("name", "other", "why"), DECLARED, ids=[f"{a}-{b}" for a, b, _ in DECLARED]
)
def test_an_order_that_can_not_work_is_refused_with_the_reason(
    name: str, other: str, why: str
) -> None:
    assert Steps([DEFAULT_STEPS[other], DEFAULT_STEPS[name]])
    with pytest.raises(SequenceError) as caught:
        Steps([DEFAULT_STEPS[name], DEFAULT_STEPS[other]])
    assert str(caught.value) == f"step {name!r} must come after {other!r}: {why}"
    assert caught.value.step == name
    moved = DEFAULT_STEPS[other]
    with pytest.raises(SequenceError, match="must come after"):
        DEFAULT_STEPS.remove(other).insert_after(name, moved)


def test_the_orders_that_matter_most_are_declared() -> None:
    declared = {(name, other) for name, other, _ in DECLARED}
    assert {
        ("write-pidfile", "detach"),
        ("write-pidfile", "lock-pidfile"),
        ("change-owner", "change-root"),
        ("change-owner", "lock-pidfile"),
        ("change-owner", "write-pidfile"),
        ("change-directory", "change-root"),
        ("redirect-streams", "open-streams"),
        ("close-descriptors", "detach"),
        ("detach", "flush-streams"),
        ("report-ready", "write-pidfile"),
    } <= declared


def test_every_declared_order_holds_by_default() -> None:
    for name, other, why in DECLARED:
        assert ORDER.index(other) < ORDER.index(name)
        assert why


def test_a_users_step_may_declare_an_order_of_its_own() -> None:
    class Late(Mark):
        name = "late"
        after = {"detach": "it needs the daemon's pid"}

    with pytest.raises(SequenceError, match="'late' must come after 'detach': it needs"):
        DEFAULT_STEPS.insert_before("detach", Late())
    assert DEFAULT_STEPS.insert_after("detach", Late())
    assert Steps([Late()])  # nothing to come after


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert_before", "insert_after", "replace", "remove"]),
        st.sampled_from([*ORDER, "a", "b", "c", "nope"]),
        st.lists(st.sampled_from([*ORDER, "a", "b", "c"]), max_size=2),
    ),
    max_size=12,
)


@CALM
@given(EDITS)
def test_any_edits_keep_order_and_unique_names(edits: list[Any]) -> None:
    steps = DEFAULT_STEPS
    for verb, name, others in edits:
        new = [DEFAULT_STEPS[n] if n in ORDER else named(n) for n in others]
        before = list(steps.names)
        try:
            steps = getattr(steps, verb)(name, *(() if verb == "remove" else new))
        except SequenceError:
            assert list(steps.names) == before
            continue
        at = before.index(name)
        expected = {
            "insert_before": before[:at] + others + before[at:],
            "insert_after": before[: at + 1] + others + before[at + 1 :],
            "replace": before[:at] + others + before[at + 1 :],
            "remove": before[:at] + before[at + 1 :],
        }[verb]
        assert list(steps.names) == expected
        assert len(set(steps.names)) == len(steps.names)
        for number, step in enumerate(steps):
            assert not set(step.after) & set(steps.names[number:])
