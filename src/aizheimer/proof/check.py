"""Hold an edit's findings against a gate."""

from __future__ import annotations

from collections.abc import Iterator

from aizheimer.attacks.load import asked_as
from aizheimer.attacks.results import AttackResult, Rate
from aizheimer.attacks.run import WEAK_CONTROL
from aizheimer.errors import did_you_mean
from aizheimer.evaluation.flags import WEAK_TARGET_SHARE
from aizheimer.evaluation.results import Metric
from aizheimer.evaluation.suite import SuiteResult
from aizheimer.evaluation.suite_file import list_suites, ships
from aizheimer.proof._lines import at_least, doubt, judged, missing, percent, points, share, there
from aizheimer.proof.bounds import widened
from aizheimer.proof.consistency import refuse_contradictions
from aizheimer.proof.findings import Findings, refuse_unproven
from aizheimer.proof.gate import Gate
from aizheimer.proof.verdict import FAULTS, Fault, GateLine, Verdict

FAMILIES, FAIRNESS, RELEARN = "families", "fairness", "relearn"
"""The suites and the attack that a gate's own keys ask for."""

FAMILY_FIGURE, GAP_FIGURE, STEPS_KEY, CURVE_KEY = "ua.", "gap", "steps_to_recover", "curve"
"""How they name what a gate compares: figures of the suites, entries of the attack's details."""

FOLLOWS: dict[Fault, frozenset[Fault]] = {
    "no-op": frozenset(FAULTS) - {"no-op"},
    "collapse": frozenset(FAULTS) - {"collapse"},
    "not-forgotten": frozenset({"prompt-only", "recoverable"}),
}
"""Faults that say nothing more where a deeper one was caught, the deepest first."""

DROPS = {"max_ira_drop": "ira", "max_cra_drop": "cra", "max_near_drop": "near"}


def check(found: Findings, gate: Gate, *, gate_name: str = "") -> Verdict:
    """Compare everything that a gate asks with what was found.

    A file that is not there is a failing line that says which command makes it: what was not measured is not passed.

    Args:
        found: The run folder's files.
        gate: The limits.
        gate_name: Its file or name, to be shown.

    Returns:
        A line for everything asked. A fault is named by the line that caught it; where the model collapsed or nothing
        changed, that alone is the fault, and what was not forgotten is not called recoverable.

    Raises:
        DataError: If a result is of another edit than the folder's, or does not say of which, or its numbers contradict
            each other.
        EditError: If the edit's files are damaged.
    """
    refuse_unproven(found)
    refuse_contradictions(found)
    lines = [
        *_flags(found, gate),
        *_accuracies(found, gate),
        *_families(found, gate),
        *_fairness(found, gate),
        *_attacks(found, gate),
        *_relearning(found, gate),
        *_required(found, gate),
    ]
    return Verdict(gate=gate, gate_name=gate_name, lines=_one_cause(lines))


def _one_cause(lines: list[GateLine]) -> list[GateLine]:
    """Name only the deepest fault: a destroyed model kills its neighbours, and what was not forgotten can come back."""
    caught = {line.fault for line in lines if not line.passed}
    for deepest, follow in FOLLOWS.items():
        if deepest in caught:
            return [line.model_copy(update={"fault": ""}) if line.fault in follow else line for line in lines]
    return lines


def _flags(found: Findings, gate: Gate) -> Iterator[GateLine]:
    flags: list[tuple[str, bool, Fault, str]] = []
    if gate.no_noop:
        flags.append(("no_noop", bool(found.evaluation and found.evaluation.no_op), "no-op", "an edit that acts"))
    if gate.no_collapse:
        collapse = bool(found.evaluation and found.evaluation.collapse)
        flags.append(("no_collapse", collapse, "collapse", "a model that still draws the rest"))
    for rule, is_up, fault, wanted in flags:
        if found.evaluation is None:
            yield missing(rule, wanted, f"aizheimer evaluate {found.folder}")
        elif not is_up:
            yield GateLine(rule=rule, wanted=wanted, found="yes", passed=True)
        else:
            reasons = [line for line in found.evaluation.warnings if line.startswith(f"{fault}:")]
            yield GateLine(rule=rule, wanted=wanted, found=fault, passed=False, fault=fault, reason="; ".join(reasons))


