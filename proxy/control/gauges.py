"""What the metrics show of endpoints at the moment somebody looks (failover.md §14)."""

from collections.abc import Iterable, Iterator

from proxy.routing.explaining import held_of, state_of
from proxy.routing.standing import Standing
from proxy.routing.states import State
from proxy.telemetry.exposition import Registry


def show_endpoints(metrics: Registry, standings: Iterable[Standing], now: float) -> None:
    """In which state each endpoint is, and for how long its own key is held."""
    all_of_them = list(standings)
    metrics.show("endpoint_state", _states(all_of_them))
    held: dict[tuple[str, ...], float] = {}
    for standing in all_of_them:
        if not standing.holds:
            continue
        for name in standing.order:
            for _, left_s in held_of(standing, name, now):
                place = (standing.workspace_id, name)
                held[place] = max(held.get(place, 0.0), round(left_s, 3))
    metrics.show("rate_limit_hold_seconds", held.items())


def _states(standings: list[Standing]) -> Iterator[tuple[tuple[str, ...], float]]:
    for standing in standings:
        for name in standing.order:
            now = state_of(standing, name)
            for state in State:
                place = (standing.workspace_id, standing.policy.effective_id, name, str(state))
                yield place, int(state is now)
