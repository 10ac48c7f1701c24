"""Commands about what there is: studies, tasks, methods, models, profiles, and this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from espalier.study_commands import OwnProfile
from espalier.terminal import BAD_INPUT, SOME_FAILED, news_line

if TYPE_CHECKING:
    from launchers._finding import Finding

app = typer.Typer()


@app.command(epilog="Example: espalier doctor --profile devcluster --out /shared/me/study")
def doctor(
    profile: OwnProfile = None,
    out: Annotated[
        Path | None, typer.Option(help="With a profile: where the study is to be; by default the current folder.")
    ] = None,
) -> None:
    """Check what this machine can do, what is missing, and how to mend it; with a profile, what a cluster can do.

    With --profile, Slurm is asked whether it has what the profile asks for, and a job of a few seconds looks whether a
    node sees the folder and starts the same Python. Neither a job nor a file is left. Exit code 2: something has to be
    changed before a study can run there.
    """
    from suite.errors import UserError

    if profile is not None:
        from launchers._profile import read_profile
        from launchers._slurm_survey import survey_cluster

        chosen, folder = read_profile(profile), (out or Path()).absolute()
        with news_line() as told:
            bad = [_show(finding) for finding in survey_cluster(chosen, folder, told)]
        if any(bad):
            raise typer.Exit(BAD_INPUT)
        return
    if out is not None:
        raise UserError(f"--out {out} is for a cluster. Expected: with --profile P.")
    from launchers._survey import survey

    bad = [_show(finding) for finding in survey()]
    if any(bad):
        raise typer.Exit(SOME_FAILED)


def _show(finding: "Finding") -> bool:
    """Print one check; return whether something has to be done."""
    repair = f" -> {finding.repair}" if finding.repair else ""
    print(f"{finding.verdict:9}{finding.what:18}{finding.state}{repair}", flush=True)
    return finding.is_bad


@app.command(epilog="Example: espalier profiles")
def profiles() -> None:
    """List all profiles: how jobs are queued on a cluster, one line each."""
    from launchers._profile import profiles as known_profiles

    for name, description in known_profiles().items():
        print(f"{name:20}{description}".rstrip())


def _lister(kind: str) -> Callable[[], None]:
    def show() -> None:
        from suite.catalogue import catalogue

        listed = catalogue(kind)
        width = max(20, *(len(name) + 2 for name in listed))
        for name, description in listed.items():
            print(f"{name:{width}}{description}".rstrip())

    show.__doc__ = f"List all {kind} that can be named, one line each."
    return show


for _kind in ("studies", "tasks", "methods", "models"):
    app.command(_kind, epilog=f"Example: espalier {_kind}")(_lister(_kind))
