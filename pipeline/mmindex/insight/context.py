"""Learn the context of a label: vectors that replace the words in front of it.

The method is CoOp (K. Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022): the
embeddings of the words in front of a label are replaced by trainable vectors, the same for all
labels. Gradient descent fits these vectors to the examples. The model does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 # the usual name

from mmindex.insight.labels import PLACE
from mmindex.models.precision import compute_type
from mmindex.models.tokenizer import shorten

if TYPE_CHECKING:
    from mmindex.insight.classify import Classifier
    from mmindex.insight.few_shot import Examples
    from mmindex.insight.labels import Label
    from mmindex.models.openclip import OpenClipEncoder

_LEARNING_RATE: Final = 0.02
# Each number of steps is one setting of the method.
_STEPS: Final = (5, 10, 20)
# Two labels without a common token: the first tokens that are the same in both prompts are the
# context.
_SAMPLES: Final = ("7", "zebra")


@dataclass(frozen=True, slots=True)
class ContextLearner:
    """Learns a context; a method of :mod:`mmindex.insight.few_shot`.

    Attributes:
        encoder: the model.
        tokens: int64 (texts, positions), the prompt for each word of each label.
        owners: int64 (texts,), the number of the label of each prompt.
        places: the positions of the context.
    """

    encoder: OpenClipEncoder
    tokens: Tensor
    owners: Tensor
    places: slice

    def __call__(self, zero: Classifier, examples: Examples) -> Iterator[Classifier]:
        """Yield the classifier after each number of steps."""
        images, labels = torch.from_numpy(examples.images), torch.from_numpy(examples.labels)
        with _free_embeddings(
            self.encoder.model, self.tokens, self.places, self._vectors
        ) as context:
            optimizer = torch.optim.Adam([context], lr=_LEARNING_RATE)
            for step in range(1, _STEPS[-1] + 1):
                vectors = self._vectors()
                loss = F.cross_entropy(zero.scale * images @ vectors.T, labels)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's is not typed
                optimizer.step()
                if step in _STEPS:
                    with torch.no_grad():
                        yield replace(zero, vectors=self._vectors().numpy())

    def _vectors(self) -> Tensor:
        """Return one vector per label on the CPU: float32 (labels, dim), unit length."""
        encoder = self.encoder
        kind, dtype = encoder.device.partition(":")[0], compute_type(encoder.info.precision)
        length = int(encoder.texts.lengths(self.tokens).max())
        with torch.autocast(kind, dtype, enabled=dtype is not None):
            texts = encoder.texts.encode(self.tokens.to(encoder.device), length)
        units = F.normalize(texts.float().cpu(), dim=1)
        labels = int(self.owners.max()) + 1
        sums = torch.zeros(labels, units.shape[1]).index_add(0, self.owners, units)
        return F.normalize(sums, dim=1)


def context_learner(
    encoder: OpenClipEncoder, labels: Sequence[Label], templates: Sequence[str]
) -> ContextLearner | None:
    """Return a learner that starts with the template with the most tokens in front of the label.

    Return None if no template has tokens there, or if these tokens are not the same for all labels.
    """
    template, end = max(
        ((one, _shared(encoder, one)) for one in templates), key=lambda pair: pair[1]
    )
    if end <= 1:  # the first token is the start marker
        return None
    owners = [number for number, label in enumerate(labels) for _ in label.words]
    texts = [template.replace(PLACE, word) for label in labels for word in label.words]
    rows = _tokens(encoder, texts)
    if (rows[:, 1:end] != rows[0, 1:end]).any():
        return None
    return ContextLearner(encoder, rows, torch.tensor(owners), slice(1, end))


def _shared(encoder: OpenClipEncoder, template: str) -> int:
    """Return the number of tokens in front of a label; 0 if the label is truncated."""
    tokens = _tokens(encoder, [template.replace(PLACE, one) for one in _SAMPLES])
    different = np.flatnonzero((tokens[0] != tokens[1]).numpy())
    return int(different[0]) if len(different) else 0


def _tokens(encoder: OpenClipEncoder, texts: list[str]) -> Tensor:
    return torch.from_numpy(encoder.tokenize(shorten(texts)))


@contextmanager
def _free_embeddings(
    network: torch.nn.Module, tokens: Tensor, places: slice, read: Callable[[], object]
) -> Iterator[Tensor]:
    """Yield trainable vectors, float32 (places, width), that replace the embeddings at ``places``.

    Their first values are the embeddings of the first text. The embedding layer is the layer that
    has no sublayers, receives the tokens and returns one vector for each.

    Args:
        tokens: int64 (texts, positions); all texts have the same tokens at ``places``.
        read: runs the network on the tokens.
    """
    context: list[Tensor] = []

    def hook(_layer: torch.nn.Module, inputs: tuple[Any, ...], out: Any) -> Tensor | None:
        given = inputs[0] if inputs else None
        if not (isinstance(given, Tensor) and isinstance(out, Tensor) and given.ndim == 2):
            return None
        if out.shape[:-1] != given.shape or not torch.equal(
            given.cpu(), tokens[:, : given.shape[1]]
        ):
            return None
        if not context:
            start = out[0, places].detach().float().clone()
            context.append(start.requires_grad_())
        free = context[0].to(out.dtype).expand(len(out), -1, -1)
        return torch.cat([out[:, : places.start], free, out[:, places.stop :]], dim=1)

    layers = [one for one in network.modules() if not any(True for _ in one.children())]
    hooks = [one.register_forward_hook(hook) for one in layers]
    try:
        with torch.no_grad():
            read()
        yield context[0]
    finally:
        for one in hooks:
            one.remove()
