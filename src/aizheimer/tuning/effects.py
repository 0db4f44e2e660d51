"""How much each layer of an edit does, measured on the denoiser."""

from __future__ import annotations

import contextlib

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.latents import rollout_bank
from aizheimer.data.sources import Draw
from aizheimer.edits.edit import Edit
from aizheimer.edits.shrunk import layers_of
from aizheimer.engine.anchor import anchor_predictions
from aizheimer.modules.parameters import swapped

PROMPTS, STEPS = 4, 5


def layer_effects(backbone: Backbone, edit: Edit, concept: Concept, *, seed: int) -> dict[str, float]:
    r"""Return, by layer, how far the prediction goes back when the edit leaves that layer alone.

    .. math:: \operatorname{MSE}\big(\epsilon_{\text{edit without } l}(x_t, c),\; \epsilon_{\text{edit}}(x_t, c)\big)

    on the unedited model's rollouts of a few of the concept's prompts, all timesteps among them. One pass over
    `PROMPTS` times `STEPS` latents for each layer: no picture is drawn, and no judge is asked.

    Args:
        backbone: The base.
        edit: Changes of weights on it.
        concept: Whose prompts.
        seed: Of the rollouts.

    Returns:
        An error, 0 or more, for each of `layers_of`; 0 for a layer that does nothing to these prompts.
    """
    prompts = backbone.world.prompts(concept)
    prompts = prompts[:: -(-len(prompts) // PROMPTS)]
    generator = generator_for(seed, "layer effects")
    bank = rollout_bank(backbone, prompts, steps=STEPS, guidance=backbone.world.guidance, generator=generator)
    draw = Draw(x_t=bank.x_t, t=bank.t, prompt_index=bank.prompt_index)
    split = {name: name.split(".", 1) for name in edit.deltas}
    originals = {
        name: backbone.networks[part].get_parameter(own).detach().clone()  # type: ignore[index]
        for name, (part, own) in split.items()
    }
    effects = {}
    with edit.applied(backbone.pipe):
        whole = anchor_predictions(backbone, draw, embeddings=backbone.condition(prompts))
        for layer, names in layers_of(edit).items():
            with contextlib.ExitStack() as without:
                for name in names:
                    part, own = split[name]
                    without.enter_context(swapped(backbone.networks[part], {own: originals[name]}))  # type: ignore[index]
                # The words are read anew: the layer may be the text encoder's.
                found = anchor_predictions(backbone, draw, embeddings=backbone.condition(prompts))
            effects[layer] = float((found - whole).square().mean())
    return effects
