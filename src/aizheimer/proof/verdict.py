"""Yes or no, line by line: what a gate asked, what was found, and what is wrong with the edit."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from aizheimer.proof.gate import Gate

Fault: TypeAlias = Literal[
    "", "no-op", "collapse", "not-forgotten", "neighbour-killer", "prompt-only", "recoverable", "unfair"
]

FAULTS: dict[Fault, str] = {
    "no-op": "the edit changes nothing",
    "collapse": "the model lost more than the concept",
    "not-forgotten": "the concept is still drawn when it is asked for plainly",
    "neighbour-killer": "the concept went, and what is like it went too",
    "prompt-only": "the concept is gone under the words it was trained on, and comes with others",
    "recoverable": "the concept is hidden, not gone: it can be brought back",
    "unfair": "one group pays more than another",
}
"""The kinds of bad edit that a gate tells apart, in the order in which they are looked for."""


class GateLine(BaseModel):
    """One thing that was asked.

    Attributes:
        rule: The gate's key, with the attack's or family's name behind a dot: ``"max_asr.seed-search"``.
        wanted: The limit, in words: ``"at most 30%"``.
        found: What was compared with it, in words; "" if nothing was there to compare.
        judge: Of a UA, how often its judge errs without any edit; "" of other figures, and where it was not counted.
        passed: Whether it holds.
        reason: What a failing line means, and which command makes a missing file.
        fault: The kind of bad edit that the line caught.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    wanted: str
    found: str = ""
    judge: str = ""
    passed: bool
    reason: str = ""
    fault: Fault = ""

    @property
    def shown(self) -> str:
        """What was found, with how often the judge errs where that is known."""
        return f"{self.found} ({self.judge})" if self.judge else self.found

    @property
    def text(self) -> str:
        """The line as an error names it."""
        reason = f" ({self.reason})" if self.reason else ""
        got = f"found {self.shown}, " if self.found else ""
        return f"{self.rule}: {got}wanted {self.wanted}{reason}"


class Verdict(BaseModel):
    """What a gate says of one edit.

    Attributes:
        gate: The limits.
        gate_name: Their file or name.
        lines: One for everything asked, in the gate's order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: Gate
    gate_name: str = ""
    lines: list[GateLine] = Field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every line holds."""
        return all(line.passed for line in self.lines)

    @property
    def failures(self) -> list[GateLine]:
        """The lines that do not hold."""
        return [line for line in self.lines if not line.passed]

    @property
    def faults(self) -> list[Fault]:
        """The kinds of bad edit that were caught, each once."""
        caught = {line.fault for line in self.failures}
        return [fault for fault in FAULTS if fault in caught]

    @property
    def summary(self) -> str:
        """One line: what failed, named."""
        if self.passed:
            return f"all {len(self.lines)} lines of the gate hold"
        return self._told("; ".join(line.text for line in self.failures))

    @property
    def brief(self) -> str:
        """The same, with the failing rules by name alone."""
        return self.summary if self.passed else self._told(", ".join(line.rule for line in self.failures))

    def _told(self, failing: str) -> str:
        kinds = f"{', '.join(self.faults)}: " if self.faults else ""
        return f"{kinds}{len(self.failures)} of {len(self.lines)} lines of the gate fail: {failing}"
