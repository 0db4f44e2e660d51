"""Look away from some tokens of some prompts, layer by layer, on queries that are kept: no network in the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning
from aizheimer.data.query_bank import QueryBank, Record
from aizheimer.data.sources import random_entries
from aizheimer.engine.attention_problem import MapsTerm
from aizheimer.engine.held_out import GRADIENT_OF, batches
from aizheimer.engine.problem import Loss
from aizheimer.modules.attention import attention_probe
from aizheimer.modules.kept_queries import answer, heard_queries
from aizheimer.modules.maps import AttentionMap, mass
from aizheimer.modules.parameters import swapped
from aizheimer.objectives.reconstruction import TINY, answers_mse


@dataclass(frozen=True, kw_only=True)
class KeptExamples:
    """Kept queries under their prompts.

    Args:
        queries: The bank; its ``prompt_index`` counts in what follows.
        embeddings: Encoded prompts.
        columns: (prompts, tokens), True at target tokens; all False for prompts without the target.
        batch_size: Examples in a batch.
    """

    queries: QueryBank
    embeddings: Conditions
    columns: Tensor
    batch_size: int

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return a batch's numbers in the bank."""
        return random_entries(len(self.queries), self.batch_size, generator=generator)


@dataclass(frozen=True, kw_only=True)
class QueryProblem:
    r"""An attention term on forget prompts, and what layers answer to retain prompts and in the concept's place.

    .. math:: L = \lambda_a L_{attn} + \lambda_c L_{anchor}
        + \lambda_r \operatorname{mean}_l \frac{\lVert s_l - t_l\rVert^2}{\lVert t_l\rVert^2}

    The attention term is that of `aizheimer.engine.attention_problem`, on attention that is computed of kept queries.
    With the queries that a layer meets, its loss and gradient are those of the whole pass; what the pass has beside
    them is how an edited layer changes the queries of later ones. Where retain prompts keep the network's prediction
    there, every layer keeps its answer here: what it hands to its output projection.

    Several processes compute the whole batch each, and the same: there is too little to share.

    Args:
        backbone: The network being edited.
        parameters: Trained keys and values by name.
        originals: Their original values.
        layers: Cross-attention layers.
        term: The attention term.
        attention_weight: :math:`\lambda_a`.
        forget: Examples with the target.
        retain: Examples whose answers stay; None when there are none.
        retain_weight: :math:`\lambda_r`.
        anchor: Each forget prompt with the anchor in the concept's place: to forget prompts, layers answer what the
            original ones answer to these. None for no anchor term.
        anchor_weight: :math:`\lambda_c`.
        held_out: Forget and retain examples for the monitor, whose batch size does not matter.
    """

    backbone: Backbone
    parameters: Mapping[str, Parameter]
    originals: Mapping[str, Tensor]
    layers: Sequence[str]
    term: MapsTerm
    attention_weight: float = 1.0
    forget: KeptExamples
    retain: KeptExamples | None = None
    retain_weight: float = 1.0
    anchor: Conditions | None = None
    anchor_weight: float = 0.0
    held_out: tuple[KeptExamples, KeptExamples]

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the weighted terms of one batch; ``step`` does not matter."""
        del step
        chosen = self.forget.draw(generator)
        kept = None if self.retain is None else self.retain.draw(generator)
        answers, maps = self._answers(self.forget, chosen)
        term = self.term(maps, generator=generator)
        losses = {"attention": Loss(term.total, self.attention_weight, term.parts)}
        if self.retain is not None and kept is not None:
            found = answers_mse(self._answers(self.retain, kept)[0], self._original(self.retain, kept))
            losses["teacher"] = Loss(found.total, self.retain_weight, found.parts, "retain")
        if self.anchor is not None:
            found = answers_mse(answers, self._original(self.forget, chosen, text=self.anchor))
            losses["anchor"] = Loss(found.total, self.anchor_weight, found.parts)
        return losses

    @torch.no_grad()
    def monitor(self) -> dict[str, float]:
        r"""Return attention mass, overall and by layer (``layers/<name>``), and retention drift on the held-out set.

        The drift is the layers' mean of :math:`\lVert s_l - t_l\rVert^2 / \lVert t_l\rVert^2`.
        """
        forget, retain = self.held_out
        sums = dict.fromkeys(self.layers, 0.0)
        for index in _parts(forget):
            for layer, value in mass(self._answers(forget, index)[1]).items():
                sums[layer] += float(value) * len(index) / len(forget.queries)
        errors, norms = dict.fromkeys(self.layers, 0.0), dict.fromkeys(self.layers, 0.0)
        for index in _parts(retain):
            student, teacher = self._answers(retain, index)[0], self._original(retain, index)
            for layer in self.layers:
                errors[layer] += float((student[layer] - teacher[layer]).double().square().sum())
                norms[layer] += float(teacher[layer].double().square().sum())
        return {
            "attention_mass": sum(sums.values()) / len(sums),
            "retention_drift": sum(errors[layer] / max(norms[layer], TINY) for layer in self.layers) / len(self.layers),
            **{f"layers/{layer}": value for layer, value in sums.items()},
        }

    def retention_errors(self, rows: int) -> Iterator[Tensor]:
        """Yield the answers' errors on held-out retain queries, in the autograd graph."""
        _, retain = self.held_out
        for some in batches(min(len(retain.queries), GRADIENT_OF), rows):
            index = torch.arange(some.start, min(some.stop, GRADIENT_OF, len(retain.queries)))
            yield answers_mse(self._answers(retain, index)[0], self._original(retain, index)).total * len(index)

    def _answers(
        self, examples: KeptExamples, index: Tensor, *, text: Conditions | None = None
    ) -> tuple[dict[str, Tensor], dict[str, AttentionMap]]:
        """Return every layer's answers to some examples and its map, under their own prompts or others."""
        prompts = examples.queries.prompt_index[index]
        like = next(iter(self.parameters.values()))
        rows = as_conditioning(examples.embeddings if text is None else text)[prompts].to(like).tokens
        columns = examples.columns[prompts].to(like.device)
        answers, maps = {}, {}
        for layer in self.layers:
            queries = examples.queries.rows(layer, index).to(like)
            module = self.backbone.denoiser.get_submodule(layer)
            answers[layer], maps[layer] = answer(module, queries, rows, columns=columns)
        return answers, maps

    @torch.no_grad()
    def _original(self, examples: KeptExamples, index: Tensor, *, text: Conditions | None = None) -> dict[str, Tensor]:
        with swapped(self.backbone.denoiser, self.originals):
            return self._answers(examples, index, text=text)[0]


def query_recorder(backbone: Backbone, layers: Sequence[str]) -> Record:
    """Return what runs a denoiser as far as the last of some layers and tells the queries of each.

    Args:
        backbone: The model, as it is at the time.
        layers: Cross-attention layers with diffusers' own processors, which the probe makes sure of.
    """
    modules = {layer: backbone.denoiser.get_submodule(layer) for layer in layers}

    @torch.no_grad()
    def record(x_t: Tensor, t: Tensor, conditions: Conditioning) -> dict[str, Tensor]:
        heard: dict[str, Tensor] = {}
        marked = torch.zeros(len(x_t), conditions.tokens.shape[1], dtype=torch.bool, device=x_t.device)
        marked[:, 0] = True  # the probe wants a token to read; here it only ends the pass after the last layer
        with (
            attention_probe(backbone.denoiser, layers, marked) as probe,
            heard_queries(modules, lambda layer, queries, heads: heard.update({layer: queries})),
        ):
            probe.read(lambda: backbone.predict(x_t, t, conditions))
            probe.check()
        return heard

    return record


def _parts(examples: KeptExamples) -> list[Tensor]:
    return [torch.arange(len(examples.queries))[rows] for rows in batches(len(examples.queries))]
