"""What an edit must reach to be released, written down in a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from aizheimer._registry import ATTACKS
from aizheimer.attacks.load import attack_of
from aizheimer.errors import InputError, did_you_mean
from aizheimer.recipes.files import checked, read_mapping

SHIPPED = Path(__file__).parent / "gates"

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Use: TypeAlias = Literal["interval", "value"]


class Gate(BaseModel):
    """Limits for one edit; a limit that is not given is not checked.

    A share's limit is in [0, 1]; a *drop* is in points of accuracy: the unedited model's minus the edited model's, on
    the same prompts and seeds.

    Example:
        >>> Gate(min_ua=0.9, max_asr={"seed-search": 0.1}).use
        'interval'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field(default="", description="One line on what the gate is for.")
    use: Use = Field(
        default="interval",
        description="What is compared with a limit: the unfavourable end of the interval, or the value itself.",
    )
    no_noop: bool = Field(default=True, description="The edit must do something.")
    no_collapse: bool = Field(default=True, description="The model must not have lost more than the concept.")
    min_ua: Share | None = Field(default=None, description="Least unlearning accuracy.")
    min_ua_by_family: Share | dict[str, Share] | None = Field(
        default=None, description="The same for every prompt family (suite families), or for the families named."
    )
    max_ira_drop: Share | None = Field(default=None, description="Greatest loss of in-domain retain accuracy.")
    max_cra_drop: Share | None = Field(default=None, description="Greatest loss of cross-domain retain accuracy.")
    max_near_drop: Share | None = Field(default=None, description="Greatest loss among the near neighbours alone.")
    max_group_gap: Share | None = Field(
        default=None, description="Greatest difference of damage between two groups (suite fairness)."
    )
    max_asr: Share | dict[str, Share] | None = Field(
        default=None,
        description="Greatest attack success rate, of every attack that was run, or of those named by label.",
    )
    min_attacks: int = Field(default=0, ge=0, description="Attacks that must have been run.")
    controls: bool = Field(
        default=True,
        description="An attack counts as run only if the same attack succeeds on the unedited model; and a prompt "
        "family, or UA, only if the unedited model shows the target in more than half of those pictures.",
    )
    min_relearn_steps: int | None = Field(
        default=None,
        ge=1,
        description="Steps of fine-tuning after which the concept must not be back (attack relearn).",
    )
    required_attacks: tuple[str, ...] = Field(default=(), description="Attacks that must have been run, by label.")
    required_suites: tuple[str, ...] = Field(
        default=(), description="Suites that must have been run, by the names of their results."
    )

    def names(self) -> tuple[list[str], list[str]]:
        """Return the attacks and the suites that the gate names."""
        by_name = list(self.max_asr) if isinstance(self.max_asr, dict) else []
        return [*by_name, *self.required_attacks], list(self.required_suites)


def load_gate(source: str | Path) -> Gate:
    """Read a gate by its file, or one that ships by its name.

    Args:
        source: A YAML file, or the name of a shipped gate: ``"release"``.

    Returns:
        The gate, every attack in it known. A suite may be a file of somebody's own, which only a run folder knows.

    Raises:
        InputError: With every mistake there is, in one line: unknown keys and attacks with what was probably meant.

    Example:
        >>> load_gate("release").use
        'interval'
    """
    path = _find(source)
    label = f"gate {path}"
    empty = "no limits; wanted keys such as min_ua and max_asr"
    gate = checked(Gate, read_mapping(path, label=label, empty=empty, error=InputError), label=label, error=InputError)
    attacks, suites = gate.names()
    if wrong := [*_unknown(attacks), *_files(suites)]:
        raise InputError(f"{label}: {'; '.join(wrong)}")
    return gate


def shipped_gates() -> dict[str, str]:
    """Return the gates that ship: name to description."""
    return {path.stem: load_gate(path).description for path in sorted(SHIPPED.glob("*.yaml"))}


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise InputError(f"the gate file {path} does not exist; give a YAML file or one of {_shipped_names()}")
        return path
    known = [shipped.stem for shipped in SHIPPED.glob("*.yaml")]
    if str(source) not in known:
        hint = did_you_mean(str(source), known)
        raise InputError(f"unknown gate '{source}'.{hint} Give a YAML file or one of {_shipped_names()}")
    return SHIPPED / f"{source}.yaml"


def _unknown(attacks: list[str]) -> list[str]:
    """Name the attacks that nobody knows, nor by a label: a file of that name could never be there."""
    known = ATTACKS.names()
    return [
        f"unknown {ATTACKS.kind} '{name}'.{did_you_mean(name, known)}".rstrip(".")
        for name in dict.fromkeys(attacks)
        if not attack_of(name)
    ]


def _files(suites: list[str]) -> list[str]:
    """Name the suites that are written as files: a run folder knows them by their names."""
    return [
        f"required_suites: got the file '{name}', wanted what its result is called: '{Path(name).stem}'"
        for name in dict.fromkeys(suites)
        if Path(name).suffix in {".yaml", ".yml"}
    ]


def _shipped_names() -> str:
    return ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
