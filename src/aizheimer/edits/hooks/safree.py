"""SAFREE: take the concept out of the prompt's embedding, token by token, for as many steps as the prompt needs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from aizheimer.edits.hook import Patches
from aizheimer.edits.hooks.calls import CallWatch, of_rows
from aizheimer.edits.hooks.re_attention import ReAttention
from aizheimer.edits.hooks.safree_text import Encoder, encoders_of
from aizheimer.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

_SCALES = ("skip_scales", "backbone_scales")


def projector(vectors: Float[Tensor, "vectors dim"]) -> Float[Tensor, "dim dim"]:
    r"""Return the float64 projection :math:`C(C^\top C)^+C^\top` on the space that vectors span."""
    columns = vectors.double().T
    return columns @ torch.linalg.pinv(columns, rtol=1e-6)


def trigger_tokens(
    masked: Float[Tensor, "tokens dim"], concept: Float[Tensor, "dim dim"], *, alpha: float
) -> Bool[Tensor, " tokens"]:
    r"""Return which tokens carry the concept: without them the prompt lies farther from it than without the others.

    :math:`d_i \ge (1 + \alpha)\,\mathrm{mean}_{j \ne i} d_j` with :math:`d_i = \|(I - P_C) m_i\|`. The only token of
    a prompt has nothing to be compared with and counts as one, as in the published code.

    Args:
        masked: Pooled embedding of the prompt with each of its tokens masked in turn.
        concept: :math:`P_C`.
        alpha: :math:`\alpha`; more spares more tokens.
    """
    m = masked.double()
    distance = (m - m @ concept).norm(dim=-1)
    if len(distance) < 2:
        return torch.ones_like(distance, dtype=torch.bool)
    others = (distance.sum() - distance) / (len(distance) - 1)
    return distance >= (1 + alpha) * others


def filtered_steps(distance: float, *, steps: int, steepness: float, midpoint: float) -> int:
    r"""Return the last step that sees the filtered prompt: :math:`round(n\,\sigma(2k(10\beta - t_0)))`.

    Args:
        distance: :math:`\beta`, 1 minus the mean cosine of the prompt's tokens with their filtered selves.
        steps: n, the most there may be.
        steepness: k.
        midpoint: :math:`t_0`.
    """
    x = 2 * steepness * (10 * distance - midpoint)
    return round(steps / (1 + math.exp(-x))) if x > -700 else 0


@dataclass(frozen=True)
class SAFREEHook:
    r"""Replace the embeddings of a prompt's trigger tokens by their projection away from the concept.

    :math:`e_i' = e_i + s(A e_i - e_i)` with :math:`A = P_I(I - P_C)` (the paper) or :math:`(I - P_C)P_I` (its code);
    :math:`P_C` projects on the pooled embeddings of the concept's phrases, :math:`P_I` on those of the prompt with a
    token masked. Prompts must be given as text. With ``skip_scales``, the steps that see a filtered prompt also damp
    what it has made louder in the UNet's skips (`aizheimer.edits.hooks.re_attention`).

    Rows of two encoders (SDXL) are filtered encoder by encoder, as if each were alone: its own part of every row, by
    its own projections, triggers and number of steps, of the prompt that it was given. The pooled vector, which SDXL's
    UNet is told as well, goes with the second encoder, of which it is: where that found triggers it becomes
    :math:`A_p e_p`, by the same projections of pooled vectors. ``"repository"`` leaves it and the first encoder as
    they are, as the authors' pipeline does. See `aizheimer.edits.hooks.safree_text.encoders_of`.

    Args:
        phrases: The words that span the concept.
        alpha: Tolerance of `trigger_tokens`.
        order: ``"paper"`` or ``"repository"``: the order of the two projections, what damping a frequency is, and what
            is filtered on SDXL.
        self_validating: Filter the first steps only, as many as `filtered_steps` says; else all.
        steps: The most that may be filtered, n.
        steepness: k.
        midpoint: :math:`t_0`.
        reference: Steps of a call that ``steps`` is counted for; it is scaled to a call with more or fewer. 0: as it
            is.
        skip_scales: s of latent re-attention, for the two widest stages of the decoder; None, as in edits saved before
            there was any, for none.
        backbone_scales: b of latent re-attention, for the same two.
    """

    name: ClassVar[str] = "safree"
    phrases: tuple[str, ...]
    alpha: float
    order: Literal["paper", "repository"]
    self_validating: bool
    steps: int
    steepness: float
    midpoint: float
    reference: int = 0
    skip_scales: tuple[float, float] | None = None
    backbone_scales: tuple[float, float] = (1.0, 1.0)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """None: words and numbers are enough."""
        return {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """Words and numbers."""
        settings = asdict(self) | {"phrases": list(self.phrases)}
        scales = {name: settings.pop(name) for name in _SCALES}
        return settings | {name: list(pair) for name, pair in scales.items() if self.skip_scales is not None}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Return the hook with these settings."""
        pairs = {name: _pair(settings[name]) for name in _SCALES if name in settings}
        return cls(**{**settings, "phrases": tuple(settings["phrases"]), **pairs})

    def install(self, pipe: StableDiffusionPipeline, *, strength: float) -> Patches:
        """Listen to the prompts, and wrap the denoiser."""
        patches = Patches()
        _Running(pipe, self, strength).install(patches)
        return patches


