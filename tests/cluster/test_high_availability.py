"""Three replicas on PostgreSQL under load: rolling restart, eviction of each pod, and a killed process."""

import time

# Longest time in seconds in which callbacks may fail.
ALLOWED_REFUSAL = 1.0


def test_restart_eviction_and_kill_lose_no_callback_and_refuse_none_for_a_second(nodes, postgres, scenario):
    nodes(3)
    release, load = scenario.release, scenario.load
    scenario.start("high-availability", 3, journal={"engine": "postgres", "url": postgres("gateway")})

    def evict_each():
        # The budget delays each eviction until the pod before is replaced.
        refusals = sum(release.evict(pod) for pod in release.pods())
        assert refusals > 0
        return {"refusals_of_the_eviction_api": refusals}

    scenario.measure("undisturbed", lambda: time.sleep(10))
    scenario.measure("rolling_restart", release.restart)
    scenario.measure("evictions", evict_each)
    for number in range(3):
        scenario.measure(f"kill_{number + 1}", lambda: release.kill_and_wait(release.pods()[number]))
    scenario.finish("high_availability")
    figures = scenario.figures
    assert all(watcher.retries for watcher in load.watches), "a watch was not interrupted"
    refusals = {name: f["longest_refusal_s"] for name, f in figures.items() if "longest_refusal_s" in f}
    assert max(refusals.values()) <= ALLOWED_REFUSAL, refusals
    planned = {name: figures[name]["failed_attempts"] for name in ("undisturbed", "rolling_restart", "evictions")}
    assert not any(planned.values()), f"callbacks failed during planned disturbances: {planned}"
