"""Checks of a system's health: bounded, all killed, and with a reason."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from p2p.deploy.health import Health, find_hooks
from p2p.deploy.script import MAX_OUTPUT_BYTES, run_script
from tests.deploy.conftest import WriteScript


def health(tmp_path: Path, **options: object) -> Health:
    directories = (f"{tmp_path}/etc", f"{tmp_path}/lib")
    return Health(directories=directories, **options)  # type: ignore[arg-type]


def is_gone(pid: int) -> bool:
    """The process has ended, or is dead and waits for its parent's look."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


# -- one program -----------------------------------------------------------------------


def test_a_program_that_succeeds_has_no_error(write: WriteScript) -> None:
    ending = run_script([str(write("a", "echo fine"))], timeout_seconds=30)
    assert (ending.error, ending.output) == ("", "fine")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("echo no disk >&2; exit 3", "ended with status 3: no disk"),
        ("kill -9 $$", "was killed by signal 9"),
    ],
)
def test_what_fails_says_how(write: WriteScript, text: str, expected: str) -> None:
    assert str(run_script([str(write("a", text))], timeout_seconds=30)) == expected


def test_what_hangs_is_ended_with_what_it_had_said(write: WriteScript) -> None:
    path = write("a", "echo waiting; exec sleep 1000")
    before = time.monotonic()
    ending = run_script([str(path)], timeout_seconds=0.5)
    assert str(ending) == "did not end within 0.5 seconds: waiting"
    assert time.monotonic() - before < 20


def test_one_that_closes_its_output_and_hangs_is_ended(write: WriteScript) -> None:
    path = write("a", "exec >&- 2>&-; exec sleep 1000")
    assert "did not end" in run_script([str(path)], timeout_seconds=0.3).error


@pytest.mark.parametrize("end", ["exit 0", "exec sleep 1000"])
@pytest.mark.parametrize("how", ["", "setsid"])
def test_nothing_that_it_started_is_left(
    write: WriteScript, tmp_path: Path, how: str, end: str
) -> None:
    """Also what left its session, and whether or not it ended itself."""
    pid = tmp_path / "pid"
    child = f"sh -c 'echo $$ > {pid}; mv {pid} {pid}s; exec sleep 1000'"
    wait = f"until [ -e {pid}s ]; do :; done"
    path = write("a", f"{how} {child} &\n{wait}\n{end}")
    run_script([str(path)], timeout_seconds=5)
    assert is_gone(int((tmp_path / "pids").read_text()))


def test_of_much_output_the_end_is_kept(write: WriteScript) -> None:
    path = write("a", "yes x | head -c 3000000; echo the reason; exit 1")
    ending = run_script([str(path)], timeout_seconds=60)
    assert ending.output.endswith("the reason")
    assert len(ending.output) <= MAX_OUTPUT_BYTES


def test_a_child_that_speaks_without_end_delays_nothing(write: WriteScript) -> None:
    path = write("a", "yes x &\nexit 0")
    assert run_script([str(path)], timeout_seconds=60).error == ""


@pytest.mark.parametrize("mode, text", [(0o644, "#!/bin/sh\n"), (0o755, "#!/no/sh\n")])
def test_what_cannot_be_run_says_so(tmp_path: Path, mode: int, text: str) -> None:
    path = tmp_path / "a"
    path.write_text(text)
    path.chmod(mode)
    assert "cannot be run" in run_script([str(path)], timeout_seconds=30).error


# -- which programs --------------------------------------------------------------------


def test_programs_are_run_by_name_and_an_administrators_counts_instead(
    write: WriteScript, tmp_path: Path
) -> None:
    for name in ("lib/20", "lib/10", "etc/20", "lib/30", "etc/.hid", "etc/old~"):
        write(name, "")
    os.symlink("/dev/null", tmp_path / "etc/30")
    found = find_hooks(f"{tmp_path}/etc", f"{tmp_path}/lib", f"{tmp_path}/none")
    assert found == [f"{tmp_path}/lib/10", f"{tmp_path}/etc/20"]


# -- all of it -------------------------------------------------------------------------


def test_without_any_check_a_system_is_healthy(tmp_path: Path) -> None:
    assert health(tmp_path).check("c") == ""


def test_every_check_that_fails_is_named(write: WriteScript, tmp_path: Path) -> None:
    write("etc/10", "echo broken; exit 1")
    write("etc/20", 'test "$OSTREE_P2P_COMMIT" = commit')
    write("lib/30", "exit 2")
    assert health(tmp_path).check("commit") == (
        f"{tmp_path}/etc/10 ended with status 1: broken; "
        f"{tmp_path}/lib/30 ended with status 2"
    )


def test_a_check_that_is_not_executable_is_no_success(
    write: WriteScript, tmp_path: Path
) -> None:
    write("etc/10", "exit 0").chmod(0o644)
    assert "cannot be run: Permission denied" in health(tmp_path).check("c")


def test_all_together_have_one_time(write: WriteScript, tmp_path: Path) -> None:
    for name in ("etc/10", "etc/20"):
        write(name, "exec sleep 1000")
    said = health(tmp_path, timeout_seconds=0.5).check("c")
    assert f"{tmp_path}/etc/10 did not end" in said
    assert f"{tmp_path}/etc/20 was not run: all checks had 0.5 s" in said


def systemctl(write: WriteScript, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("bin/systemctl", text)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def test_a_unit_that_is_not_active_in_time_is_named_with_its_state(
    write: WriteScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl(write, '[ "$3" = a.service ] || { echo failed; exit 3; }', monkeypatch)
    units = ("a.service", "b.service")
    checked = health(tmp_path, units=units, timeout_seconds=0.1)
    assert checked.check("c") == "unit b.service is failed"


def test_a_unit_that_is_about_to_start_is_waited_for(
    write: WriteScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "started"
    text = f"[ -e {mark} ] || {{ touch {mark}; echo activating; exit 3; }}"
    systemctl(write, text, monkeypatch)
    assert health(tmp_path, units=("a.service",)).check("c") == ""


def test_without_systemd_no_unit_is_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    checked = health(tmp_path, units=("a.service",), timeout_seconds=0.1)
    assert "systemctl cannot be run" in checked.check("c")


@pytest.mark.parametrize(
    "answer, expected",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 500 No\r\n\r\n", "it does not work"),
        (b"", "it does not work"),
    ],
)
def test_an_agent_must_answer(tmp_path: Path, answer: bytes, expected: str) -> None:
    path = str(tmp_path / "agent.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        said = health(tmp_path, socket=path, timeout_seconds=0.1).check("c")
        thread.join()
    assert said.endswith(expected)
    assert bool(said) is bool(expected)


def test_an_agent_that_is_not_there_is_no_healthy_one(tmp_path: Path) -> None:
    path = str(tmp_path / "agent.sock")
    said = health(tmp_path, socket=path, timeout_seconds=0.1).check("c")
    assert said == f"the agent at {path} does not answer: No such file or directory"