@dataclass(frozen=True)
class Filter:
    """What happens to one prompt, in one text encoder's part of its rows.

    Attributes:
        triggers: (tokens,) True at the tokens that are replaced, counted with begin-of-text.
        operator: (dim, dim) what they are multiplied by, in float64.
        last: The last step that is filtered; None for all.
        distance: Beta, 1 minus the mean cosine of the tokens with their filtered selves.
        channels: The encoder's part of every row.
        pooled: (width, width) what the pooled vector is multiplied by if there are triggers; None if it stays.
    """

    triggers: Tensor
    operator: Tensor
    last: int | None
    distance: float
    channels: slice = field(default_factory=lambda: slice(None))
    pooled: Tensor | None = None

    def __call__(self, embedding: Float[Tensor, "tokens dim"], strength: float) -> Float[Tensor, "tokens dim"]:
        """Return the prompt's embedding with the trigger tokens moved, all of the way at strength 1."""
        own = embedding[:, self.channels]
        edited = embedding.clone()
        edited[:, self.channels] = torch.where(
            self.triggers[:, None].to(own.device), moved(own, self.operator, strength=strength), own
        )
        return edited

    def of_pooled(self, vector: Float[Tensor, " width"], strength: float) -> Float[Tensor, " width"]:
        """Return the prompt's pooled vector, moved alike if the prompt has triggers."""
        if self.pooled is None or not self.triggers.any():
            return vector
        return moved(vector, self.pooled, strength=strength)


def moved(vectors: Float[Tensor, "*any dim"], operator: Float[Tensor, "dim dim"], *, strength: float) -> Tensor:
    """Return vectors on their way to what a projection makes of them, computed in float64."""
    e = vectors.double()
    return (e + strength * (e @ operator.T.to(e.device) - e)).to(vectors.dtype)