def _accuracies(found: Findings, gate: Gate) -> Iterator[GateLine]:
    if gate.min_ua is not None:
        yield _measured("min_ua", "ua", found) or judged(
            _unlearned(gate.min_ua, _figure(found, "ua"), gate=gate), found.evaluation
        )
    for rule, name in DROPS.items():
        limit = getattr(gate, rule)
        if limit is None:
            continue
        fault: Fault = "neighbour-killer" if name == "near" else ""
        yield _measured(rule, name, found) or _drop(rule, limit, _figure(found, name), use=gate.use, fault=fault)


def _figure(found: Findings, name: str) -> Metric:
    return getattr(found.evaluation, name)


def _measured(rule: str, name: str, found: Findings) -> GateLine | None:
    """Return the failing line of a figure that is not there, None if it is."""
    wanted = f"{name.upper()} measured"
    if found.evaluation is None:
        return missing(rule, wanted, f"aizheimer evaluate {found.folder}")
    if getattr(found.evaluation, name) is not None:
        return None
    reasons = [line for line in found.evaluation.warnings if line.startswith("not measured")]
    reason = "; ".join(reasons) or "it could not be measured: give a CLIP folder to judge with, --clip"
    return GateLine(rule=rule, wanted=wanted, passed=False, reason=reason)


def _unlearned(limit: float, metric: Metric, *, gate: Gate) -> GateLine:
    fault: Fault = "not-forgotten" if metric.value < limit else ""
    return _proving(at_least("min_ua", limit, metric, use=gate.use, fault=fault), metric, gate=gate)


def _drop(rule: str, limit: float, metric: Metric, *, use: str, fault: Fault) -> GateLine:
    low, _ = widened(metric.change_interval, value=metric.change, n=metric.n, lowest=-1.0)
    worst = -low if use == "interval" else -metric.change
    passed = worst <= limit + 1e-12
    found = (
        f"a drop of {points(-metric.change)} ({percent(metric.original)} to {percent(metric.value)}, "
        f"at worst {points(-low)}, n={metric.n})"
    )
    certain = -metric.change > limit
    return GateLine(
        rule=rule,
        wanted=f"a drop of at most {points(limit)}",
        found=found,
        passed=passed,
        fault=fault if not passed and certain else "",
        reason="" if passed else doubt(passes_by_value=not certain, n=metric.n),
    )


def _families(found: Findings, gate: Gate) -> Iterator[GateLine]:
    limits = gate.min_ua_by_family
    if limits is None:
        return
    suite = found.suites.get(FAMILIES)
    if suite is None:
        yield missing("min_ua_by_family", "UA of every prompt family", _suite_command(found, FAMILIES))
        return
    families = _family_figures(suite)
    weak = [name for name, metric in families.items() if gate.controls and _says_nothing(metric)]
    wanted = limits if isinstance(limits, dict) else dict.fromkeys(families, limits)
    for family, limit in wanted.items():
        rule, metric = f"min_ua_by_family.{family}", families.get(family)
        if metric is None:
            known = ", ".join(families) or "none"
            reason = f"the suite measured no such family; there are: {known}"
            yield GateLine(rule=rule, wanted=f"at least {percent(limit)}", passed=False, reason=reason)
        elif family not in weak or metric.value < limit:
            ua = found.evaluation.ua if found.evaluation else None
            yield judged(_family(rule, limit, metric, ua=ua, use=gate.use), suite)
        elif isinstance(limits, dict):  # it was asked for by name; of all that the suite asks, it is left out
            yield judged(_proving(at_least(rule, limit, metric, use=gate.use), metric, gate=gate), suite)
    if not isinstance(limits, dict) and (weak or not families):
        yield _counted_families([name for name in families if name not in weak], weak)


def _family(rule: str, limit: float, metric: Metric, *, ua: Metric | None, use: str) -> GateLine:
    # Only an edit that withstands the plain prompts is a prompt-only forgetter; the others have not forgotten.
    hides = ua is not None and ua.value >= limit > metric.value
    return at_least(rule, limit, metric, use=use, fault="prompt-only" if hides else "")


