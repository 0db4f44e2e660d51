"""Every family behind the protocol: what reaches its denoiser is what its own pipeline would send there."""

import inspect

import pytest
import torch
from diffusers import FluxPipeline

from aizheimer.backbones import backbone_for
from aizheimer.backbones.conditioning import Conditioning, joined
from aizheimer.backbones.families import FAMILIES
from aizheimer.backbones.flux import FLUX_WORLD, _places, packed, unpacked
from aizheimer.diffusion import to_epsilon, to_x0
from aizheimer.errors import ConceptError, ModelError
from aizheimer.evaluation.generate import PromptJob, draw_batch, sampling
from tests.snapshot import same_snapshot, snapshot
from tests.tiny import IMAGE_SIZE, MAX_TOKENS
from tests.tiny_families import BUILDERS, tiny_flux, tiny_sd3, tiny_sdxl

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Euler and numpy 2
OTHERS = ("sdxl", "sd3", "flux")
PROMPT = "santa claus in noto style"


@pytest.fixture(scope="module")
def backbones():
    return {name: backbone_for(BUILDERS[name]()) for name in OTHERS}


def latents(count=1, seed=0):
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def calls_of(denoiser, run):
    """Return what the denoiser was given at every call, by argument name."""
    seen = []

    def note(module, args, kwargs):
        seen.append(inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments)

    handle = denoiser.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            run()
    finally:
        handle.remove()
    return seen


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.allclose(a.double(), b.double(), atol=1e-6) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("family", OTHERS)
def test_its_pipeline_is_known(backbones, family):
    backbone = backbones[family]
    assert backbone.family == family
    assert type(backbone.pipe).__name__ == FAMILIES[family].pipeline
    assert set(FAMILIES[family].components) <= set(backbone.pipe.components)
    assert next(iter(backbone.components.values())) is backbone.denoiser is backbone.networks["unet"]
    assert backbone.latent_shape == (4, 8, 8)
    assert len(backbone.attention_modules()) >= 2


def test_sdxl_is_told_what_its_pipeline_tells_it(backbones):
    """Both halves of guidance: zeros for the empty prompt, the concept's own pooled vector, the size of the picture."""
    backbone = backbones["sdxl"]
    options = {"num_inference_steps": 2, "guidance_scale": 5.0, "latents": latents(), "output_type": "latent"}
    first, *_ = calls_of(backbone.denoiser, lambda: backbone.pipe(PROMPT, **options))
    told = joined([backbone.condition([""]), backbone.condition([PROMPT])])
    assert torch.equal(first["encoder_hidden_states"], told.tokens)
    assert torch.equal(first["added_cond_kwargs"]["text_embeds"], told.pooled)
    assert not told.tokens[0].any()
    assert not told.pooled[0].any()
    (ours,) = calls_of(backbone.denoiser, lambda: backbone.predict(first["sample"], int(first["timestep"]), told))
    for name in ("sample", "encoder_hidden_states", "added_cond_kwargs"):
        assert same(ours[name], first[name])


def test_sdxl_guides_from_the_empty_prompts_words_where_its_pipeline_does():
    pipe = tiny_sdxl()
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    told = backbone_for(pipe).condition([""])
    assert torch.equal(told.tokens, backbone_for(pipe).encode_prompts([""]))
    assert told.pooled.any()


def test_sdxl_latents_are_those_the_scheduler_hands_the_unet(backbones):
    """Euler keeps x0 + sigma noise and divides before each call; ours need no division. Nor does the clean estimate."""
    backbone, scheduler = backbones["sdxl"], backbones["sdxl"].pipe.scheduler
    scheduler.set_timesteps(10)
    x0, noise, prediction = latents(), latents(seed=1), latents(seed=2)
    for t in scheduler.timesteps[:3]:
        noisy, ours = scheduler.add_noise(x0, noise, t[None]), backbone.schedule.add_noise(x0, noise, t.long())
        assert torch.allclose(scheduler.scale_model_input(noisy, t), ours, atol=1e-4)
        assert not torch.allclose(noisy, ours, atol=0.1)
        wanted = scheduler.step(prediction, t, noisy).pred_original_sample
        clean = to_x0(prediction, ours, t.long(), backbone.schedule, "epsilon")
        assert torch.allclose(clean, wanted, rtol=1e-3, atol=1e-3)


