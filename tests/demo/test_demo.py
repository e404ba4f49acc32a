"""The main job, judged as a user would: by its exit code, its summary, and what lies at the origin.

The whole demo runs once, shortened. The judge itself is tried on a small origin that is then damaged, because
a check that cannot fail proves nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("av")
pytest.importorskip("aiohttp")
pytest.importorskip("rich")
pytest.importorskip("click")

from click.testing import CliRunner
from rich.console import Console

from overspill import cli
from overspill.cli import program
from overspill.demo import run as demo_run
from overspill.demo.encoder import EncoderOrder, encode
from overspill.demo.facts import Facts, Tiers, summary_fields, summary_lines
from overspill.demo.journal import Entry, Journal, read_journal
from overspill.demo.places import Places
from overspill.demo.plan import Plan
from overspill.demo.segment import PLAYLIST_NAME, kind_of
from overspill.demo.spool import Spool
from overspill.demo.verify import Verdict, verify
from overspill.demo.view import LiveView, PlainView

PLAN = Plan.from_seed(7, duration_s=8, streams=3)


@pytest.mark.slow
def test_everything_arrives_although_the_origin_fails_and_the_queue_is_killed(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "overspill.demo", "--duration", "8", "--seed", "7", "--json", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(ran.stdout)
    assert told["ok"] and told["lost"] == 0 and told["problems"] == []
    assert told["queued"] == told["on_origin"] == told["segments"] + told["playlists"] > 0
    assert told["spilled"] > 0 and told["peak_disk_items"] > 0
    assert told["kills"] == 2 and told["recovered"] > 0
    assert told["outages"] == 1 and told["requeued"] > 0
    assert told["out_of_order"] == told["unexpected"] == told["dropped"] == told["quarantined"] == 0
    assert told["frames_decoded"] == told["frames_encoded"] > 0
    assert told["peak_resident_bytes"] > told["start_resident_bytes"] > 0
    assert list(tmp_path.iterdir()) == []  # it cleans up behind itself


@pytest.mark.slow
def test_interrupted_it_says_stopped_and_leaves_nothing_behind(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "overspill.demo", "--duration", "30", "--dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    for line in running.stdout:  # plain lines, as it is piped
        assert "\x1b" not in line
        if "stored" in line and "stored    0" not in line:
            break
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=20)
    assert (running.returncode, errors) == (cli.INTERRUPTED, "stopped\n")
    assert list(tmp_path.iterdir()) == []


# The judge, on a small origin that has everything, and then on one that was damaged.


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """What the encoder really makes, and an origin that got all of it, without any queue in between."""
    places = Places(str(tmp_path_factory.mktemp("delivered")))
    encode_quietly(EncoderOrder(parent=os.getpid(), places=places, streams=PLAN.streams[:2], duration_s=1.0))
    spool = Spool(places.spool, [])
    with Journal(places.journal) as journal:
        for stream in PLAN.streams[:2]:
            (places.store / stream.name).mkdir(parents=True)
            for waiting in spool.waiting(stream.name):
                body = waiting.path.read_bytes()
                (places.store / stream.name / waiting.name).write_bytes(body)
                sha256 = hashlib.sha256(body).hexdigest()
                journal.note(Entry(stream.name, waiting.name, kind_of(waiting.name), sha256, len(body)))
    return places


def encode_quietly(order: EncoderOrder) -> None:
    """The encoder reports on file descriptor 1; that is not ours to fill."""
    said = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    try:
        encode(order)
    finally:
        os.dup2(said, 1)
        os.close(silence)
        os.close(said)


@pytest.fixture
def places(delivered: Places, tmp_path: Path) -> Places:
    """A copy of it, to be damaged."""
    copy = Places(str(tmp_path / "run"))
    for one, other in ((delivered.manifest, copy.manifest), (delivered.journal, copy.journal)):
        other.parent.mkdir(parents=True)
        shutil.copy(one, other)
    shutil.copytree(delivered.store, copy.store)
    return copy


def judge(places: Places) -> Verdict:
    return verify(manifest=places.manifest, store=places.store, journal=places.journal)


def test_a_complete_origin_passes(places: Places) -> None:
    verdict = judge(places)
    assert verdict.ok, verdict.problems
    assert verdict.expected == verdict.identical > 4
    assert verdict.frames_encoded == verdict.frames_decoded > 100


def lose_a_segment(places: Places) -> None:
    (places.store / "premium-1" / "000002.ts").unlink()


def lose_a_stream(places: Places) -> None:
    shutil.rmtree(places.store / "normal-1")


def lose_the_playlist(places: Places) -> None:
    (places.store / "premium-1" / PLAYLIST_NAME).unlink()


def flip_a_bit(places: Places) -> None:
    path = places.store / "normal-1" / "000001.ts"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def cut_a_segment(places: Places) -> None:
    path = places.store / "normal-1" / "000001.ts"
    path.write_bytes(path.read_bytes()[:-188])


def add_a_stranger(places: Places) -> None:
    (places.store / "normal-1" / "999999.ts").write_bytes(b"nobody made this")


def rewrite(path: Path, change: Callable[[list[Entry]], None]) -> None:
    entries = list(read_journal(path))
    change(entries)
    path.unlink()
    with Journal(path) as journal:
        for entry in entries:
            journal.note(entry)


def swap_two_arrivals(places: Places) -> None:
    def swap(entries: list[Entry]) -> None:
        entries[1], entries[2] = entries[2], entries[1]

    rewrite(places.journal, swap)


def forget_the_last_arrival(places: Places) -> None:
    rewrite(places.journal, lambda entries: entries.__delitem__(-1))


def end_the_manifest_early(places: Places) -> None:
    rewrite(places.manifest, lambda entries: entries.__delitem__(-1))


def make_nothing(places: Places) -> None:
    rewrite(places.manifest, lambda entries: entries.__delitem__(slice(0, -1)))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lose_a_segment, "premium-1/000002.ts is missing"),
        (lose_a_stream, "normal-1/000000.ts is missing"),
        (lose_the_playlist, "premium-1/index.m3u8 is missing"),
        (flip_a_bit, "normal-1/000001.ts differs"),
        (cut_a_segment, "normal-1/000001.ts differs"),
        (add_a_stranger, "normal-1/999999.ts is at the origin, but nobody made it"),
        (swap_two_arrivals, "premium-1 did not arrive in order: at place 1"),
        (forget_the_last_arrival, "normal-1 did not arrive in order"),
        (end_the_manifest_early, "did not finish its manifest"),
        (make_nothing, "made nothing"),
    ],
)
def test_a_damaged_origin_fails_and_is_named(places: Places, damage: Callable[[Places], None], named: str) -> None:
    damage(places)
    verdict = judge(places)
    assert not verdict.ok
    assert any(named in problem for problem in verdict.problems), verdict.problems


def test_a_segment_that_arrives_twice_is_no_fault(places: Places) -> None:
    rewrite(places.journal, lambda entries: entries.insert(3, entries[2]))
    verdict = judge(places)
    assert verdict.ok and verdict.repeated == 1


def test_a_missing_segment_makes_the_command_fail_and_say_so(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_a_segment(places)
    outcome = demo_run.Outcome(Facts(PLAN), judge(places), kept=Path(places.root))
    monkeypatch.setattr(demo_run, "run_demo", lambda plan, **options: outcome)
    ran = CliRunner().invoke(cli.main, ["demo"])
    assert ran.exit_code == 1
    assert "lost         1" in ran.output and "premium-1/000002.ts is missing at the origin" in ran.output
    told = CliRunner().invoke(cli.main, ["demo", "--json"])
    assert told.exit_code == 1 and json.loads(told.stdout)["lost"] == 1


# The command and its views.


def test_a_missing_extra_is_a_sentence_that_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "find_spec", lambda name: None if name == "av" else name)
    ran = CliRunner().invoke(cli.main, ["demo"])
    assert ran.exit_code == 2
    assert 'needs av: pip install "overspill[demo]"' in ran.output


def test_help_ends_in_an_example() -> None:
    for arguments in (["--help"], ["demo", "--help"]):
        ran = CliRunner().invoke(cli.main, arguments)
        assert ran.exit_code == 0 and ran.output.splitlines()[-2].strip() == "Example:"


def test_the_seed_decides_the_plan() -> None:
    assert Plan.from_seed(7, duration_s=8, streams=3) == PLAN
    assert Plan.from_seed(8, duration_s=8, streams=3) != PLAN
    assert [stream.premium for stream in PLAN.streams] == [True, False, False]
    assert PLAN.outage_at_s < PLAN.kill_in_outage_at_s < PLAN.outage_ends_s < PLAN.kill_in_upload_at_s < PLAN.duration_s


def busy_facts() -> Facts:
    facts = Facts(Plan.from_seed(1, duration_s=8, streams=12), encoding=True, mirror_is_up=True)
    facts.tiers = Tiers(waiting=9999, memory_items=24, memory_bytes=1 << 30, disk_items=9999, disk_bytes=1 << 34)
    facts.requeued = {"503": 9999, "broken off": 999, "refused": 9999}
    facts.recovered = [0, 999, 999]
    facts.happened = [(99.9, "SIGKILL to the queue's process; 9999 waiting, 9999 on disk only")] * 12
    return facts


def test_the_live_view_fits_a_terminal_of_80_by_24() -> None:
    console = Console(width=80, height=24, force_terminal=True)
    facts = busy_facts()
    lines = console.render_lines(LiveView(console, memory_size=24).draw(facts), pad=False)
    assert len(lines) <= 23
    assert all(sum(segment.cell_length for segment in line) < 80 for line in lines)
    assert all(len(line) <= 80 for line in summary_lines(facts, Verdict()))
    assert summary_fields(facts, Verdict())["recovered"] == 1998


def test_the_plain_view_says_every_event_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView(Console(width=80))
    facts = busy_facts()
    view.refresh(facts)
    view.refresh(facts)
    said = capsys.readouterr().out
    assert said.count("SIGKILL") == 12 and said.count("made") == 1 and "\x1b" not in said
