"""Races: a test that is marked ``race`` is one item, whose body is a campaign of attempts.

Every attempt is an item below it, with fixtures and so a clone of its own. Attempts are not
reported one by one: the campaign is what passes or fails, with the message of the first
attempt that failed, and the command that repeats it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from lab.core.errors import Blame, DriverFailure, GuestCrashed, LabBroken, PvlabError
from lab.plugin.keys import ERROR, TURN
from lab.plugin.options import settings
from lab.plugin.recorder import attach, findings
from lab.plugin.turns import base_id, on_baseline
from lab.suite.campaign import Campaign, Plan
from lab.suite.sequential import least, most


class AttemptUndecided(PvlabError):
    """An attempt failed, and nobody can be blamed for it."""

    blame = Blame.UNDECIDED


@dataclass(frozen=True, slots=True)
class Failure:
    """The first failed attempt of a campaign.

    Attributes:
        seed: of it.
        error: what it raised, or the crash that was found afterwards.
        reason: one line: why it failed.
        evidence: folder of its evidence, relative to the run's.
        text: as pytest would have shown it.
    """

    seed: int
    error: BaseException | None
    reason: str
    evidence: str | None
    text: str


class Attempt(pytest.Function):
    """One attempt of a campaign.

    Attributes:
        seed: of its jitter.
        known: whether an earlier attempt has failed.
    """

    seed: int = 0
    known: bool = False

    def iter_markers_with_node(self, name: str | None = None) -> Iterator[tuple[Any, pytest.Mark]]:
        """Its markers without expectations: those are of the campaign, not of an attempt."""
        for node, mark in super().iter_markers_with_node(name):
            if mark.name != "xfail":
                yield node, mark


class CampaignItem(pytest.Item):
    """A test that is run as a campaign; takes the place of its function in a session.

    Attributes:
        plan: what the campaign asks.
        campaign: how far it has got.
        failure: the first failed attempt.
        preparation: seconds that went into the template meanwhile.
    """

    def __init__(self, *, function: pytest.Function, plan: Plan, **others: Any) -> None:
        super().__init__(**others)
        self.function = function
        self.plan = plan
        self.campaign = Campaign(plan)
        self.failure: Failure | None = None
        self.preparation = 0.0
        self.own_markers = list(function.own_markers)
        self.keywords.update(function.keywords)
        self.extra_keyword_matches = set(function.extra_keyword_matches)
        self.fixturenames = list(function.fixturenames)
        if TURN in function.stash:
            self.stash[TURN] = function.stash[TURN]

    @classmethod
    def instead_of(cls, function: pytest.Function, plan: Plan) -> CampaignItem:
        """The campaign of a test function."""
        assert function.parent is not None  # noqa: S101 - only a session has none
        made: CampaignItem = cls.from_parent(
            function.parent, name=function.name, function=function, plan=plan
        )
        return made

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where the function stands."""
        return self.function.reportinfo()

    def runtest(self) -> None:
        """Make attempts until the campaign is over.

        Raises:
            DriverFailure: the driver failed in some of them; ``GuestCrashed`` when the first
                failure was a crash.
            LabBroken, AttemptUndecided: an attempt failed that the driver is not to blame
                for; the campaign ends with it, and says nothing about the driver.
        """
        self.campaign, self.failure = Campaign(self.plan), None
        for seed in self.campaign.seeds():
            self.campaign.record(seed, failed=self._attempt(seed))
        self.user_properties.append(("pvlab.campaign", self.campaign.summary))
        if self.campaign.failed and self.failure is not None:
            failure = self.failure
            message = f"{failure.reason} (seed {failure.seed}; {self.campaign.summary})"
            hint = f"to repeat it: {self.replay(failure.seed)}"
            if isinstance(crash := failure.error, GuestCrashed):
                raise GuestCrashed(message, evidence=crash.evidence, hint=hint) from crash
            raise DriverFailure(message, hint=hint) from failure.error

    def replay(self, seed: int) -> str:
        """The command that repeats one attempt, with what this session was asked for."""
        asked = settings(self.config)
        options: dict[str, Path | str | None] = {
            "--driver": asked.baseline if on_baseline(self) else asked.driver,
            "--profile": asked.profile,
            "--config": asked.config,
            "--accel": asked.accel,
        }
        path = os.path.relpath(self.path, self.config.invocation_params.dir)
        test = f"{path}::{base_id(self).partition('::')[2]}"
        words = ["pvlab", "run", test, "--seed", str(seed)]
        for option, value in options.items():
            if value is not None:
                words += [option, str(value)]
        return shlex.join(words)

    def _attempt(self, seed: int) -> bool:
        """Make one attempt.

        Returns:
            Whether the driver failed in it.
        """
        attempt = self._make(seed)
        # The campaign as the next item keeps everything but the attempt's own fixtures alive.
        reports = runtestprotocol(attempt, log=False, nextitem=self)
        self.preparation += sum(findings(report).get("preparation", 0.0) for report in reports)
        bad = next((report for report in reports if not report.passed), None)
        if bad is None:
            return False
        error = attempt.stash.get(ERROR, None)
        if bad.skipped and error is not None:
            raise error
        found = findings(bad)
        reason = str(found.get("reason", "it failed"))
        if self.failure is None:
            evidence = next((e for r in reports if (e := findings(r).get("evidence"))), None)
            self.failure = Failure(seed, error, reason, evidence, bad.longreprtext)
        if found.get("blame") == Blame.LAB:
            raise LabBroken(f"attempt with seed {seed}: {reason}") from error
        if found.get("blame") != Blame.DRIVER:
            raise AttemptUndecided(f"attempt with seed {seed}: {reason}") from error
        return True

    def _make(self, seed: int) -> Attempt:
        function = self.function
        attempt: Attempt = Attempt.from_parent(
            self,
            name=f"{function.originalname}-seed-{seed}",
            callobj=function.obj,
            callspec=getattr(function, "callspec", None),
            fixtureinfo=function._fixtureinfo,
        )
        attempt.seed = seed
        # Of further failures there is no evidence: it would be that of the first once more.
        attempt.known = self.failure is not None
        return attempt


def describe(item: CampaignItem, report: pytest.TestReport) -> None:
    """Put what a campaign found onto the report of its call."""
    campaign, plan, tally = item.campaign, item.plan, item.campaign.tally
    attach(
        report,
        preparation=item.preparation,
        campaign={
            "attempts": tally.attempts,
            "failures": tally.failures,
            "failed_seeds": list(campaign.failed_seeds),
            "limit": plan.limit,
            "confidence": plan.confidence,
            "least": least(tally, plan.confidence),
            "most": most(tally, plan.confidence),
            "answer": campaign.answer.value,
        },
    )
    if item.failure is not None:
        attach(report, evidence=item.failure.evidence)
        report.sections.append((f"attempt with seed {item.failure.seed}", item.failure.text))