def test_sd3_is_told_what_its_pipeline_tells_it(backbones):
    backbone = backbones["sd3"]
    options = {"num_inference_steps": 2, "guidance_scale": 5.0, "latents": latents(), "output_type": "latent"}
    run = lambda: backbone.pipe(PROMPT, **backbone.pipeline_options, **options)  # noqa: E731
    first, *_ = calls_of(backbone.denoiser, run)
    told = joined([backbone.condition([""]), backbone.condition([PROMPT])])
    assert torch.equal(first["encoder_hidden_states"], told.tokens)
    assert torch.equal(first["pooled_projections"], told.pooled)
    assert not torch.equal(told.pooled[0], told.pooled[1])
    (ours,) = calls_of(backbone.denoiser, lambda: backbone.predict(first["hidden_states"], 999, told))
    for name in ("hidden_states", "timestep", "encoder_hidden_states", "pooled_projections"):
        assert same(ours[name], first[name])


def test_flux_is_told_what_its_pipeline_tells_it(backbones):
    backbone, noise = backbones["flux"], latents()
    options = {"num_inference_steps": 2, "guidance_scale": 4.0, "output_type": "latent"}
    run = lambda: backbone.pipe(  # noqa: E731
        PROMPT, latents=backbone.for_pipeline(noise), **backbone.pipeline_options, **options
    )
    first, *_ = calls_of(backbone.denoiser, run)
    told = backbone.condition([PROMPT])
    ours = calls_of(
        backbone.denoiser,
        lambda: backbone.predict_guided(noise, torch.tensor([999]), told, null=backbone.condition([""]), scale=4.0),
    )
    plain, guided = ours
    assert plain["guidance"].tolist() == [1.0, 1.0]
    wanted = (
        "hidden_states",
        "timestep",
        "guidance",
        "pooled_projections",
        "encoder_hidden_states",
        "txt_ids",
        "img_ids",
    )
    for name in wanted:
        assert same(guided[name], first[name]), name


@pytest.mark.parametrize("limit", [MAX_TOKENS, 512])
@pytest.mark.parametrize(
    ("pipe", "tokenizer", "rows"),
    [
        (tiny_sd3, "tokenizer_3", MAX_TOKENS + 256),
        (lambda: tiny_sd3(t5=False), None, MAX_TOKENS + 256),
        (tiny_flux, "tokenizer_2", 512),
        (lambda: tiny_flux(guided=False), "tokenizer_2", 256),
    ],
    ids=["sd3", "sd3 without t5", "flux dev", "flux schnell"],
)
def test_a_picture_is_drawn_with_the_rows_that_training_reads(pipe, tokenizer, rows, limit):
    """Rows are not masked: more padding is another input. The tokenizers of the released models allow 512."""
    pipe = pipe()
    if tokenizer is not None:
        getattr(pipe, tokenizer).model_max_length = limit
    backbone = backbone_for(pipe)
    with sampling(pipe):
        draw = lambda: draw_batch(pipe, [PromptJob(PROMPT, 0)], steps=1, guidance=1.0)  # noqa: E731
        (drawn,) = calls_of(backbone.denoiser, draw)
    told = backbone.condition([PROMPT])
    assert torch.equal(drawn["encoder_hidden_states"], told.tokens)
    assert torch.equal(drawn["pooled_projections"], told.pooled)
    assert told.tokens.shape[1] == backbone.max_tokens
    if limit == 512:
        assert backbone.max_tokens == rows


def test_flux_without_a_guidance_input_is_not_guided(tmp_path):
    backbone = backbone_for(tiny_flux(guided=False))
    found = backbone.predict_guided(
        latents(), torch.tensor([500]), backbone.condition([PROMPT]), null=backbone.condition([""]), scale=4.0
    )
    assert torch.equal(found.guided, found.prompted)
    assert not torch.equal(found.null, found.prompted)
    pipe = tiny_flux()
    assert backbone_for(pipe).world is FLUX_WORLD
    pipe.register_to_config(_name_or_path=str(tmp_path))  # a folder without a world of its own
    assert backbone_for(pipe).world is FLUX_WORLD


