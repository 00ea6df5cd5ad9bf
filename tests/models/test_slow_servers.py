"""A server that queues and takes minutes a reply, in virtual time (benchmarks/queue_sim.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TIMEOUT_S = 600.0
VERDICTS = 60


@pytest.mark.parametrize("spread", [0.0, 0.1], ids=["equal", "uneven"])
@pytest.mark.parametrize("reply_s", [60, 200, 300, 400, 500])
@pytest.mark.parametrize("places", [1, 2, 4])
def test_a_slow_server_is_neither_dead_nor_drowned(
    places: int, reply_s: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from queue_sim import simulate

    model = f"judge-{reply_s}000+slots={places}"
    found = simulate(VERDICTS, 256, model, TIMEOUT_S, spread)
    assert found["lost"] == 0
    assert found["s"] < 1.75 * VERDICTS * reply_s / places
