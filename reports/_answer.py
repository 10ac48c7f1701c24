"""The study's answer in words: which method keeps its accuracy longest, and whether the predicted limit was right."""

from dataclasses import dataclass

from reports._comparison import headline
from reports._highest import at_highest
from reports._limit_sentences import limit_sentences
from reports._missing import missing_sentences
from reports._results import Results


@dataclass(frozen=True)
class Answer:
    """Sentences for one task.

    Attributes:
        headline: which method keeps its accuracy longest, or that the networks cannot be told from guessing; empty of
            a smoke, whose numbers mean nothing.
        notes: what limits the headline: one seed, methods that were left out; empty when nothing does.
        highest: which method is the most accurate at the highest sparsity tested; empty when there is nothing to say.
        limits: one sentence or more per analysed network; empty without analyses.
        missing: what the study asked for and has no result; empty when all is there.
    """

    headline: str
    notes: tuple[str, ...]
    highest: tuple[str, ...]
    limits: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of them, in the order in which they are to be read."""
        return (*([self.headline] if self.headline else []), *self.notes, *self.highest, *self.limits, *self.missing)


def answer(results: Results, task: str) -> Answer:
    """Return the answer of one task, computed from its rows alone.

    A method holds its accuracy at a sparsity if its mean drop from its own dense network, taken seed by seed at the
    last epoch on the test set, is at most 0.5 points there and at every lower sparsity asked for. Methods are ranked
    only where the 95% Student-t interval of their paired difference excludes zero.
    """
    here = results.only(task)
    if results.smoke_of:
        return Answer("", (), (), (), tuple(missing_sentences(here)))
    first, left_out = headline(here)
    notes = (*left_out, *_one_seed(here))
    return Answer(first, notes, tuple(at_highest(here)), tuple(limit_sentences(here)), tuple(missing_sentences(here)))


def _one_seed(here: Results) -> tuple[str, ...]:
    seeds = {*here.rows["seed"], *here.limits["seed"]}
    return ("One seed: no number has an interval, and any difference may be chance.",) if len(seeds) == 1 else ()