def test_flux_packs_as_its_pipeline_does():
    x = latents(2)
    rows = packed(x)
    assert torch.equal(rows, FluxPipeline._pack_latents(x, 2, 4, 8, 8))
    assert torch.equal(unpacked(rows, height=8, width=8), x)
    assert torch.equal(_places(4, 4).float(), FluxPipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sd3_is_told_the_timestep_in_full_precision(backbones, dtype):
    """Rounded in the latents' format it would be off by up to 3.8 timesteps."""
    backbone, told = backbones["sd3"], []
    steps = torch.tensor([1, 333, 777, 998])
    tokens, pooled = (torch.zeros(4, *size) for size in ((1, 1), (1,)))
    backbone.predict(
        torch.zeros(4, *backbone.latent_shape, dtype=dtype),
        steps,
        Conditioning(tokens, pooled),
        denoiser=lambda *, timestep, **rest: (told.append(timestep), (rest["hidden_states"],))[1],
    )
    assert torch.equal(told[0], backbone.schedule.sigmas[steps] * 1000)


def test_what_a_family_can_do_is_asked_of_its_backbone(backbones, tiny_backbone):
    found = {name: (one.one_encoder, one.keys_read_text) for name, one in {**backbones, "sd": tiny_backbone}.items()}
    assert found == {"sd": (True, True), "sdxl": (False, True), "sd3": (False, False), "flux": (False, False)}


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_flow_step_is_eulers(backbones, family):
    """Through the clean estimate and the noise, as every rollout goes, to the next timestep."""
    schedule = backbones[family].schedule
    x, flow, t, later = latents(), latents(seed=1), torch.tensor([700]), torch.tensor([400])
    x0, noise = (convert(flow, x, t, schedule, "flow") for convert in (to_x0, to_epsilon))
    wanted = x + (schedule.at(later) - schedule.at(t)) * flow
    assert torch.allclose(schedule.add_noise(x0, noise, later), wanted, atol=1e-5)


def test_flow_schedules_are_shifted_as_the_schedulers_shift(backbones):
    sd3, flux = backbones["sd3"], backbones["flux"]
    fresh = type(sd3.pipe.scheduler).from_config(sd3.pipe.scheduler.config)
    assert torch.allclose(sd3.schedule.sigmas.flip(0), fresh.sigmas, atol=1e-6)
    scheduler = type(flux.pipe.scheduler).from_config(flux.pipe.scheduler.config)
    mu = 0.5 + (1.15 - 0.5) * (16 - 256) / (4096 - 256)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=mu)
    assert torch.allclose(flux.schedule.sigmas[[999, 749, 499, 249]], scheduler.sigmas[:4], atol=1e-6)


def test_a_concept_is_found_in_every_window(backbones):
    """CLIP's window, with begin-of-text, and T5's, without."""
    marked = backbones["sd3"].token_columns([PROMPT], "santa claus", policy="concept")[0]
    assert marked.nonzero()[:, 0].tolist() == [1, 2, 3, MAX_TOKENS, MAX_TOKENS + 1, MAX_TOKENS + 2]
    with_end = backbones["sd3"].token_columns([PROMPT], "santa claus", policy="concept+eot")[0]
    assert (with_end & ~marked).nonzero()[:, 0].tolist() == [7, MAX_TOKENS + 6]
    own = backbones["flux"].token_columns([PROMPT], "santa claus", policy="last")[0]
    assert own.nonzero()[:, 0].tolist() == [2]
    assert backbones["sdxl"].token_columns([PROMPT], "santa claus", policy="concept").shape == (1, MAX_TOKENS)
    with pytest.raises(ConceptError, match=r"is cut off: prompt .* has 40 tokens, the model reads 31"):
        backbones["flux"].token_columns(["cat " * 40], "cat " * 40, policy="concept")


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("concept", ["santa claus", "Santa Claus", "SANTA  claus"])
def test_case_and_spacing_do_not_matter(backbones, family, concept):
    """T5's tokens know capital letters: it is looked for as each prompt spells it, twice in one prompt too."""
    prompts = {
        "a photo of Santa Claus": "a photo of",
        "santa claus and SANTA CLAUS in the tree": "and in the tree",
        "santa claus on a tree": "on a tree",
    }
    marked = backbones[family].token_columns(list(prompts), concept, policy="concept")
    for window in backbones[family].windows:
        part = marked[:, window.start : window.start + window.length]
        left = [ids[~found] for ids, found in zip(window.tokenize(list(prompts)), part, strict=True)]
        read = [window.tokenizer.decode(ids, skip_special_tokens=True).strip("! ") for ids in left]
        assert read == list(prompts.values())
        assert all(len(ids) < window.length for ids in left)


@pytest.mark.parametrize("prompt", ["a photo of Santa Clauses", "a photo of Santa", "santaclaus"])
def test_a_longer_or_another_word_is_not_the_concept(backbones, prompt):
    with pytest.raises(ConceptError, match="is not in prompt"):
        backbones["flux"].token_columns([prompt], "santa claus", policy="concept")


