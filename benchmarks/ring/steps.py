"""Whole training steps on a GPU as CUDA graphs, fed from tables that lie there; plain steps on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnprune.data import ArrayLoader
from snnprune.data.augment import draw_moves, move
from snnprune.data.loader import generator_of
from snnprune.learner.optim import cosine
from snnprune.learner.speed import channels_last_

DISTILL, TEMPERATURE, MOMENTUM, CLIP, WARMUP = 0.9, 2.0, 0.9, 5.0, 0.05  # those of the product's recovery
_WARM = 3  # steps before a graph is captured


class Tables:
    """All batches of a seed in the order in which its loader gives them, and what the dense network says of them.

    Args:
        loader: that of the seed, on the device.
        teacher: the dense network.
        total: steps.

    Attributes:
        index: (total, batch) places of images.
        moves: rows, columns and mirror images of `draw_moves`, each (total, batch).
        said: (total, batch, classes) logits, half precision.
    """

    def __init__(self, loader: ArrayLoader, teacher: nn.Module, total: int) -> None:
        self.loader, self.where = loader, loader.device
        self.images, self.labels = loader.images, loader.labels.to(self.where)
        places, moves = [], []
        for epoch in range(-(-total // len(loader))):
            for step, size, _, chosen in loader.steps(epoch, 0, None):
                places.append(chosen)
                moves.append(draw_moves(size, loader.info.shape, generator_of(loader.seed, epoch, step + 1)))
        self.index = torch.stack(places[:total]).to(self.where)
        self.moves = [torch.stack(list(kind)[:total]).to(self.where) for kind in zip(*moves, strict=True)]
        self.said = self._answers(copy.deepcopy(teacher).eval())

    def batch(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of a step.

        Args:
            at: (1,) number of the step, on the device.
        """
        index = self.index[at][0]
        x = move(self.loader.normalised(self.images[index]), *(kind[at][0] for kind in self.moves))
        return x.contiguous(memory_format=torch.channels_last), self.labels[index]

    @torch.no_grad()
    def _answers(self, teacher: nn.Module) -> Tensor:
        channels_last_(teacher)
        total, size = self.index.shape
        at = torch.zeros(1, dtype=torch.long, device=self.where)
        found = torch.empty((total, size, len(self.loader.info.classes)), dtype=torch.half, device=self.where)

        def one() -> None:
            with in_half(self.where):
                said = teacher(self.batch(at)[0])
            found.index_copy_(0, at, said[None].half())
            at.add_(1)

        go = captured(one, self.where, lambda: at.zero_())
        for _ in range(total):
            go()
        return found


class Run:
    """One network that learns by SGD with Nesterov's momentum and a cosine, step by step.

    Args:
        network: learns in place.
        tables: of its seed.
        start: first step of the tables.
        steps: how many.
        rate: peak of the learning rate.
        decay: weight decay.
        taught: learn from the teacher's answers too.

    Attributes:
        step: how many were done, or are on their way.
    """

    def __init__(
        self,
        network: nn.Module,
        tables: Tables,
        start: int,
        steps: int,
        rate: float,
        *,
        decay: float,
        taught: bool,
    ) -> None:
        self.network, self.tables, self.steps, self.step = network, tables, steps, 0
        self.decay, self.taught, where = decay, taught, tables.where
        self.start, total = start, len(tables.index)
        channels_last_(network)
        network.train()
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.gradients: list[Any] = [p.grad for p in self.parameters]
        self.momenta = [torch.zeros_like(p) for p in self.parameters]
        self.at = torch.zeros(1, dtype=torch.long, device=where)
        rates = [rate * cosine(step, steps, WARMUP) for step in range(steps)]
        self.rates = torch.tensor(rates, device=where)
        self.places = torch.arange(start, start + steps, device=where) % total
        self.stream = torch.cuda.Stream() if where.type == "cuda" else None
        before = [value.clone() for value in self._values()]

        def undo() -> None:
            with torch.no_grad():
                for value, was in zip(self._values(), before, strict=True):
                    value.copy_(was)

        self._gradients = captured(self._learn, where, undo, self.stream)
        self._update = captured(self._apply, where, undo, self.stream)

    def go(self, between: Callable[[int, int], None] | None = None) -> None:
        """One step; on a GPU it is only started.

        Args:
            between: given the number of the step and of all steps, it may change the gradients.
        """
        with torch.cuda.stream(self.stream):
            self._gradients()
            if between is not None:
                between(self.step, self.steps)
            self._update()
        self.step += 1

    def finished(self) -> nn.Module:
        """The network, without its gradients."""
        if self.stream is not None:
            self.stream.synchronize()
        self.network.zero_grad(set_to_none=True)
        return self.network.eval()

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, besides the network's own values."""
        return {"step": self.step, "momenta": [m.cpu() for m in self.momenta]}

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        self.step = state["step"]
        self.at.fill_(self.step)
        for value, was in zip(self.momenta, state["momenta"], strict=True):
            value.copy_(was)

    def _values(self) -> list[Tensor]:
        return [*self.network.parameters(), *self.network.buffers(), *self.momenta, *self.gradients, self.at]

    def _learn(self) -> None:
        place = self.places[self.at]
        x, y = self.tables.batch(place)
        torch._foreach_zero_(self.gradients)
        with in_half(self.tables.where):
            logits = self.network(x)
        logits = logits.float()
        loss = F.cross_entropy(logits, y)
        if self.taught:
            t = TEMPERATURE
            said = F.log_softmax(self.tables.said[place][0].float() / t, 1)
            soft = F.kl_div(F.log_softmax(logits / t, 1), said, reduction="batchmean", log_target=True)
            loss = (1 - DISTILL) * loss + DISTILL * t * t * soft
        loss.backward()

    @torch.no_grad()
    def _apply(self) -> None:
        """Clipping, weight decay, momentum, update; then the next step."""
        norms = torch.stack([norm.float() for norm in torch._foreach_norm(self.gradients)])
        scale = (CLIP / (norms.norm() + 1e-6)).clamp(max=1.0)
        change = torch._foreach_mul(self.gradients, scale)
        if self.decay:
            torch._foreach_add_(change, self.parameters, alpha=self.decay)
        torch._foreach_mul_(self.momenta, MOMENTUM)
        torch._foreach_add_(self.momenta, change)
        torch._foreach_add_(change, self.momenta, alpha=MOMENTUM)
        torch._foreach_mul_(change, -self.rates[self.at][0])
        torch._foreach_add_(self.parameters, change)
        self.at.add_(1)


def in_half(where: torch.device) -> Any:
    """bfloat16 on a GPU."""
    return torch.autocast("cuda", torch.bfloat16, enabled=where.type == "cuda", cache_enabled=False)


def captured(
    step: Callable[[], None], where: torch.device, undo: Callable[[], object], stream: Any = None
) -> Callable[[], object]:
    """The step as a CUDA graph; on a CPU the step itself.

    Args:
        step: without arguments or results, and without waiting for the GPU.
        where: it runs.
        undo: puts back what the steps have changed that warm up.
        stream: on which it will run.
    """
    if where.type != "cuda":
        return step
    side = stream or torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM):
            step()
            undo()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        step()
    undo()
    torch.cuda.synchronize()
    return graph.replay
