"""The two programs on a host between SuperExec and the code that a federation pushes."""

import contextlib
import hashlib
import importlib
import importlib.util
import io
import json
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from flowerbed.paths import ANSIBLE

FILES = ANSIBLE / "roles" / "common" / "files"
SITE = "hospital-a"


def program(name: str) -> ModuleType:
    """A program of the role, as a module."""
    spec = importlib.util.spec_from_file_location(f"host_{name}", FILES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


relay, instance, supernode = program("relay"), program("instance"), program("supernode")
warm = program("warm")


def fab(text: str = "app = 1") -> bytes:
    """An app, packed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(
            zipfile.ZipInfo("pyproject.toml"), '[project]\nname = "one"\n[tool.flwr.app]\npublisher = "us"\n'
        )
        archive.writestr(zipfile.ZipInfo("one.py"), text)
    return packed.getvalue()


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Flower:
    """What the gate stands in: a module that unpacks an app and then loads it."""

    __name__ = "flwr.somewhere"

    def __init__(self, folder: Path, elsewhere: Path | None = None) -> None:
        self.done: list[str] = []
        self.installed, self.loads_from = folder, elsewhere or folder

    def install_from_fab(self, content: bytes, skip_prompt: bool = False) -> Path:
        self.done.append("installed")
        return self.installed

    def get_load_client_app_fn(self, **options: object) -> Any:
        return lambda *words: self.done.append("loaded")

    def run(self, content: bytes | None) -> list[str]:
        """What Flower does for a message; without content, as a version would that takes the app by another way."""
        if content is not None:
            self.install_from_fab(content, skip_prompt=True)
        self.get_load_client_app_fn(multi_app=True)("us/one", "1.0.0", "0" * 64)
        return self.done


@pytest.fixture
def flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flower:
    found = Flower(tmp_path / "apps" / "us.one.1.0.0.00000000")
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    return found


def gate(flower: object, mode: str, *approved: str) -> list[dict[str, Any]]:
    """Put a gate into Flower; gives what the relay will have been told."""
    told: list[dict[str, Any]] = []
    made = instance.Gate(mode, SITE, lambda: set(approved), lambda **values: told.append(values))
    made.stand_in(flower, lambda: "4711")
    return told


@pytest.mark.parametrize(("mode", "approved"), [("off", []), ("warn", []), ("enforce", [hash_of(fab())])])
def test_an_app_that_the_site_lets_run_is_named_with_run_and_hash_and_loaded(
    flower: Flower, mode: str, approved: list[str]
) -> None:
    told = gate(flower, mode, *approved)
    assert flower.run(fab()) == ["installed", "loaded"]
    assert told == [{"event": "started", "run": "4711", "app": "us/one", "hash": hash_of(fab())}]


def test_an_app_that_differs_in_one_letter_is_refused_before_it_is_unpacked(flower: Flower) -> None:
    told = gate(flower, "enforce", hash_of(fab()))
    with pytest.raises(instance.AppRefused, match=f"{SITE} does not allow app {hash_of(fab('app = 2'))}: "):
        flower.run(fab("app = 2"))
    assert flower.done == []
    assert [entry["event"] for entry in told] == ["refused"]


def test_a_warning_names_the_site_and_the_app(flower: Flower, capsys: pytest.CaptureFixture[str]) -> None:
    gate(flower, "warn")
    flower.run(fab())
    assert f"{SITE} has not approved app {hash_of(fab())} (us/one)" in capsys.readouterr().out


def test_code_that_came_another_way_than_through_the_check_is_not_loaded(flower: Flower, tmp_path: Path) -> None:
    gate(flower, "enforce", hash_of(fab()))
    with pytest.raises(instance.AppRefused, match="whose hash was not compared"):
        flower.run(None)
    flower.installed = tmp_path / "apps" / "another"
    with pytest.raises(instance.AppRefused, match="whose hash was not compared"):
        flower.run(fab())
    assert "loaded" not in flower.done


def test_a_flower_without_the_place_for_the_check_runs_nothing_where_the_site_keeps_a_list() -> None:
    other = SimpleNamespace(__name__="flwr.new", install_from_fab=lambda content: None)
    with pytest.raises(instance.AppRefused, match=r"no flwr\.new\.get_load_client_app_fn"):
        gate(other, "enforce", hash_of(fab()))
    gate(other, "off")


def test_the_installed_flower_has_the_places_for_the_check() -> None:
    for _, _, place in instance.PROGRAMS.values():
        assert callable(importlib.import_module(place).install_from_fab)
    assert callable(importlib.import_module(instance.PROGRAMS["flwr-clientapp"][2]).get_load_client_app_fn)


def test_a_list_has_one_hash_a_line_with_comments_in_any_of_its_files(tmp_path: Path) -> None:
    first, second = tmp_path / "approved_apps", tmp_path / "approved_apps.managed"
    first.write_text(f"# ours\n\n{'A' * 64} # one\n")
    second.write_bytes(b"  " + b"b" * 64 + b"#two\n\xff\n")
    found = instance.approved([str(first), str(second), str(tmp_path / "missing")])
    assert {"a" * 64, "b" * 64} <= found


@pytest.mark.parametrize("content", [b"no zip", b"", None, fab()[:40]])
def test_what_is_no_app_has_no_name(content: bytes | None) -> None:
    assert instance.name_of(content) == ""


# The relay ------------------------------------------------------------------------------------------------


def follow(*answers: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[int | None, list[tuple[str, str]]]:
    """Let the relay read an instance's answers; gives its exit code and what it would write to the audit trail."""
    noted: list[tuple[str, str]] = []
    monkeypatch.setattr(relay, "note", lambda event, app, program, result="": noted.append((event, result)))
    return relay.follow(io.BytesIO(b"\n".join(answers) + b"\n"), "flwr-clientapp"), noted


STARTED = b'{"event": "started", "run": "1", "app": "us/one", "hash": "ab"}'


@pytest.mark.parametrize(
    ("answers", "code", "noted"),
    [
        ([STARTED, b'{"exit": 0}'], 0, [("started", ""), ("finished", "done")]),
        ([STARTED, b'{"exit": 1}'], 1, [("started", ""), ("finished", "failed")]),
        ([STARTED], 1, [("started", ""), ("finished", "killed")]),
        ([b'{"event": "refused", "reason": "no"}', b'{"exit": 1}'], 1, [("refused", "")]),
        ([b'{"exit": 1}'], 1, []),
        ([], None, []),
    ],
    ids=["done", "failed", "killed", "refused", "not taken", "never began"],
)
def test_the_relay_notes_what_became_of_an_app_and_returns_its_exit_code(
    answers: list[bytes], code: int | None, noted: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert follow(*answers, monkeypatch=monkeypatch) == (code, noted)


def test_what_an_app_says_of_itself_after_it_was_named_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lies = [b'{"event": "refused"}', STARTED, b"\xff{", b"[]", b'{"exit": true}', b"x" * (1 << 17), b'{"exit": 0}']
    assert follow(STARTED, *lies, monkeypatch=monkeypatch) == (0, [("started", ""), ("finished", "done")])


@contextlib.contextmanager
def listening(place: Path, *said: bytes, ready: bool = False, after: float = 0.0) -> Iterator[list[bytes]]:
    """Somebody who takes one message at a socket: says that it is ready, `after` seconds; hears it, and answers."""
    heard: list[bytes] = []

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            time.sleep(after)
            if ready:
                connection.sendall(b"\n")
            heard.append(connection.recv(1 << 16))
            for line in said:
                connection.sendall(line + b"\n")

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        yield heard
        thread.join()


READY_SECONDS = relay._READY_SECONDS
CALL = ["/opt/flwr-clientapp", "--token", "T", "--parent-pid", "7", "--insecure"]


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where the relay finds a process to be forked from, and where an instance is made."""
    places = (tmp_path / "warm", tmp_path / "plain")
    monkeypatch.setitem(relay.SOCKETS, "flwr-clientapp", tuple(map(str, places)))
    monkeypatch.setattr(relay, "_READY_SECONDS", 0.2)
    monkeypatch.setattr(relay, "note", lambda *_: None)
    return places


def test_the_relay_hands_over_the_arguments_without_the_parent_that_is_not_the_instances(
    ways: tuple[Path, Path],
) -> None:
    with listening(ways[1], b'{"exit": 3}') as heard:
        assert relay.main(CALL) == 3
    assert json.loads(heard[0]) == {"argv": ["--token", "T", "--insecure"]}


def test_a_message_goes_to_the_process_that_has_the_libraries_imported_and_no_further(
    ways: tuple[Path, Path],
) -> None:
    with listening(ways[0], STARTED, b'{"exit": 4}', ready=True) as heard:
        assert relay.main(CALL) == 4
    assert len(heard[0]) > 0


def test_a_message_waits_for_a_process_that_is_about_to_have_its_libraries_imported(
    ways: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_READY_SECONDS", READY_SECONDS)
    with listening(ways[0], STARTED, b'{"exit": 7}', ready=True, after=1.5) as heard:
        assert relay.main(CALL) == 7
    assert len(heard[0]) > 0


def test_a_process_that_still_imports_hears_nothing_of_a_message_and_an_instance_takes_it(
    ways: tuple[Path, Path],
) -> None:
    with listening(ways[0]) as silent, listening(ways[1], STARTED, b'{"exit": 5}') as heard:
        assert relay.main(CALL) == 5
    assert silent == [b""]
    assert len(heard[0]) > 0


def test_a_message_of_which_no_app_was_begun_goes_to_an_instance(ways: tuple[Path, Path]) -> None:
    with listening(ways[0], ready=True), listening(ways[1], STARTED, b'{"exit": 6}'):
        assert relay.main(CALL) == 6


def test_an_app_that_was_begun_is_not_begun_again(ways: tuple[Path, Path]) -> None:
    with listening(ways[0], STARTED, ready=True):  # an instance would refuse: nobody listens there
        assert relay.main(CALL) == 1


def preloaded(tmp_path: Path, modules: str) -> list[str]:
    """Import modules as the process does that is forked for each message; gives the last lines that it prints."""
    script = f"import sys; sys.path[:0] = [{str(FILES)!r}, {str(tmp_path)!r}]; import warm\n"
    script += f"try:\n    print(warm.preload({modules}))\nexcept warm.DoesNotFork as name:\n    print('not', name)\n"
    script += "print('offered.part' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_library_is_imported_beforehand_with_what_it_offers_and_one_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "offered").mkdir()
    (tmp_path / "offered" / "__init__.py").write_text('__all__ = ["part", "nothing"]\n')
    (tmp_path / "offered" / "part.py").touch()
    (tmp_path / "broken.py").write_text("raise RuntimeError('no driver')\n")
    left, offered = preloaded(tmp_path, '["offered", "broken", "numpy"]')
    assert left == "['broken (RuntimeError: no driver)']"
    assert offered == "True"


def test_a_library_whose_threads_outlast_a_fork_is_not_imported_beforehand(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    assert preloaded(tmp_path, '["busy"]')[0] == "not busy"


def ended(until: str, place: Path, *, idle: float = 60, ask: bool = False) -> str:
    """Let the process that is forked serve until it ends by what `until` does; what it prints then."""
    script = "import os, pathlib, signal, socket, subprocess, sys, threading\n"
    script += f"sys.path.insert(0, {str(FILES)!r}); import warm\n"
    script += f"place = pathlib.Path({str(place)!r})\n"
    script += f"server = warm.Server(size='1M', at_once=1, idle={idle}, seconds=0, places=[str(place)])\n"
    script += "with socket.socket(socket.AF_UNIX) as line:\n"
    script += "    line.bind('\\0' + str(os.getpid()))\n    line.listen()\n"
    script += f"    def act():\n        {until}\n"
    if ask:
        script += "        with socket.socket(socket.AF_UNIX) as message:\n"
        script += "            message.connect(line.getsockname())\n            print(message.recv(1))\n"
    script += "    other = threading.Timer(0.1, act)\n    other.start()\n"
    script += "    found = server.serve(line)\n    other.join()\n    print(found, server.ending)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


def test_the_process_that_is_forked_ends_when_it_was_not_asked_for_a_while(tmp_path: Path) -> None:
    assert ended("pass", tmp_path, idle=0.2) == "None False\n"


def test_the_process_that_is_forked_ends_to_start_anew_when_it_is_told_to(tmp_path: Path) -> None:
    assert ended("os.kill(os.getpid(), signal.SIGHUP)", tmp_path) == "None True\n"


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        ("(place / 'online').touch()", 60),
        ("message.connect(line.getsockname())", 60),
        ("os.kill(os.getpid(), signal.SIGHUP)", 60),
        ("pass", 1),
    ],
    ids=["until it is online", "until a message comes", "until it is to start anew", "for as long as it may"],
)
def test_the_imports_let_the_supernode_come_online_first(what: str, seconds: float, tmp_path: Path) -> None:
    script = "import os, pathlib, signal, socket, sys, threading\n"
    script += f"sys.path.insert(0, {str(FILES)!r}); import warm\n"
    script += f"place = pathlib.Path({str(tmp_path)!r})\n"
    script += "server = warm.Server(size='1M', at_once=1, idle=60, seconds=0)\n"
    script += "message, line = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)\n"
    script += "line.bind('\\0' + str(os.getpid()))\nline.listen()\n"
    script += f"def act():\n    print('now')\n    {what}\n"
    script += "threading.Timer(0.1, act).start()\n"
    script += f"server.let_go_first(place / 'online', line.fileno(), {seconds})\nprint('goes on')\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "now\ngoes on\n"


@pytest.mark.parametrize(
    "what",
    [
        "subprocess.run(['mount', '-t', 'tmpfs', 'none', place], check=True)",
        "subprocess.run(['mount', '-t', 'tmpfs', 'none', place / 'below'], check=True)",
        "subprocess.run(['umount', place.parent], check=True)",
    ],
    ids=["covered", "something below covered", "taken away"],
)
def test_the_process_that_is_forked_lets_go_of_a_disk_though_no_message_comes(what: str, tmp_path: Path) -> None:
    disk = tmp_path / "a disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=True)
    try:
        (disk / "data" / "below").mkdir(parents=True)
        assert ended(what, disk / "data") == "None True\n"
    finally:
        subprocess.run(["umount", "--recursive", str(disk)], capture_output=True, check=False)


def test_the_process_that_is_forked_stays_when_something_is_mounted_elsewhere(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "data-of-others"
    data.mkdir()
    other.mkdir()
    try:
        found = ended(f"subprocess.run(['mount', '-t', 'tmpfs', 'none', {str(other)!r}], check=True)", data, idle=1)
    finally:
        subprocess.run(["umount", str(other)], check=True)
    assert found == "None False\n"


@pytest.mark.parametrize(
    "what",
    [
        "place.rename(place.with_name('before'))",
        "place.rename(place.with_name('before')); place.mkdir()",
        "place.rmdir()",
    ],
    ids=["moved", "replaced", "taken away"],
)
def test_a_message_after_the_data_was_moved_or_replaced_is_not_done_by_a_fork_that_would_see_the_old_one(
    what: str, tmp_path: Path
) -> None:
    place = tmp_path / "the data"
    place.mkdir()
    assert ended(what, place, ask=True) == "b''\nNone True\n"


def test_a_fork_ends_with_all_that_python_does_at_the_end_but_take_the_modules_apart() -> None:
    script = f"import sys; sys.path.insert(0, {str(FILES)!r}); import warm, atexit, threading, time\n"
    script += "class Apart:\n    def __del__(self):\n        print('taken apart', flush=True)\n"
    script += "apart = Apart()\natexit.register(print, 'at the end')\n"
    script += "threading.Thread(target=lambda: (time.sleep(0.3), print('a thread'))).start()\n"
    script += "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nwarm.leave(3)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (3, "a thread\nat the end\n"), done.stderr


def test_the_modules_of_a_release_are_those_of_the_packages_that_it_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "release.lock").write_text("# target: x\n# requirements: numpy, scikit-learn>=1.7\nscipy==1\n")
    assert warm.of_the_release(tmp_path) == ["numpy", "sklearn"]
    assert warm.of_the_release(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["flwr-simulation", "flwr-clientapp"])
def test_a_program_without_a_socket_refuses_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(FILES / "relay.py")
    done = subprocess.run([sys.executable, "-IS", str(tmp_path / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name} may not run here: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_token_leaves_the_command_line_that_everybody_can_read() -> None:
    script = "import sys; sys.path.insert(0, sys.argv[1]); import relay; relay.hide(sys.argv);"
    script += "print(open('/proc/self/cmdline').read())"
    command = [sys.executable, "-IS", "-c", script, str(FILES), "--token", "only-for-the-instance", "--insecure"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "only-for-the-instance" not in shown
    assert "--insecure" in shown


# A run that is over -----------------------------------------------------------------------------------------


class Over(Exception):
    """As Flower says that a run is not running."""


class Fleet:
    """What connects a SuperNode to its SuperLink, with one run that can be stopped."""

    __name__ = "flwr.somewhere"

    def __init__(self) -> None:
        self.stopped = False
        self.sent: list[tuple[Any, ...]] = []
        self.dropped: list[str] = []

    @contextlib.contextmanager
    def http_request_response(self) -> Iterator[tuple[Any, ...]]:
        message = SimpleNamespace(metadata=SimpleNamespace(run_id=4711, message_id="m"))
        more = [lambda: None] * 4
        yield (7, lambda: (message, "tree"), lambda *words: self.sent.append(words), self.get_run, *more)

    def get_run(self, run: int) -> None:
        assert run == 4711
        if self.stopped:
            raise Over


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Fleet, tuple[Any, ...]]]:
    """A fleet with the watch in it, which looks all the time, and the functions that Flower calls."""
    made = Fleet()
    supernode.stand_in(
        made, Over, tmp_path, supernode.polls.Pace(supernode.polls.SUPERNODE), made.dropped.append, seconds=0.01
    )
    with made.http_request_response() as functions:
        yield made, functions


def noted(folder: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (folder / "4711").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return (folder / "4711").exists()


def test_a_run_that_is_stopped_while_its_message_is_worked_on_is_noted(
    fleet: tuple[Fleet, tuple[Any, ...]], tmp_path: Path
) -> None:
    made, (_, receive, *_) = fleet
    receive()
    assert not noted(tmp_path, 0.2)
    made.stopped = True
    assert noted(tmp_path, 10)


def test_a_run_whose_reply_was_sent_is_not_asked_for_any_more(
    fleet: tuple[Fleet, tuple[Any, ...]], tmp_path: Path
) -> None:
    made, (_, receive, send, *_) = fleet
    receive()
    send("message", "tree", 1.0)
    made.stopped = True
    assert not noted(tmp_path, 0.2)
    assert made.sent == [("message", "tree", 1.0)]


def test_a_message_that_the_supernode_has_dropped_is_told_when_it_asks_for_the_next_one(
    fleet: tuple[Fleet, tuple[Any, ...]],
) -> None:
    made, (_, receive, send, *_) = fleet
    receive()
    assert made.dropped == []
    receive()
    assert made.dropped == ["m"]
    send("message", "tree", 1.0)
    receive()
    assert made.dropped == ["m"]


def test_another_error_than_that_of_a_run_that_is_over_ends_nothing(tmp_path: Path) -> None:
    def fails(run: int) -> None:
        raise OSError("the SuperLink does not answer")

    watch = supernode.Watch(fails, Over, tmp_path)
    watch.begin(4711)
    assert not watch.look()


def test_the_other_programs_of_a_site_begin_when_its_supernode_is_connected(tmp_path: Path) -> None:
    made, online, polls = Fleet(), tmp_path / "online", supernode.polls
    supernode.stand_in(made, Over, tmp_path, polls.Pace({}), made.dropped.append, online=polls.Bell(online))
    begun = threading.Thread(target=polls.let_go_first, args=(str(online), 60))
    begun.start()
    assert begun.is_alive()
    with made.http_request_response():
        begun.join(10)
    assert not begun.is_alive()


def test_the_other_programs_of_a_site_begin_though_its_supernode_cannot_be_connected(tmp_path: Path) -> None:
    supernode.polls.let_go_first(str(tmp_path / "online"), 0.3)
    supernode.polls.let_go_first("", 60)


def test_the_installed_flower_has_the_places_for_the_watch() -> None:
    assert callable(getattr(importlib.import_module(supernode.PLACE), supernode.CONNECT))
    place, name = supernode.OVER
    assert issubclass(getattr(importlib.import_module(place), name), BaseException)


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("raise OSError('certificate has expired')", 1, "OSError: certificate has expired"),
        ("sys.exit(3)", 3, ""),
        ("None", 0, ""),
    ],
)
def test_a_supernode_that_ends_is_gone_though_a_thread_of_its_own_goes_on(ending: str, code: int, said: str) -> None:
    script = "import sys, threading, time; sys.path.insert(0, sys.argv[1]); import supernode\n"
    script += "def program():\n    threading.Thread(target=time.sleep, args=(600,)).start()\n"
    script += f"    {ending}\nsupernode.end_with(program)"
    command = [sys.executable, "-c", script, str(FILES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code
    assert said in done.stderr


def test_the_relay_says_no_more_once_the_run_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "OVER", str(tmp_path))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        relay.end_when_over(ours, seconds=0.01)("4711")
        theirs.settimeout(0.2)
        with pytest.raises(TimeoutError):
            theirs.recv(1)
        (tmp_path / "4711").touch()
        theirs.settimeout(10)
        assert theirs.recv(1) == b""
        theirs.sendall(b"x")  # what the instance still says is heard
        assert ours.recv(1) == b"x"


def test_a_clientapp_that_is_ended_ends_with_an_exception_which_flower_makes_a_reply_of() -> None:
    script = f"import sys; sys.path.insert(0, {str(FILES)!r}); import instance, os, time\n"
    script += "number = instance.prepare_end('flwr-clientapp')\n"
    script += "try:\n    os.kill(os.getpid(), number); time.sleep(60)\n"
    script += "except instance.AppEnded as ended:\n    print(ended)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "its run is over" in done.stdout
