"""Slots of running episodes: opened, kept, freed when episodes end or vanish."""

from rllib_attention.encoder.rollout_slots import RolloutSlots


def opened(*keys):
    slots = RolloutSlots()
    return slots, {key: slots.open(key) for key in keys}


def test_slots_are_in_the_order_of_opening_and_stay():
    slots, given = opened("a", "b", "c")
    assert list(given.values()) == [0, 1, 2]
    assert slots.open("b") == slots["b"] == 1
    assert slots.get("d") is None


def test_an_ended_episode_keeps_its_slot_for_its_last_step():
    slots, _ = opened("a", "b")
    slots.end("a")
    assert slots.open("c") == 2  # "a" is still computed
    slots.collect(["b", "c"], running=True)
    assert slots.get("a") is None
    assert slots.open("d") == 0


def test_an_episode_that_is_not_shown_is_gone():
    """As after a failure of its environment, or a reset in mid-episode."""
    slots, _ = opened("a", "b")
    slots.collect(["b"], running=True)
    assert slots.get("a") is None
    assert slots["b"] == 1


def test_a_call_about_ended_episodes_alone_shows_no_running_ones():
    slots, _ = opened("a", "b")
    slots.collect(["a"], running=False)
    assert slots["b"] == 1
    slots.end("a")
    slots.collect(["a"], running=False)
    assert slots.get("a") is None
    assert slots["b"] == 1


def test_no_two_episodes_share_a_slot():
    slots, _ = opened()
    running = []
    for number in range(200):
        running.append(f"{number}")
        slots.open(running[-1])
        if number % 3 == 2:
            slots.end(running.pop(0))
        if number % 7 == 6:
            running.pop(len(running) // 2)  # vanishes
        slots.collect(running, running=True)
        assert len({slots[key] for key in running}) == len(running)
    assert slots.num_slots <= 2 * 200 // 3
