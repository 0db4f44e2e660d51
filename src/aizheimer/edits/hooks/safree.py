"""SAFREE: take the concept out of the prompt's embedding, token by token, for as many steps as the prompt needs."""

from __future__ import annotations

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
from aizheimer.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

_SCALES = ("skip_scales", "backbone_scales")
_MASK_ID = 0
"""The token that stands in for a masked one, as in the published code."""


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

    Args:
        phrases: The words that span the concept.
        alpha: Tolerance of `trigger_tokens`.
        order: ``"paper"`` or ``"repository"``: the order of the two projections, and what damping a frequency is.
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
    """What happens to one prompt.

    Attributes:
        triggers: (tokens,) True at the tokens that are replaced, counted with begin-of-text.
        operator: (dim, dim) what they are multiplied by, in float64.
        last: The last step that is filtered; None for all.
        distance: Beta, 1 minus the mean cosine of the tokens with their filtered selves.
    """

    triggers: Tensor
    operator: Tensor
    last: int | None
    distance: float

    def __call__(self, embedding: Float[Tensor, "tokens dim"], strength: float) -> Float[Tensor, "tokens dim"]:
        """Return the prompt's embedding with the trigger tokens moved, all of the way at strength 1."""
        e = embedding.double()
        moved = e + strength * (e @ self.operator.T.to(e.device) - e)
        return torch.where(self.triggers[:, None].to(e.device), moved, e).to(embedding.dtype)


@dataclass(eq=False)
class _Running:
    """The hook on one pipeline, with the filters of the prompts that are being drawn."""

    pipe: StableDiffusionPipeline
    hook: SAFREEHook
    strength: float
    watch: CallWatch = field(init=False)
    encode: Callable[..., Any] = field(init=False)
    forward: Callable[..., Any] = field(init=False)
    filters: list[Filter] = field(default_factory=list)
    attention: ReAttention | None = None

    def install(self, patches: Patches) -> None:
        self.watch = CallWatch(self.pipe, on_loop=self.begin)
        self.watch.install(patches)
        if self.hook.skip_scales is not None:
            self.attention = ReAttention(
                self.hook.skip_scales, self.hook.backbone_scales, self.hook.order == "repository", self.strength
            )
            self.attention.install(self.pipe.unet, patches)
        self.forward = self.pipe.unet.forward
        patches.put(self.pipe.unet, "forward", self.predict)

    def begin(self) -> None:
        if self.watch.prompts is None:
            raise EditError(
                "got prompt_embeds while a safree edit is applied, which must read the words; "
                "give prompt as text, or remove the edit"
            )
        concept = projector(self.pooled(self.tokenize(list(self.hook.phrases))))
        made = {prompt: self.filter_of(prompt, concept) for prompt in dict.fromkeys(self.watch.prompts)}
        self.filters = [made[prompt] for prompt in self.watch.prompts for _ in range(self.watch.images_per_prompt)]

    def predict(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, *args: Any, **options: Any) -> Any:
        watch, size = self.watch, len(sample)
        if not watch.looping or size != watch.rows * (2 if watch.guided else 1):
            return self.forward(sample, timestep, encoder_hidden_states, *args, **options)
        step, first = watch.tick(timestep), size - watch.rows
        active = {
            first + row: own
            for row, own in enumerate(self.filters)
            if own.last is None or step <= self.scaled(own.last)
        }
        edited = encoder_hidden_states.clone()
        for row, own in active.items():
            edited[row] = own(edited[row], self.strength)
        unsafe = [row for row, own in active.items() if own.triggers.any()]
        if self.attention is None or not unsafe:
            return self.forward(sample, timestep, edited, *args, **options)
        # Hooks beneath this one tell a loop's own calls by their size, which this one therefore must not have.
        alone = [*unsafe, unsafe[0]] if len(unsafe) == size else unsafe
        given = (sample, timestep, encoder_hidden_states, args, options)
        *inputs, others, named = (of_rows(value, alone, size=size) for value in given)
        return self.attention.compared(
            lambda: self.forward(*inputs, *others, **named),
            lambda: self.forward(sample, timestep, edited, *args, **options),
            rows=unsafe,
            size=size,
        )

    def scaled(self, last: int) -> int:
        steps = int(getattr(self.pipe, "_num_timesteps", 0))
        return round(last * steps / self.hook.reference) if self.hook.reference else last

    def filter_of(self, prompt: str, concept: Tensor) -> Filter:
        """Return what happens to one prompt."""
        hook, ids = self.hook, self.tokenize([prompt])
        active = self.active(prompt)
        count = max(active - 2, 0)
        triggers = torch.zeros(ids.shape[1], dtype=torch.bool)
        identity = torch.eye(len(concept), dtype=concept.dtype, device=concept.device)
        if not count:
            return Filter(triggers, identity, None, 0.0)
        variants = ids.repeat(count, 1)
        variants[torch.arange(count), torch.arange(count) + 1] = _MASK_ID
        masked = self.pooled(variants)
        triggers[1 : count + 1] = trigger_tokens(masked, concept, alpha=hook.alpha).cpu()
        inside, away = projector(masked), identity - concept
        operator = inside @ away if hook.order == "paper" else away @ inside
        rows = self.watch.encode_words([prompt]).tokens[0, :active].double()
        distance = 1 - F.cosine_similarity(rows, rows @ operator.T, dim=-1).mean().item()
        numbers = {"steps": hook.steps, "steepness": hook.steepness, "midpoint": hook.midpoint}
        return Filter(
            triggers, operator, filtered_steps(distance, **numbers) if hook.self_validating else None, distance
        )

    def tokenize(self, texts: list[str]) -> Tensor:
        """Return padded ids (texts, tokens), as the pipeline makes them."""
        tokenizer = self.pipe.tokenizer
        spelt = self.pipe.maybe_convert_prompt(texts, tokenizer)
        size = tokenizer.model_max_length
        return tokenizer(spelt, padding="max_length", max_length=size, truncation=True, return_tensors="pt").input_ids

    def active(self, text: str) -> int:
        """Return how many tokens of a text's window are its own, begin and end included."""
        spelt = self.pipe.maybe_convert_prompt([text], self.pipe.tokenizer)
        (ids,) = self.pipe.tokenizer(spelt, add_special_tokens=False, verbose=False).input_ids
        return min(len(ids) + 2, self.pipe.tokenizer.model_max_length)

    @torch.no_grad()
    def pooled(self, ids: Tensor) -> Tensor:
        """Return the text encoder's pooled output (texts, dim): its last hidden state at the end of the text."""
        return self.pipe.text_encoder(ids.to(self.pipe._execution_device))[1]


def _pair(values: Any) -> tuple[float, float]:
    """Return the numbers of two stages, from a record."""
    first, second = values
    return float(first), float(second)
