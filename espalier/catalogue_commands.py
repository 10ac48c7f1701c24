"""Commands about what there is: studies, tasks, methods, models, profiles, data sets, and this machine."""

from collections.abc import Callable

import typer

from espalier.terminal import SOME_FAILED

app = typer.Typer()
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Data sets: what there is and where it lies.")


@data_app.command("list", epilog="Example: espalier data list")
def data_list() -> None:
    """List all data sets, whether they are prepared, and where they lie."""
    from data import available, dataset_path, describe

    for name in available():
        path = dataset_path(name)
        state = "prepared" if path.exists() else "written on first use"
        print(f"{name:20}{describe(name).description}\n{'':20}{state}: {path}")


@app.command(epilog="Example: espalier doctor")
def doctor() -> None:
    """Check what this machine can do, what is missing, and how to mend it."""
    from launchers._survey import survey

    missing = False
    for finding in survey():
        missing |= finding.verdict == "missing"
        repair = f" -> {finding.repair}" if finding.repair else ""
        print(f"{finding.verdict:9}{finding.what:18}{finding.state}{repair}", flush=True)
    if missing:
        raise typer.Exit(SOME_FAILED)


@app.command(epilog="Example: espalier profiles")
def profiles() -> None:
    """List all profiles: how jobs are queued on a cluster, one line each."""
    from launchers._profile import profiles as known_profiles

    for name, description in known_profiles().items():
        print(f"{name:20}{description}".rstrip())


def _lister(kind: str) -> Callable[[], None]:
    def show() -> None:
        from suite.catalogue import catalogue

        for name, description in catalogue(kind).items():
            print(f"{name:20}{description}".rstrip())

    show.__doc__ = f"List all {kind} that can be named, one line each."
    return show


for _kind in ("studies", "tasks", "methods", "models"):
    app.command(_kind, epilog=f"Example: espalier {_kind}")(_lister(_kind))
