"""The legs of one attempt are told one decision; nobody else is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ringfence.ids import new_decision_id, new_orig_id
from ringfence.model import Decision, Verdict
from ringfence.switches.freeswitch.sharing import ALLOWED_S, MAX_ENTRIES, MAX_LEGS, REFUSED_S, SharedDecisions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def judge(verdict: Verdict = Verdict.ALLOW) -> Callable[[], Coroutine[Any, Any, Decision]]:
    async def answer() -> Decision:
        await asyncio.sleep(0)
        return Decision(new_decision_id(), new_orig_id(), verdict, "x")

    return answer


async def test_legs_that_ask_at_once_or_one_by_one_share_a_decision() -> None:
    shared = SharedDecisions()
    told = await asyncio.gather(*(shared.decide(("a",), judge()) for _ in range(5)))
    told.append(await shared.decide(("a",), judge()))
    assert len(set(told)) == 1
    assert (await shared.decide(("b",), judge())) not in told


async def test_a_leg_that_goes_away_takes_no_other_leg_with_it() -> None:
    shared, gate = SharedDecisions(), asyncio.Event()

    async def slow() -> Decision:
        await gate.wait()
        return await judge()()

    first = asyncio.create_task(shared.decide(("a",), slow))
    second = asyncio.create_task(shared.decide(("a",), judge(Verdict.REJECT)))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert (await second).verdict is Verdict.ALLOW


@pytest.mark.parametrize(("verdict", "lasts_s"), [(Verdict.ALLOW, ALLOWED_S), (Verdict.REJECT, REFUSED_S)])
async def test_a_decision_ages(verdict: Verdict, lasts_s: float) -> None:
    clock = Clock()
    shared = SharedDecisions(clock)
    first = await shared.decide(("a",), judge(verdict))
    clock.now = lasts_s * 0.9
    assert await shared.decide(("a",), judge(verdict)) == first
    clock.now = lasts_s * 1.1
    assert await shared.decide(("a",), judge(verdict)) != first


async def test_a_decision_is_forgotten_with_its_call_and_after_too_many_legs() -> None:
    shared = SharedDecisions()
    first = await shared.decide(("a",), judge())
    shared.forget(first.decision_id)
    second = await shared.decide(("a",), judge())
    assert second != first
    told = [await shared.decide(("a",), judge()) for _ in range(MAX_LEGS)]
    assert told.count(second) == MAX_LEGS - 1
    shared.forget(second.decision_id)


async def test_it_never_grows_beyond_its_bound() -> None:
    clock = Clock()
    shared = SharedDecisions(clock)
    for number in range(MAX_ENTRIES + 50):
        await shared.decide((str(number),), judge())
    assert len(shared) == MAX_ENTRIES
    assert len(shared._keys) == MAX_ENTRIES
    clock.now = ALLOWED_S + 1
    shared.sweep()
    assert (len(shared), len(shared._keys)) == (0, 0)
