"""What every launcher promises: a file dropped into launchers/ is tested the day it is added."""

import inspect

import pytest

from launchers._events import launcher, launchers
from suite.errors import UserError


@pytest.mark.parametrize("name", sorted(launchers()))
def test_a_launcher_says_what_it_is_and_runs_plans(name):
    module = launcher(name)
    assert name == module.NAME
    assert module.DESCRIPTION
    parameters = inspect.signature(module.run).parameters
    more = ["profile"] if getattr(module, "NEEDS_PROFILE", False) else []
    assert list(parameters) == ["plan", "folder", "workers", "report", *more]
    assert all(parameters[key].kind is inspect.Parameter.KEYWORD_ONLY for key in ("workers", "report", *more))


def test_an_unknown_launcher_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="Did you mean 'inline'"):
        launcher("inlien")
