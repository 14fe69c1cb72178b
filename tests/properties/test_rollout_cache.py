"""Random lives of a runner: steps, resets, new weights, failures, restores, other modules."""

import copy
import pickle

import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT

from rllib_attention.encoder.inputs import RolloutStep
from rllib_attention.encoder.rollout_memory import RolloutMemory
from rllib_attention.nn.positions import POSITIONS
from tests.encoder.support import build

SLOTS = st.sets(st.integers(0, 3), min_size=1)


class Runner(RuleBasedStateMachine):
    """An encoder with a memory, against the same encoder on the raw observations."""

    @initialize(
        dilation=st.sampled_from([1, 3]),
        position=st.sampled_from(POSITIONS),
        gate=st.sampled_from(["residual", "gru"]),
    )
    def start(self, dilation, position, gate):
        self.options = {"dilation": dilation, "position": position, "gate": gate}
        self.encoder = build(**self.options).eval()
        self.memory = RolloutMemory([self.encoder], "the RLModule")
        self.obs = {}  # episode → its observations
        self.seats = {}  # place in the vector env → its episode
        self.count = 0
        self.outputs = {}

    @rule(places=SLOTS)
    def step(self, places):
        """Steps some environments; a place without an episode begins one."""
        rows = []
        for place in sorted(places):
            if place not in self.seats:
                self.seats[place], self.count = f"{self.count}", self.count + 1
                self.obs[self.seats[place]] = []
                self.memory.history.begin(self.memory.slots.open(self.seats[place]), 0)
            episode = self.seats[place]
            self.obs[episode].append(torch.randn(3))
            step = len(self.obs[episode]) - 1
            slot = self.memory.slots[episode]
            self.memory.history.write(slot, step, self.obs[episode][-1].numpy(), None)
            rows.append((episode, slot, step))
        handle = torch.tensor([[slot, step] for _, slot, step in rows])
        obs = torch.stack([self.obs[episode][-1] for episode, _, _ in rows])
        batch = {Columns.OBS: obs, Columns.STATE_IN: RolloutStep(handle).to_state()}
        out = self.encoder(batch)[ENCODER_OUT]
        self.outputs = {episode: out[i] for i, (episode, _, _) in enumerate(rows)}

    @rule(place=st.integers(0, 3))
    def end(self, place):
        """An episode ends, and its slot is free at the next call."""
        if place in self.seats:
            self.memory.slots.end(self.seats.pop(place))
            self.memory.slots.collect(self.seats.values(), running=bool(self.seats))

    @rule(place=st.integers(0, 3))
    def vanish(self, place):
        """An environment fails: its episode is not shown again."""
        self.seats.pop(place, None)
        self.memory.slots.collect(self.seats.values(), running=bool(self.seats))

    @rule()
    def sync(self):
        """New weights, written in place."""
        self.encoder.load_state_dict({k: v * 1.1 for k, v in self.encoder.state_dict().items()})

    @rule(how=st.sampled_from([copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]))
    def replace(self, how):
        """The module is replaced by a copy, which takes over the memory."""
        self.encoder = how(self.encoder).eval()
        self.memory = self.memory.taken_over([self.encoder], "the RLModule")

    @rule()
    def restore(self):
        """A new runner: its memory is filled from what episodes hold."""
        self.memory = RolloutMemory([self.encoder], "the RLModule")
        context = self.memory.history.context_len
        for episode in self.seats.values():
            past = self.obs[episode]
            first, slot = max(0, len(past) - context), self.memory.slots.open(episode)
            rows = self.memory.history.prev_inputs.rows([], [], len(past) - first)
            obs = torch.stack(past[first:]).numpy()
            self.memory.history.fill(slot, first, obs, rows)

    @invariant()
    def outputs_are_those_of_the_raw_observations(self):
        for episode, out in self.__dict__.pop("outputs", {}).items():
            state = {k: v[None] for k, v in self.encoder.get_initial_state().items()}
            batch = {Columns.OBS: torch.stack(self.obs[episode])[None], Columns.STATE_IN: state}
            with torch.no_grad():
                expected = self.encoder(batch)[ENCODER_OUT][0, -1]
            torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-3)


TestRunner = Runner.TestCase