def test_even_attention_is_over_all_that_is_attended_to(backbones):
    """The picture's own 16 tokens too, where it attends to itself and the text at once."""
    assert backbones["sdxl"].attended_keys == MAX_TOKENS
    assert backbones["sd3"].attended_keys == 2 * MAX_TOKENS + 16
    assert backbones["flux"].attended_keys == MAX_TOKENS + 16


def test_sd3_without_t5():
    backbone = backbone_for(tiny_sd3(t5=False))
    told = backbone.condition([PROMPT])
    assert told.tokens.shape[1] == backbone.max_tokens == MAX_TOKENS + 256
    marked = backbone.token_columns([PROMPT], "santa claus", policy="concept")
    assert marked.shape == (1, backbone.max_tokens)
    assert marked.nonzero()[:, 1].tolist() == [1, 2, 3]
    assert not told.tokens[:, MAX_TOKENS:].any()


@pytest.mark.parametrize("family", OTHERS)
def test_words_that_mean_the_same_are_near(backbones, family):
    vectors = backbones[family].embed_concepts(["santa claus", "Santa  Claus", "car"])
    assert torch.allclose(vectors[0], vectors[1], atol=1e-5) or family == "flux"  # T5 knows capital letters
    assert not torch.allclose(vectors[0], vectors[2], atol=1e-3)


@pytest.mark.parametrize("family", OTHERS)
def test_latents_are_scaled_and_shifted(backbones, family):
    backbone, vae = backbones[family], backbones[family].pipe.vae
    pixels = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    raw = vae.encode(pixels).latent_dist.mode()
    shift = 0.0 if family == "sdxl" else 0.1
    assert torch.allclose(backbone.encode_images(pixels), (raw - shift) * 0.5, atol=1e-5)
    found = backbone.decode_latents((raw - shift) * 0.5)
    assert torch.allclose(found, vae.decode(raw, return_dict=False)[0].clamp(-1, 1), atol=1e-5)


def test_an_autoencoder_that_overflows_in_half_precision_is_widened_for_the_call():
    pipe = tiny_sdxl()
    pipe.vae.half()
    pipe.vae.register_to_config(force_upcast=True)
    seen = []
    pipe.vae.decoder.register_forward_pre_hook(lambda _module, args: seen.append(args[0].dtype))
    found = backbone_for(pipe).decode_latents(latents().half())
    assert seen == [torch.float32]
    assert found.dtype == pipe.vae.dtype == torch.float16


@pytest.mark.parametrize("family", OTHERS)
def test_rows_without_a_pooled_vector_are_refused(backbones, family):
    backbone = backbones[family]
    rows = backbone.encode_prompts([PROMPT])
    with pytest.raises(ModelError, match="without a pooled vector"):
        backbone.predict(latents(), 500, rows)
    with pytest.raises(ModelError, match="1 of 2 parts have no pooled vector"):
        joined([backbone.condition([PROMPT]), rows])


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_words_beside_t5_are_not_read_with_gradients(backbones, family):
    backbone = backbones[family]
    assert backbone.text_readers == ()
    with pytest.raises(ModelError, match="reads several text encoders"):
        backbone.token_ids([PROMPT])
    with pytest.raises(ModelError, match="reads several text encoders"):
        backbone.read_tokens(backbone.tokenize([PROMPT]))
    with pytest.raises(ModelError, match="reads several text encoders"):
        backbone.word_vectors(backbone.tokenize([PROMPT]))


@pytest.mark.parametrize("family", OTHERS)
def test_asking_leaves_nothing_behind(backbones, family):
    backbone = backbones[family]
    before = snapshot(backbone.pipe)
    with backbone.frozen(), torch.no_grad():
        backbone.predict(latents(2), torch.tensor([10, 900]), backbone.condition([PROMPT, ""]))
    assert same_snapshot(before, snapshot(backbone.pipe))


def test_conditioning_is_handled_like_rows():
    told = Conditioning(torch.arange(12.0).reshape(3, 2, 2), torch.arange(3.0)[:, None])
    assert len(told) == 3
    chosen = told[torch.tensor([2, 0])]
    assert chosen.pooled.flatten().tolist() == [2, 0]
    assert told.to(torch.float64).pooled.dtype == torch.float64
    assert told[:1].with_tokens(torch.zeros(1, 2, 2)).pooled.tolist() == [[0.0]]
    again = Conditioning.from_tensors(told.tensors())
    assert torch.equal(again.tokens, told.tokens)
    assert torch.equal(again.pooled, told.pooled)
