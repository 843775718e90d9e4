"""Top-1 accuracy and mean cross-entropy, in one pass that is shared out among processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError
from ..inputs import logits_of, split_batch
from ..labels import classes_of, read_labels, targets_of, unread_targets
from ..late import runs_ahead
from ..ranks import Ranks
from ..resting import evaluating
from .answers import Answers, mark_of
from .info import ACCURACY, Evaluation
from .metric import Measure
from .passes import Told, batches_of, module_of, place_of


class Accuracy(Measure):
    """The share of inputs whose class the model gets right; beside it the mean cross-entropy."""

    info = ACCURACY

    def measure(
        self,
        model: Callable[..., Any],
        loader: Iterable[Any],
        *,
        device: torch.device | str | None = None,
        on_batch: Told = None,
        ranks: Ranks | None = None,
    ) -> Evaluation:
        """See `evaluate`."""
        module, ranks = module_of(model), ranks or Ranks()
        where, total = place_of(module, device), 0
        hits: list[Tensor] = []  # read together at the end: each alone would make the CPU wait
        losses: list[Tensor] = []
        marks: list[Tensor] = []
        doubtful: list[tuple[Tensor, Tensor, Tensor]] = []
        with evaluating(module):
            for _, batch in batches_of(loader, ranks):
                images, labels = split_batch(batch)
                if labels is None:
                    raise DataError("a batch holds no labels, so there is nothing to evaluate against.")
                if not isinstance(images, Tensor):
                    raise DataError(
                        f"the inputs of a batch are {type(images).__name__}, not one tensor. Give a loader of "
                        "(images, labels), or a metric of your own."
                    )
                images, labels = images.to(where), labels.to(where)
                logits = logits_of(model(images))[0]
                if isinstance(logits, Tensor) and runs_ahead(logits.device):
                    targets, wrong = unread_targets(logits, labels)
                    doubtful.append((wrong, logits[:0], labels))
                else:
                    targets = targets_of(logits, labels)
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                losses.append(F.cross_entropy(logits, targets, reduction="sum"))
                hits.append(logits.argmax(1) == classes_of(targets))
                marks.append(mark_of(images))
                total += len(labels)
                if on_batch:
                    on_batch()
        if doubtful and any(torch.stack([wrong for wrong, _, _ in doubtful]).tolist()):
            for _, logits, labels in doubtful:
                read_labels(labels, logits.shape[1])
        answers = Answers.of(hits, marks) if hits else None
        correct = 0 if answers is None else int(answers.right.sum())
        loss = sum(torch.stack(losses).tolist()) if losses else 0
        correct, loss, total = ranks.total(correct, loss, total)
        if not total:
            raise DataError("the data loader yields no batch, so there is nothing to evaluate on.")
        loss = loss / total if math.isfinite(loss) else math.inf
        return Evaluation(correct / total, loss, int(total), answers=answers)
