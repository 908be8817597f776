"""`p2p fsck`, `prune` and `checkout`: checking, clearing and using a repository."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from p2p.cli.options import format_bytes, json_option, print_json, refuse, repo_option
from p2p.errors import ConfigError, DamagedObjectError
from p2p.ostree import fsck as checking
from p2p.ostree.checkout import CheckoutOptions, Links, Overwrite
from p2p.ostree.checkout import checkout as write_tree
from p2p.ostree.prune import PruneOptions
from p2p.ostree.prune import prune as clear
from p2p.ostree.repo import Repo

_SHOWN = 20


@click.command
@repo_option
@click.option(
    "--repair",
    is_flag=True,
    help="Remove damaged objects, so that a pull completes their commits.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print problems only.")
@refuse("--delete", reason="give --repair")
@refuse("--add-tombstones", reason="use `ostree fsck` for it")
@refuse(
    *("--all", "--verify-bindings", "--verify-back-refs"),
    reason="what a ref is bound to is looked at always, and told",
)
@json_option
def fsck(*, repo_path: str, repair: bool, quiet: bool, as_json: bool) -> None:
    """Recompute every object and follow every commit.

    A damaged object is named with the paths that commits have it at, and with the
    deployed files that are the same file on disk.
    """
    repo = Repo.open(repo_path)
    show = _show_progress if sys.stderr.isatty() and not quiet else None
    report = checking.fsck(repo, repair=repair, progress=show)
    if as_json:
        print_json(report)
    else:
        _print_report(report, quiet=quiet)
    if not report.ok and not (repair and not report.dangling):
        raise DamagedObjectError(
            f"{repo.path}: {len(report.problems)} objects damaged or missing, "
            f"{len(report.dangling)} refs without their commit"
        )


def _show_progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    click.echo(f"\rchecking {done}/{total}{end}", err=True, nl=False)


def _print_report(report: checking.FsckReport, *, quiet: bool) -> None:
    for problem in report.problems:
        click.echo(f"{problem.name}: {problem.reason}")
        for place in problem.places[:_SHOWN]:
            click.echo(f"  in commit {place.commit}: {place.path}")
        for path in problem.deployed[:_SHOWN]:
            click.echo(f"  is the deployed file {path}")
    for ref, commit in report.dangling:
        click.echo(f"ref {ref}: its commit {commit} is not here")
    for ref in report.unbound:
        click.echo(f"ref {ref}: its commit was made for another ref")
    if report.fetch:
        click.echo(f"{len(report.fetch)} objects are to be pulled again")
    if not quiet:
        click.echo(
            f"{report.objects} objects and {report.commits} commits checked, "
            f"{len(report.partial)} commits are incomplete"
        )


@click.command
@repo_option
@click.option("--refs-only", is_flag=True, help="Keep only what refs reach.")
@click.option("--depth", default=-1, metavar="N", help="Ancestors to keep; -1: all.")
@click.option(
    "--keep-younger-than", metavar="TIME", help="ISO 8601: keep what is newer."
)
@click.option("--delete-commit", "delete", metavar="COMMIT", multiple=True)
@click.option("--no-prune", is_flag=True, help="Delete nothing, only count.")
@refuse("--static-deltas-only", reason="deltas are not used here; use `ostree prune`")
@refuse("--commit-only", reason="commits without their objects help nobody")
@refuse("--only-branch", reason="use `ostree prune` for it")
@refuse("--retain-branch-depth", reason="use `ostree prune` for it")
@json_option
def prune(
    *,
    repo_path: str,
    refs_only: bool,
    depth: int,
    keep_younger_than: str | None,
    delete: tuple[str, ...],
    no_prune: bool,
    as_json: bool,
) -> None:
    """Delete objects that nothing needs; what is deployed or referenced is kept."""
    repo = Repo.open(repo_path)
    options = PruneOptions(
        refs_only=refs_only,
        depth=depth,
        keep_younger_than=_seconds(keep_younger_than),
        delete_commits=tuple(repo.resolve(rev) for rev in delete),
        dry_run=no_prune,
    )
    report = clear(repo, options)
    if as_json:
        print_json(report)
        return
    verb = "would be deleted" if no_prune else "deleted"
    click.echo(
        f"{report.total} objects, {report.pruned} {verb}, "
        f"{format_bytes(report.freed_bytes)} freed"
    )


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("--keep-younger-than", f"{text!r} is not ISO 8601") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


@click.command
@repo_option
@click.option("-U", "--user-mode", is_flag=True, help="No owners, xattrs or setuid.")
@click.option("--subpath", default="/", metavar="PATH", help="Only this part.")
@click.option("--union", is_flag=True, help="Replace files that are there.")
@click.option("--union-add", is_flag=True, help="Keep files that are there.")
@click.option("-H", "--require-hardlinks", is_flag=True, help="Fail rather than copy.")
@click.option("-C", "--force-copy", is_flag=True, help="Make no hard links.")
@click.option("--fsync", is_flag=True, help="Wait until all is on the disk.")
@refuse(
    *("--whiteouts", "--process-passthrough-whiteouts"),
    reason="use `ostree checkout` for container layers",
)
@refuse(
    *("--selinux-policy", "--selinux-prefix"),
    reason="labels are those of the commit",
)
@refuse(
    *("--composefs", "--composefs-noverity"),
    reason="use `ostree checkout` for composefs",
)
@refuse("--bareuseronly-dirs", reason="see --user-mode")
@refuse("--allow-noent", reason="a path that is not there is an error here")
@refuse("--disable-cache", reason="nothing is cached")
@refuse("--union-identical", reason="use `ostree checkout` for it")
@refuse("--from-stdin", reason="give one commit at a time")
@refuse("--from-file", reason="give one commit at a time")
@refuse("--skip-list", reason="use `ostree checkout` for it")
@click.argument("rev")
@click.argument("destination")
def checkout(  # noqa: PLR0913 - one argument an option
    *,
    repo_path: str,
    user_mode: bool,
    subpath: str,
    union: bool,
    union_add: bool,
    require_hardlinks: bool,
    force_copy: bool,
    fsync: bool,
    rev: str,
    destination: str,
) -> None:
    """Write the tree of the commit REV to DESTINATION."""
    if union and union_add:
        raise click.UsageError("--union contradicts --union-add")
    if require_hardlinks and force_copy:
        raise click.UsageError("-H contradicts -C")
    overwrite = Overwrite.UNION if union else Overwrite.NONE
    links = Links.REQUIRE if require_hardlinks else Links.ALLOW
    repo = Repo.open(repo_path)
    write_tree(
        repo,
        repo.resolve(rev),
        destination,
        CheckoutOptions(
            user_mode=user_mode,
            subpath=subpath,
            overwrite=Overwrite.UNION_ADD if union_add else overwrite,
            links=Links.NEVER if force_copy else links,
            fsync=fsync,
        ),
    )