def _counted_families(counted: list[str], weak: list[str]) -> GateLine:
    """Return the line that says which families count: those in which the unedited model shows the target."""
    left_out = f"{', '.join(weak)}: the unedited model shows the target in half of these at most, so they prove nothing"
    return GateLine(
        rule="min_ua_by_family",
        wanted="prompt families that the unedited model shows the target in",
        found=f"{len(counted)} of {len(counted) + len(weak)} ({', '.join(counted) or 'none'})",
        passed=bool(counted),
        reason=left_out if weak else "the suite measured no family for this target",
    )


def _says_nothing(metric: Metric) -> str:
    """Say why pictures without the target prove nothing, or nothing: it must be in those of the unedited model."""
    if metric.original < WEAK_TARGET_SHARE:
        return ""
    shown = percent(1 - metric.original)
    return f"the unedited model shows the target in only {shown} of these pictures, so its absence proves nothing"


def _proving(line: GateLine, metric: Metric, *, gate: Gate) -> GateLine:
    """Fail a line that holds on pictures in which there was nothing to forget."""
    weak = _says_nothing(metric) if gate.controls and line.passed else ""
    return line.model_copy(update={"passed": False, "reason": weak}) if weak else line


def _family_figures(suite: SuiteResult) -> dict[str, Metric]:
    names = {name: name.removeprefix(FAMILY_FIGURE) for name in suite.figures if name.startswith(FAMILY_FIGURE)}
    return {family: suite.figures[name] for name, family in names.items() if family != "worst"}


def _fairness(found: Findings, gate: Gate) -> Iterator[GateLine]:
    if gate.max_group_gap is None:
        return
    wanted = f"a gap of at most {points(gate.max_group_gap)}"
    suite = found.suites.get(FAIRNESS)
    if suite is None:
        yield missing("max_group_gap", wanted, _suite_command(found, FAIRNESS))
        return
    gaps = {name: m for name, m in suite.figures.items() if name.split(".")[0] == GAP_FIGURE}
    if not gaps:
        reason = "; ".join(suite.warnings) or "the suite found no two groups to compare"
        yield GateLine(rule="max_group_gap", wanted=wanted, passed=False, reason=reason)
    for name, gap in gaps.items():
        yield _gap(f"max_group_gap{name.removeprefix(GAP_FIGURE)}", gap, gate=gate, wanted=wanted)


def _gap(rule: str, gap: Metric, *, gate: Gate, wanted: str) -> GateLine:
    limit = gate.max_group_gap or 0.0
    low, high = widened(gap.interval, value=gap.value, n=gap.n)
    passed = (high if gate.use == "interval" else gap.value) <= limit
    return GateLine(
        rule=rule,
        wanted=wanted,
        found=share(gap.value, (low, high), gap.n),
        passed=passed,
        fault="unfair" if gap.value > limit else "",
        reason="" if passed else doubt(passes_by_value=gap.value <= limit, n=gap.n),
    )


def _attacks(found: Findings, gate: Gate) -> Iterator[GateLine]:
    limits = gate.max_asr
    if limits is not None:
        wanted = limits if isinstance(limits, dict) else dict.fromkeys(found.attacks, limits)
        if isinstance(limits, float) and not wanted:
            command = f"aizheimer attack {found.folder} --all"
            yield missing("max_asr", f"an ASR of at most {percent(limits)}", command)
        for name, limit in wanted.items():
            yield _attack(found, name, limit, gate=gate)
    if gate.min_attacks:
        proving = [result for result in found.attacks.values() if not gate.controls or not _silent(result)]
        counted = list(dict.fromkeys(result.attack for result in proving))  # one with two budgets is one attack
        passed = len(counted) >= gate.min_attacks
        reason = "" if passed else f"run `aizheimer attack {found.folder} --all`"
        shown = f"{len(counted)} ({', '.join(counted) or 'none'})"
        yield GateLine(
            rule="min_attacks", wanted=f"{gate.min_attacks} or more", found=shown, passed=passed, reason=reason
        )


