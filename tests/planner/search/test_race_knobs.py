"""Which values of single knobs are tried on top of the best plan; of others see test_race.py."""

from planner.racing import race_of
from volano.planner import PlanRequest


def compiled_race(steps, *, startups=None, **options):
    """A race in which compiling may win, with start-ups of the modes as they are predicted."""
    race = race_of(steps, compile=(False, True), **options)
    startups = startups or {}
    race._cost_model.startup = lambda plan: startups.get(plan.compile_mode, 5.0)
    race.run()
    return race


def tried(race):
    return [plan.compile_mode for plan in race.timings if plan.compile]


def test_blocks_are_compiled_if_the_whole_takes_too_long():
    modes = {"compile_mode": ("whole", "blocks"), "duration": "20000st"}
    faster = {True: 0.005, False: 0.01}
    startups = {"whole": 100.0, "blocks": 5.0}  # a fifth of 200 s may be saved
    race = compiled_race(lambda plan: faster[plan.compile], startups=startups, **modes)
    assert tried(race) == ["blocks"]
    assert race.ranking()[0].plan.compile_mode == "blocks"
    race = compiled_race(lambda plan: faster[plan.compile], **modes)
    assert tried(race) == ["whole"]
    (refusal,) = [one for one in race.space.refused if one.knob == "compile_mode"]
    assert (refusal.value, "compiled already" in refusal.reason) == ("blocks", True)


def test_kernels_are_timed_if_enough_of_the_run_is_left():
    modes = {"compile_mode": ("whole", "max-autotune")}
    by_mode = {"whole": 0.005, "max-autotune": 0.004}

    def steps(plan):
        return by_mode[plan.compile_mode] if plan.compile else 0.01

    # 4 x 5 s for a twentieth of the run, twice: 800 s of it.
    assert tried(compiled_race(steps, duration="200000st", **modes)) == ["whole", "max-autotune"]
    race = compiled_race(steps, duration="100000st", **modes)
    assert tried(race) == ["whole"]
    assert race.space.refused[-1].reason == "it takes about 20 s and may save 25 s of this run"
    slower = compiled_race(lambda plan: 0.02 if plan.compile else 0.01, **modes)
    assert slower.space.refused[-1].reason == "nothing that was compiled is the fastest"


def test_algorithms_of_convolutions_are_timed_on_top_of_the_best():
    options = {"conv_benchmark": (False, True), "duration": "20000st"}
    race = race_of(lambda plan: 0.01 if plan.conv_benchmark else 0.02, **options)
    race.run()
    assert race.ranking()[0].plan.conv_benchmark
    race = race_of(lambda _: 0.02, **{**options, "duration": "100st"})
    race.run()
    assert not any(plan.conv_benchmark for plan in race.timings)
    assert race.space.refused[-1].knob == "conv_benchmark"


def test_what_other_ranks_compile_again_is_not_counted_as_reused():
    counted: list[float] = []
    for ranks in (1, 2):
        race = race_of(
            lambda plan: 0.005 if plan.compile else 0.01,
            compile=(False, True), request=PlanRequest(world_size=ranks),
        )  # fmt: skip
        race._time_budget.note_reused = counted.append
        race.run()
        assert race.ranking()[0].plan.compile
        assert len(counted) == 1
    assert race.cost(race.ranking()[0]) > race.num_steps * 0.005  # their start-up is to be paid
