"""Terms that train text encoders: on what their last layers say, on what they keep saying, and against an attacker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditions, as_conditioning
from aizheimer.data.sources import Draw, Source
from aizheimer.data.words import LiveEmbeddings
from aizheimer.engine.held_out import relative_error, retention_errors
from aizheimer.engine.noise_problem import predicted
from aizheimer.engine.problem import Loss
from aizheimer.modules.text_encoder import captured
from aizheimer.objectives.misdirection import misdirection
from aizheimer.objectives.noise_target import target_mse
from aizheimer.objectives.prompt_attack import Attack, AttackPlan, Fidelity, search_vectors
from aizheimer.objectives.reconstruction import teacher_mse
from aizheimer.objectives.terms import TermValue


@dataclass(frozen=True, kw_only=True)
class MisdirectionTerm:
    """Move what a layer of the text encoder says of forget prompts.

    Args:
        words: The prompts.
        layer: A module of the text encoder.
        target: (prompts, tokens, dim) what it should say.
        rows: (prompts, tokens) True where it should.
        batch_size: Prompts in a batch; all of them if there are fewer.
    """

    words: LiveEmbeddings
    layer: nn.Module
    target: Float[Tensor, "prompts tokens dim"]
    rows: Bool[Tensor, "prompts tokens"]
    batch_size: int

    def of(self, hidden: Float[Tensor, "batch tokens dim"], index: Tensor) -> TermValue:
        """Return the term of what the layer has said of the prompts of these numbers."""
        return misdirection(hidden, self.target[index].to(hidden), rows=self.rows[index])


@dataclass(frozen=True, kw_only=True)
class MisdirectionsTerm:
    r"""Move what several layers say of the same prompts, which are read once: the mean of their losses.

    .. math:: L = \frac1n \sum_{l=1}^{n} \operatorname{MSE}(h_l(c), y_l)

    Args:
        terms: One or more of the same prompts and batch size, each under a name of its own for the log.
    """

    terms: Mapping[str, MisdirectionTerm]

    @property
    def first(self) -> MisdirectionTerm:
        """One of them, for what is the same in all."""
        return next(iter(self.terms.values()))

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the one loss, "misdirection"."""
        order = torch.randperm(len(self.first.target), generator=generator)
        term = self.value(order[: self.first.batch_size])
        return {"misdirection": Loss(term.total, 1.0, term.parts)}

    def value(self, index: Tensor) -> TermValue:
        """Return the term of the prompts of these numbers; its parts are the layers' losses."""
        # In order, as the text encoder reads them.
        index = index.sort().values
        with ExitStack() as stack:
            heard = {name: stack.enter_context(captured(term.layer)) for name, term in self.terms.items()}
            _ = self.first.words[index]
        values = {name: term.of(heard[name][-1], index) for name, term in self.terms.items()}
        total = torch.stack([value.total for value in values.values()]).mean()
        return TermValue(total, {name: value.total.detach() for name, value in values.items()})