def _attack(found: Findings, name: str, limit: float, *, gate: Gate) -> GateLine:
    rule, wanted = f"max_asr.{name}", f"at most {percent(limit)}"
    result = found.attacks.get(name)
    if result is None:
        return missing(rule, wanted, f"aizheimer attack {found.folder} --attack {asked_as(name)}")
    rate = result.asr
    low, high = widened(rate.interval, value=rate.value, n=rate.n)
    worst = high if gate.use == "interval" else rate.value
    shown = f"{share(rate.value, (low, high), rate.n)}, {percent(result.before.value)} without the attack"
    if result.neighbour is not None and result.neighbour.value > limit:
        shown += f"; {percent(result.neighbour.value)} from '{result.neighbour_words}' on the unedited model"
    if worst > limit:
        back = rate.value > limit >= result.before.value
        reason = "" if rate.value > limit else doubt(passes_by_value=True, n=rate.n)
        return GateLine(
            rule=rule, wanted=wanted, found=shown, passed=False, reason=reason, fault="recoverable" if back else ""
        )
    silent = _silent(result) if gate.controls else ""
    return GateLine(rule=rule, wanted=wanted, found=shown, passed=not silent, reason=silent)


def _silent(result: AttackResult) -> str:
    """Say why an attack that failed proves nothing, or nothing: it must succeed where nothing was forgotten."""
    control: Rate | None = result.unedited
    if control is None:
        return "it was run without its control on the unedited model, so its failure proves nothing"
    if control.value < WEAK_CONTROL:
        return f"it reaches only {percent(control.value)} on the unedited model, so its failure proves nothing"
    return ""


def _relearning(found: Findings, gate: Gate) -> Iterator[GateLine]:
    if gate.min_relearn_steps is None:
        return
    rule, tried = "min_relearn_steps", {n: r for n, r in found.attacks.items() if r.attack == RELEARN}
    if not tried:
        wanted = f"not back after {gate.min_relearn_steps} steps of fine-tuning"
        yield missing(rule, wanted, f"aizheimer attack {found.folder} --attack {RELEARN}")
    for name, result in tried.items():
        yield _relearnt(rule if name == RELEARN else f"{rule}.{name}", result, gate.min_relearn_steps, gate=gate)


def _relearnt(rule: str, result: AttackResult, least: int, *, gate: Gate) -> GateLine:
    wanted = f"not back after {least} steps of fine-tuning"
    back, withstood = result.details.get(STEPS_KEY), _withstood(result)
    shown = f"not back after {withstood}" if back != 0 else "back before the first step"
    shown += f", back after {back}" if back else ""
    if withstood >= least:
        silent = _silent(result) if gate.controls else ""
        return GateLine(rule=rule, wanted=wanted, found=shown, passed=not silent, reason=silent)
    if back is not None and back <= least:
        return GateLine(rule=rule, wanted=wanted, found=shown, passed=False, fault="recoverable")
    tried = f"it was tried for {withstood} steps only; give the attack more"
    reason = tried if back is None else f"nobody looked in between; give the attack a look at {least}"
    return GateLine(rule=rule, wanted=wanted, found=shown, passed=False, reason=reason)


def _withstood(result: AttackResult) -> int:
    """Return the last look at which the concept was not back: it may have come back right after."""
    back = result.details.get(STEPS_KEY)
    if back is None:
        return result.spent.steps
    return max((row["step"] for row in result.details.get(CURVE_KEY, ()) if row["step"] < back), default=0)


def _required(found: Findings, gate: Gate) -> Iterator[GateLine]:
    for name in gate.required_attacks:
        yield there(
            f"required_attacks.{name}",
            name in found.attacks,
            f"aizheimer attack {found.folder} --attack {asked_as(name)}",
        )
    for name in gate.required_suites:
        line = there(f"required_suites.{name}", name in found.suites, _suite_command(found, name))
        if line.passed or ships(name):
            yield line
            continue
        own = f"no suite of this name ships, so it is a file of your own.{did_you_mean(name, list_suites())}"
        yield line.model_copy(update={"reason": f"{line.reason}; {own}".rstrip(".")})


def _suite_command(found: Findings, name: str) -> str:
    return f"aizheimer evaluate {found.folder} --suite {name if ships(name) else f'{name}.yaml'}"