@dataclass(eq=False)
class _Running:
    """The hook on one pipeline, with the filters of the prompts that are being drawn: for each, one an encoder."""

    pipe: StableDiffusionPipeline
    hook: SAFREEHook
    strength: float
    watch: CallWatch = field(init=False)
    encode: Callable[..., Any] = field(init=False)
    forward: Callable[..., Any] = field(init=False)
    filters: list[tuple[Filter, ...]] = field(default_factory=list)
    second: list[str] | None = None
    attention: ReAttention | None = None

    @property
    def encoders(self) -> tuple[Encoder, ...]:
        return encoders_of(self.pipe, published=self.hook.order == "repository")

    def install(self, patches: Patches) -> None:
        _ = self.encoders  # what is refused is refused before a picture is asked for
        self.watch = CallWatch(self.pipe, on_loop=self.begin)
        self.watch.install(patches)
        self.encode = self.pipe.encode_prompt
        patches.put(self.pipe, "encode_prompt", self.encode_prompt)
        if self.hook.skip_scales is not None:
            self.attention = ReAttention(
                self.hook.skip_scales, self.hook.backbone_scales, self.hook.order == "repository", self.strength
            )
            self.attention.install(self.pipe.unet, patches)
        self.forward = self.pipe.unet.forward
        patches.put(self.pipe.unet, "forward", self.predict)

    def encode_prompt(self, *args: Any, **options: Any) -> Any:
        """Note the words that are for SDXL's second encoder alone."""
        asked = inspect.signature(type(self.pipe).encode_prompt).bind(self.pipe, *args, **options).arguments
        second = asked.get("prompt_2") or None
        self.second = [second] if isinstance(second, str) else second
        return self.encode(*args, **options)

    def begin(self) -> None:
        if self.watch.prompts is None:
            raise EditError(
                "got prompt_embeds while a safree edit is applied, which must read the words; "
                "give prompt as text, or remove the edit"
            )
        told = {"prompt": self.watch.prompts, "prompt_2": self.second or self.watch.prompts}
        parts = [self.filters_of(told[encoder.told], encoder) for encoder in self.encoders]
        self.filters = [own for own in zip(*parts, strict=True) for _ in range(self.watch.images_per_prompt)]

    def filters_of(self, texts: list[str], encoder: Encoder) -> list[Filter]:
        """Return what happens to these texts in one encoder's part, reading each of them once."""
        vectors, whole = encoder.read(encoder.tokenize(list(self.hook.phrases)))
        concept, pooled = projector(vectors), None if whole is None else projector(whole)
        made = {text: self.filter_of(text, concept, pooled=pooled, encoder=encoder) for text in dict.fromkeys(texts)}
        return [made[text] for text in texts]

    def predict(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, *args: Any, **options: Any) -> Any:
        watch, size = self.watch, len(sample)
        if not watch.looping or size != watch.rows * (2 if watch.guided else 1):
            return self.forward(sample, timestep, encoder_hidden_states, *args, **options)
        step, first = watch.tick(timestep), size - watch.rows
        active = {
            first + row: [own for own in parts if own.last is None or step <= self.scaled(own.last)]
            for row, parts in enumerate(self.filters)
        }
        edited, named = self.edited(encoder_hidden_states, options, active)
        unsafe = [row for row, parts in active.items() if any(own.triggers.any() for own in parts)]
        if self.attention is None or not unsafe:
            return self.forward(sample, timestep, edited, *args, **named)
        # Hooks beneath this one tell a loop's own calls by their size, which this one therefore must not have.
        alone = [*unsafe, unsafe[0]] if len(unsafe) == size else unsafe
        given = (sample, timestep, encoder_hidden_states, args, options)
        *inputs, others, plain = (of_rows(value, alone, size=size) for value in given)
        return self.attention.compared(
            lambda: self.forward(*inputs, *others, **plain),
            lambda: self.forward(sample, timestep, edited, *args, **named),
            rows=unsafe,
            size=size,
        )

    def edited(
        self, rows: Tensor, options: dict[str, Any], active: Mapping[int, list[Filter]]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the rows and the other inputs by name, filtered where filters are active."""
        rows, pooled = rows.clone(), None
        told = options.get("added_cond_kwargs") or {}
        if any(own.pooled is not None for parts in active.values() for own in parts):
            pooled = told["text_embeds"].clone()
        for row, parts in active.items():
            for own in parts:
                rows[row] = own(rows[row], self.strength)
                if pooled is not None:
                    pooled[row] = own.of_pooled(pooled[row], self.strength)
        if pooled is None:
            return rows, options
        return rows, options | {"added_cond_kwargs": told | {"text_embeds": pooled}}

    def scaled(self, last: int) -> int:
        steps = int(getattr(self.pipe, "_num_timesteps", 0))
        return round(last * steps / self.hook.reference) if self.hook.reference else last

    def filter_of(self, text: str, concept: Tensor, *, encoder: Encoder, pooled: Tensor | None = None) -> Filter:
        """Return what happens to one prompt.

        Args:
            text: The prompt.
            concept: The projection on the concept's vectors in the space of rows.
            encoder: Whose part.
            pooled: The projection in the space of pooled vectors, where that vector is filtered.
        """
        hook, active = self.hook, encoder.active(text)
        count = max(active - 2, 0)
        triggers = torch.zeros(encoder.reader.window.length, dtype=torch.bool)
        if not count:
            identity = torch.eye(len(concept), dtype=concept.dtype, device=concept.device)
            return Filter(triggers, identity, None, 0.0, encoder.channels)
        masked, whole = encoder.read(encoder.masked(text, count))
        triggers[1 : count + 1] = trigger_tokens(masked, concept, alpha=hook.alpha).cpu()
        operator = self.operator(masked, concept)
        rows = self.watch.encode_words([text]).tokens[0, :active, encoder.channels].double()
        distance = 1 - F.cosine_similarity(rows, rows @ operator.T, dim=-1).mean().item()
        numbers = {"steps": hook.steps, "steepness": hook.steepness, "midpoint": hook.midpoint}
        last = filtered_steps(distance, **numbers) if hook.self_validating else None
        moves_pooled = None if whole is None or pooled is None else self.operator(whole, pooled)
        return Filter(triggers, operator, last, distance, encoder.channels, moves_pooled)

    def operator(self, masked: Tensor, concept: Tensor) -> Tensor:
        """Return the two projections in their order: away from the concept, and into what the masked prompts span."""
        inside, away = projector(masked), torch.eye(len(concept), dtype=concept.dtype, device=concept.device) - concept
        return inside @ away if self.hook.order == "paper" else away @ inside


def _pair(values: Any) -> tuple[float, float]:
    """Return the numbers of two stages, from a record."""
    first, second = values
    return float(first), float(second)
