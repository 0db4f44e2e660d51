"""Look away from some tokens of some prompts while other prompts keep their pictures: one batch, one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from aizheimer._row_shares import RowShares
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditions, as_conditioning, joined
from aizheimer.data.sources import Draw, Source
from aizheimer.engine.anchor import Anchor
from aizheimer.engine.batch_shares import probed_predictions
from aizheimer.engine.held_out import batches, relative_error, retention_errors, rows_of
from aizheimer.engine.problem import Loss, Role
from aizheimer.modules.attention import attention_probe
from aizheimer.modules.maps import AttentionMap, mass
from aizheimer.modules.recompute import recomputes
from aizheimer.objectives.reconstruction import noise_mse, teacher_mse
from aizheimer.objectives.terms import TermValue


class MapsTerm(Protocol):
    """An attention term with its options filled in."""

    def __call__(self, maps: Mapping[str, AttentionMap], *, generator: torch.Generator) -> TermValue:
        """Return the loss of one forward pass's maps."""
        ...


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Training examples under their prompts.

    Args:
        source: Where latents come from.
        embeddings: Encoded prompts; the source's ``prompt_index`` counts in it.
        columns: (prompts, tokens), True at target tokens; all False for prompts without the target.
        batch_size: Examples in a batch.
    """

    source: Source
    embeddings: Conditions
    columns: Tensor
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What the monitor looks at, always the same.

    Args:
        forget: Examples with the target, of which the attention mass is read.
        retain: Examples whose ``target`` is the teacher's prediction, of which the drift is read.
        retain_embeddings: Encoded prompts; ``retain.prompt_index`` counts in it.
    """

    forget: Draw
    retain: Draw
    retain_embeddings: Conditions


@dataclass(frozen=True, kw_only=True)
class AttentionProblem:
    r"""An attention term on forget prompts, a reconstruction term, and an anchor term.

    .. math:: L = \lambda_a L_{attn} + \lambda_r L_{recon} + \lambda_c L_{anchor}

    Forget and retain examples go through the denoiser in one batch, since a probe reads only marked rows. What has
    weight 0, or no data, is not computed: with the attention term alone the denoiser runs as far as the last layer that
    is read.

    Args:
        backbone: The network being edited.
        parameters: Trained parameters by name.
        layers: Cross-attention layers the probe reads.
        term: The attention term.
        attention_weight: :math:`\lambda_a`.
        forget: Examples with the target.
        retain: Examples whose target is to be matched; None when there are none.
        retain_term: The name of that term: ``"teacher"`` (targets are predictions) or ``"retain"`` (targets are noise).
        forget_noise: Reconstruct the forget examples themselves (their targets) in place of retain examples.
        reconstruction_weight: :math:`\lambda_r`.
        anchor: Knows what forget prompts should look like; None for no anchor term.
        anchor_weight: :math:`\lambda_c`.
        held_out: For the monitor.
    """

    backbone: Backbone
    parameters: Mapping[str, Parameter]
    layers: Sequence[str]
    term: MapsTerm
    attention_weight: float = 1.0
    forget: Examples
    retain: Examples | None = None
    retain_term: str = "teacher"
    forget_noise: bool = False
    reconstruction_weight: float = 1.0
    anchor: Anchor | None = None
    anchor_weight: float = 0.0
    held_out: HeldOut

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the weighted terms of one batch."""
        forget = self.forget.source.draw(self.forget.batch_size, step=step, generator=generator)
        rebuilt = self.reconstruction_weight > 0
        retain = None
        if self.retain is not None and rebuilt:
            retain = self.retain.source.draw(self.retain.batch_size, step=step, generator=generator)
        anchored = self.anchor.predict(forget) if self.anchor is not None and self.anchor_weight else None
        if retain is None and anchored is None and not (self.forget_noise and rebuilt):
            return {"attention": _loss(self.term(self._maps(forget), generator=generator), self.attention_weight)}
        prediction, maps = self._forward(forget, retain)
        losses = {"attention": _loss(self.term(maps, generator=generator), self.attention_weight)}
        count, weight = len(forget), self.reconstruction_weight
        if self.forget_noise and rebuilt and forget.target is not None:
            losses["forget"] = _loss(noise_mse(prediction[:count], forget.target), weight, "retain")
        if retain is not None and retain.target is not None:
            compare = teacher_mse if self.retain_term == "teacher" else noise_mse
            losses[self.retain_term] = _loss(compare(prediction[count:], retain.target), weight, "retain")
        if anchored is not None:
            losses["anchor"] = _loss(teacher_mse(prediction[:count], anchored), self.anchor_weight)
        return losses

    @torch.no_grad()
    def monitor(self) -> dict[str, float]:
        r"""Return attention mass, overall and by layer (``layers/<name>``), and retention drift on the held-out set.

        The drift is :math:`\lVert s - t\rVert^2 / \lVert t\rVert^2` of student and teacher predictions.
        """
        forget, retain = self.held_out.forget, self.held_out.retain
        sums = dict.fromkeys(self.layers, 0.0)
        for rows in batches(len(forget)):
            for layer, value in mass(self._maps(rows_of(forget, rows))).items():
                sums[layer] += float(value) * len(forget.t[rows])
        layers = {layer: total / len(forget) for layer, total in sums.items()}
        return {
            "attention_mass": sum(layers.values()) / len(layers),
            "retention_drift": relative_error(self.backbone, retain, self.held_out.retain_embeddings),
            **{f"layers/{layer}": value for layer, value in layers.items()},
        }

    def retention_errors(self, rows: int) -> Iterable[Tensor]:
        """Return the drift's numerator, in the autograd graph."""
        return retention_errors(self.backbone, self.held_out.retain, self.held_out.retain_embeddings, rows=rows)

    def _maps(self, forget: Draw) -> dict[str, AttentionMap]:
        """Return the maps of forget rows, when nobody asks for the prediction.

        The denoiser runs as far as the last layer that is read, unless blocks are recomputed or
        processes share the rows.
        """
        if recomputes(self.backbone.denoiser) or RowShares.of(len(forget.t)) is not None:
            return self._forward(forget, None)[1]
        marked = self.forget.columns[forget.prompt_index].to(self.backbone.device)
        conditions = as_conditioning(self.forget.embeddings[forget.prompt_index]).to(forget.x_t)
        with attention_probe(self.backbone.denoiser, self.layers, marked) as probe:
            probe.read(lambda: self.backbone.predict(forget.x_t, forget.t, conditions))
            probe.check()
        return probe.maps

    def _forward(self, forget: Draw, retain: Draw | None) -> tuple[Tensor, dict[str, AttentionMap]]:
        """Predict [forget; retain] and return the raw prediction and the maps of the forget rows."""
        x_t, t = [forget.x_t], [forget.t]
        embeddings: list[Conditions] = [self.forget.embeddings[forget.prompt_index]]
        columns = [self.forget.columns[forget.prompt_index]]
        if retain is not None and self.retain is not None:
            x_t.append(retain.x_t)
            t.append(retain.t)
            embeddings.append(self.retain.embeddings[retain.prompt_index])
            columns.append(self.retain.columns[retain.prompt_index])
        return probed_predictions(
            self.backbone,
            self.layers,
            inputs=torch.cat(x_t),
            times=torch.cat(t),
            conditions=joined(embeddings).to(x_t[0]),
            marked=torch.cat(columns).to(self.backbone.device),
            groups=[len(part) for part in x_t],
        )


def _loss(term: TermValue, weight: float, role: Role = "erase") -> Loss:
    return Loss(value=term.total, weight=weight, parts=term.parts, role=role)
