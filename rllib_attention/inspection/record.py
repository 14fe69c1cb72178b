"""The attention weights of one episode, and what is read off them.

Shapes: L layers, H heads, T steps, W window, S binned lags.
"""

import os
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class AttentionRecord:
    """The attention weights of one episode, or of one agent in it.

    A layer of stride s looks at the steps 0, s, 2s, … (W-1)s back, so that a weight is stored for
    each of these W keys, not for each pair of steps.

    Attributes:
        weights: α of each layer, head and step, (L, H, T, W): entry k is the weight of the key that
            lies `k * strides[layer]` steps before the step; 0 where the episode had not begun. The
            weights of a step add to 1.
        strides: Steps between the keys of each layer, (L,).
        observations: What the encoder read at each step, (T, ...).
        actions: The actions, as the module computed them, (T, ...); the parts of Dict and Tuple
            actions are joined to one row each.
        rewards: The rewards, (T,).
        start: The episode's step at which the record starts: 0, unless it is a fragment's.
        num_past: Steps before `start` that were attended to as well.
    """

    weights: np.ndarray
    strides: np.ndarray
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    start: int = 0
    num_past: int = 0

    def __len__(self) -> int:
        return self.weights.shape[2]

    @property
    def num_layers(self) -> int:
        """Layers L."""
        return self.weights.shape[0]

    @property
    def num_heads(self) -> int:
        """Heads H."""
        return self.weights.shape[1]

    @property
    def context_len(self) -> int:
        """Past steps that the model's output at a step depends on."""
        return int((self.weights.shape[-1] - 1) * self.strides.sum())

    def lags(self, layer: int) -> np.ndarray:
        """Returns how many steps back the keys of a layer lie, (W,).

        Args:
            layer: The layer, from 0.
        """
        return np.arange(self.weights.shape[-1]) * self.strides[layer]

    def steps(self, layer: int) -> np.ndarray:
        """Returns the steps of the episode that each step attends to, (T, W).

        Args:
            layer: The layer, from 0.

        Returns:
            A step for each of the weights; negative where the episode had not begun.
        """
        return self.start + np.arange(len(self))[:, None] - self.lags(layer)

    def share(self, distance: int, *, layer: int | None = None, head: int | None = None) -> float:
        """Returns the mean weight that lies a number of steps back.

        Args:
            distance: Steps from key to query; 0 is the current step.
            layer: One layer; None for the mean over all. A layer that has no key at this distance
                gives it no weight, and counts with 0.
            head: One head; None for the mean over all.

        Returns:
            A number in [0, 1], over the steps that have such a past.

        Raises:
            ValueError: If `distance` is negative or no step of the record reaches back so far.
        """
        reach = len(self) + self.num_past
        if not 0 <= distance < reach:
            raise ValueError(
                f"`distance` must lie between 0 and {reach - 1} in an episode of {reach} steps, "
                f"got {distance}."
            )
        heads = slice(None) if head is None else slice(head, head + 1)
        first = max(0, distance - self.num_past)
        shares = []
        for chosen in self._layers(layer):
            key, rest = divmod(distance, int(self.strides[chosen]))
            has_key = not rest and key < self.weights.shape[-1]
            shares.append(self.weights[chosen, heads, first:, key].mean() if has_key else 0.0)
        return float(np.mean(shares))

    def sharpest_head(self, distance: int) -> tuple[int, int]:
        """Returns the layer and head whose weight lies most at a distance.

        Args:
            distance: Steps from key to query.

        Raises:
            ValueError: As `share`.
        """
        pairs = np.ndindex(self.num_layers, self.num_heads)
        return max(pairs, key=lambda pair: self.share(distance, layer=pair[0], head=pair[1]))

    def entropy(self, *, layer: int | None = None, head: int | None = None) -> float:
        """Returns the mean entropy of a step's weights, in nats: 0 where one key takes all.

        Args:
            layer: One layer; None for the mean over all.
            head: One head; None for the mean over all.
        """
        weights = self._chosen(layer, head)
        logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
        return float(-(weights * logs).sum(-1).mean())

    def mean_lag(self, *, layer: int | None = None, head: int | None = None) -> float:
        """Returns how many steps back attention lies on average.

        Args:
            layer: One layer; None for the mean over all.
            head: One head; None for the mean over all.
        """
        means = [float((self._chosen(i, head) @ self.lags(i)).mean()) for i in self._layers(layer)]
        return float(np.mean(means))

    @property
    def context_fill(self) -> float:
        """Which part of the model's context the episode filled, on average over its steps."""
        if not self.context_len:
            return 1.0
        past = self.num_past + np.arange(len(self))
        return float(np.minimum(past, self.context_len).mean() / self.context_len)

    def by_lag(self, edges: np.ndarray, *, layer: int, head: int | None = None) -> np.ndarray:
        """Returns each step's weight on each range of lags, (T, S).

        Args:
            edges: Range s holds the lags from `edges[s]` to `edges[s + 1] - 1`, (S + 1,); see
                `lag_edges`.
            layer: The layer.
            head: One head; None for the mean over all.
        """
        place = np.searchsorted(edges, self.lags(layer), side="right") - 1
        in_range = place[:, None] == np.arange(len(edges) - 1)
        weights = self.weights[layer].mean(0) if head is None else self.weights[layer, head]
        return weights @ in_range.astype(weights.dtype)

    def lag_edges(self, max_ranges: int = 64) -> np.ndarray:
        """Returns ranges of lags that cover what any layer saw: single lags, or growing ranges.

        Args:
            max_ranges: Most ranges. Where lags are fewer, each has its own.

        Returns:
            Edges for `by_lag`, whole numbers from 0 on.
        """
        reach = min(len(self) + self.num_past, (self.weights.shape[-1] - 1) * self.strides[-1] + 1)
        if reach <= max_ranges:
            return np.arange(reach + 1)
        return np.unique(np.geomspace(1, reach + 1, max_ranges).round().astype(int)) - 1

    def lag_profile(self, *, layer: int, head: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean weight of each lag of a layer that the episode is long enough for.

        Args:
            layer: The layer.
            head: One head; None for the mean over all.

        Returns:
            Lags and weights; a lag's weight is its `share`, over the steps that have such a past.
        """
        lags = self.lags(layer)
        lags = lags[lags < len(self) + self.num_past]
        return lags, np.array([self.share(int(lag), layer=layer, head=head) for lag in lags])

    def save(self, path: str | os.PathLike) -> None:
        """Writes the record as a compressed `.npz`, without pickled objects.

        Args:
            path: The file, by whatever name.
        """
        with open(path, "wb") as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "AttentionRecord":
        """Reads what `save` wrote.

        Args:
            path: The file.

        Raises:
            ValueError: If the file holds something else.
        """
        with np.load(path, allow_pickle=False) as data:
            names = [f.name for f in fields(cls)]
            if missing := sorted(set(names) - set(getattr(data, "files", ()))):
                raise ValueError(
                    f"`AttentionRecord.load` expects a file that `record.save(path)` wrote, got "
                    f"{str(path)!r} without {missing}."
                )
            arrays = {name: data[name] for name in names}
        counts = {name: int(arrays[name]) for name in ("start", "num_past")}
        return cls(**arrays | counts)

    def _layers(self, layer: int | None) -> range:
        return range(self.num_layers) if layer is None else range(layer, layer + 1)

    def _chosen(self, layer: int | None, head: int | None) -> np.ndarray:
        layers = slice(None) if layer is None else layer
        heads = slice(None) if head is None else head
        return self.weights[layers][..., heads, :, :]