@dataclass(frozen=True, kw_only=True)
class KeepWordsTerm:
    r"""Hold what the text encoders say of retain prompts, :math:`\operatorname{MSE}(E(r), E_0(r))`.

    Where they say a pooled vector too, its mean squared error is added to the rows'.

    Args:
        words: The prompts.
        original: What the unedited text encoders say of them: (prompts, tokens, dim), or with pooled vectors.
        batch_size: Prompts in a batch; all of them if there are fewer.
        weight: Its weight in the sum.
    """

    words: LiveEmbeddings
    original: Conditions
    batch_size: int
    weight: float

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the one loss, "words"."""
        index = torch.randperm(len(self.original), generator=generator)[: self.batch_size]
        now, before = (as_conditioning(words[index]) for words in (self.words, self.original))
        term = teacher_mse(now.tokens, before.tokens.to(now.tokens))
        total, parts = term.total, dict(term.parts)
        if now.pooled is not None and before.pooled is not None:
            pooled = teacher_mse(now.pooled, before.pooled.to(now.pooled)).total
            total, parts = total + pooled, parts | {"pooled": pooled.detach()}
        return {"words": Loss(total, self.weight, parts, "retain")}


@dataclass(frozen=True, kw_only=True)
class MisdirectionWatch:
    """The held-out set of a misdirection.

    Args:
        term: The term; its own prompts are all the concept has.
        baseline: Its value at the start.
        backbone: The model.
        retain: Examples of retain prompts; their targets are the frozen model's predictions.
        retain_words: The retain prompts.
    """

    term: MisdirectionsTerm
    baseline: float
    backbone: Backbone
    retain: Draw
    retain_words: LiveEmbeddings

    def look(self) -> dict[str, float]:
        """Return ``erase_error``, 1 at the start and 0 when the target is reached, and ``retention_drift``."""
        error = float(self.term.value(torch.arange(len(self.term.first.target))).total)
        drift = relative_error(self.backbone, self.retain, self.retain_words)
        return {"erase_error": error / self.baseline if self.baseline > 0 else error, "retention_drift": drift}

    def retention_errors(self, rows: int) -> Iterable[Tensor]:
        """Return the drift's numerator, in the autograd graph."""
        return retention_errors(self.backbone, self.retain, self.retain_words, rows=rows)


@dataclass(frozen=True, kw_only=True)
class AttackedTerm:
    r"""Move the prediction for forget prompts to a target while an attacker looks for words that bring it back.

    With free vectors :math:`v` before the prompt, found anew at every step,

    .. math:: v^* = \arg\min_v \operatorname{MSE}\big(\epsilon_0(x_t, E(v \oplus c)), \epsilon_0(x_t, E_0(c))\big),
              \qquad L = \operatorname{MSE}\big(\epsilon_0(x_t, E(v^* \oplus c)), y\big)

    where :math:`E` is the text encoder that learns, or several, and :math:`\epsilon_0` the denoiser, which does not.
    The vectors start at random words, and are the same for all prompts of a batch; of several encoders each has its
    own, at first of the same words.

    Args:
        backbone: The model.
        source: Latents whose targets are :math:`y`.
        attacked: Latents whose targets are :math:`\epsilon_0(x_t, E_0(c))`; the attack draws from them at every step.
        words: The forget prompts; both sources' ``prompt_index`` count in them.
        plan: How the attacker searches.
        fidelity: See `aizheimer.objectives.prompt_attack.search_vectors`.
        warmup: Steps without an attack.
        batch_size: Examples in a batch, of the attacker too.
    """

    backbone: Backbone
    source: Source
    attacked: Source
    words: LiveEmbeddings
    plan: AttackPlan
    fidelity: Fidelity
    warmup: int
    batch_size: int

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the one loss, "erase"; after the warm-up its parts tell how the attack's own loss went."""
        words, told = self.words, {}
        if step > self.warmup:
            attack = self.attack(step, generator)
            words = words.behind(attack.vectors)
            ends = {"attack_start": attack.losses[0], "attack_end": attack.losses[-1]}
            told = {name: torch.tensor(value) for name, value in ends.items()}
        draw = self.source.draw(self.batch_size, step=step, generator=generator)
        term = self._distance(draw, words)
        return {"erase": Loss(term.total, 1.0, {**term.parts, **told})}

    def attack(self, step: int, generator: torch.Generator) -> Attack:
        """Return what the attacker finds against the text encoder as it is now."""
        known = min(len(reader.window.tokenizer) for reader in self.backbone.text_readers)
        words = torch.randint(known, (self.plan.tokens,), generator=generator)

        def loss(vectors: Tensor) -> Tensor:
            draw = self.attacked.draw(self.batch_size, step=step, generator=generator)
            return self._distance(draw, self.words.behind(vectors)).total

        return search_vectors(loss, self.words.vectors_of(words), plan=self.plan, fidelity=self.fidelity)

    def _distance(self, draw: Draw, words: LiveEmbeddings) -> TermValue:
        if draw.target is None:
            raise ValueError("an attacked term needs sources that know their targets")
        return target_mse(predicted(self.backbone, draw, words), draw.target)
