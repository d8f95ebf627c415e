import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfseg.cli import format_seconds
from tfseg.errors import InputError
from tfseg.paper import runner as runner_module
from tfseg.paper.runner import Job, Runner

WRITE = "import sys; open(sys.argv[1], 'a').write('x')"


def job(folder, name, code=WRITE, after=(), kind="kind", data=""):
    product = folder / f"{name.replace('/', '-')}.txt"
    return Job(name, kind, ("-c", code, str(product)), product, after, data)


def run(folder, *jobs):
    runner = Runner(folder / "out", jobs)
    return runner, runner.run()


def test_finished_jobs_are_not_run_again(tmp_path, capsys):
    jobs = [job(tmp_path, "a"), job(tmp_path, "deep/b", after=("a",))]
    runner, whole = run(tmp_path, *jobs)
    assert whole
    assert sorted(runner.seconds) == ["a", "deep/b"]
    assert "2 runs, 0 of them finished before" in capsys.readouterr().out
    more = job(tmp_path, "c")
    runner, whole = run(tmp_path, *jobs, more)
    assert whole
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "c.txt").read_text() == "x"
    printed = capsys.readouterr().out
    assert "3 runs, 2 of them finished before" in printed
    assert "[3/3] c" in printed
    assert [entry["error"] for entry in runner.summary()] == [None] * 3
    assert all(entry["seconds"] >= 0 for entry in runner.summary())


def test_what_has_lost_its_product_is_run_again(tmp_path):
    one = job(tmp_path, "a")
    run(tmp_path, one)
    one.product.unlink()
    run(tmp_path, one)
    assert one.product.read_text() == "x"


def test_several_machines_are_refused(tmp_path, monkeypatch):
    """Each of them would run all jobs, and each training would wait for the other."""
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}}')
    with pytest.raises(InputError, match=r"TF_CONFIG: .*one machine; unset it"):
        run(tmp_path, job(tmp_path, "a"))
    assert not (tmp_path / "a.txt").exists()


def test_a_crash_is_contained(tmp_path, capfd):
    boom = "import os, sys; print('about to fall', flush=True); os.abort()"
    jobs = [
        job(tmp_path, "a", boom),
        job(tmp_path, "b", after=("a",)),
        job(tmp_path, "c", after=("b",)),
        job(tmp_path, "d"),
        job(tmp_path, "e", "import sys; print('x\\rlast words'); sys.exit(3)"),
        job(tmp_path, "f", "pass"),
    ]
    runner, whole = run(tmp_path, *jobs)
    assert not whole
    assert list(runner.seconds) == ["d"]
    errors = {entry["name"]: entry["error"] for entry in runner.summary()}
    assert "about to fall" in errors["a"] and str(tmp_path / "out/jobs/a.log") in errors["a"]
    assert errors["b"] == "not started: a failed"
    assert errors["c"] == "not started: b failed"
    assert errors["e"].startswith("status 3: last words")
    assert "did not write" in errors["f"]
    assert "failed: a: status -6" in capfd.readouterr().err
    # Mended, all that is missing is made up.
    runner, whole = run(tmp_path, job(tmp_path, "a"), *jobs[1:4])
    assert whole
    assert (tmp_path / "d.txt").read_text() == "x"


def chain(folder, recipe):
    """Jobs a <- b <- c, and d alone; a reads a flagfile."""
    jobs = [job(folder, name, after=after) for name, after in (("b", ("a",)), ("c", ("b",)), ("d", ()))]
    one = job(folder, "a")
    first = Job("a", "kind", (*one.argv, f"--flagfile={recipe}"), one.product)
    return [first, *jobs]


def runs(folder):
    """Returns how often each job ran: once for what is there, once for each result that was set aside."""
    return {name: len(list(folder.glob(f"{name}.txt*"))) for name in "abcd"}


@pytest.fixture
def finished(tmp_path):
    """A finished chain, whose recipe reads a nested flagfile."""
    (tmp_path / "nested.cfg").write_text("--steps=1\n# comment\n")
    recipe = tmp_path / "recipe.cfg"
    recipe.write_text(f"--flagfile={tmp_path / 'nested.cfg'}\n--seed=1\n")
    assert run(tmp_path, *chain(tmp_path, recipe))[1]
    return tmp_path, recipe


def test_an_edited_nested_flagfile_runs_what_depends_on_it(finished, capsys):
    folder, recipe = finished
    (folder / "nested.cfg").write_text("--steps=1\n# another comment\n")
    assert run(folder, *chain(folder, recipe))[1]
    assert runs(folder) == {"a": 1, "b": 1, "c": 1, "d": 1}
    (folder / "nested.cfg").write_text("--steps=2\n")
    capsys.readouterr()
    assert run(folder, *chain(folder, recipe))[1]
    assert "4 runs, 1 of them finished before" in capsys.readouterr().out
    assert runs(folder) == {"a": 2, "b": 2, "c": 2, "d": 1}
    assert (folder / "a.txt").read_text() == (folder / "a.txt.replaced-1").read_text() == "x"
    (folder / "nested.cfg").unlink()
    with pytest.raises(InputError, match=r"nested\.cfg"):
        run(folder, *chain(folder, recipe))


def test_a_job_run_again_runs_what_depends_on_it(finished):
    folder, recipe = finished
    (folder / "b.txt").unlink()
    runner, whole = run(folder, *chain(folder, recipe))
    assert whole
    assert runs(folder) == {"a": 1, "b": 1, "c": 2, "d": 1}
    assert runner.products() == {folder / f"{name}.txt" for name in "abcd"}


def test_results_of_an_earlier_run_are_no_products(finished):
    folder, recipe = finished
    first, *others = chain(folder, recipe)
    runner, whole = run(folder, Job("a", "kind", ("-c", "raise SystemExit(3)"), first.product), *others)
    assert not whole
    assert (folder / "c.txt").exists()
    assert runner.products() == {folder / "d.txt"}


def test_other_words_or_data_are_other_jobs(tmp_path):
    one = job(tmp_path, "a")
    keys = {
        one.key(),
        one.key(["run 1"]),
        one.key(["run 2"]),
        job(tmp_path, "a", data="d").key(),
        job(tmp_path, "a", "pass").key(),
    }
    assert len(keys) == 5


def test_an_interrupted_job_goes_on_unless_its_key_has_changed(tmp_path):
    boom = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit('1' not in sys.argv[2:])"
    product = tmp_path / "a.txt"
    for word in ("0", "0"):
        run(tmp_path, Job("a", "kind", ("-c", boom, str(product), word), product))
    assert product.read_text() == "xx"  # under one key, the second goes on from the first
    run(tmp_path, Job("a", "kind", ("-c", boom, str(product), "1"), product))
    assert product.read_text() == "x"
    assert (tmp_path / "a.txt.replaced-1").read_text() == "xx"


def test_damaged_notes_are_as_none(tmp_path):
    one = job(tmp_path, "a")
    run(tmp_path, one)
    (tmp_path / "out/jobs/a.json").write_text('{"seconds": 1')
    _, whole = run(tmp_path, one)
    assert whole
    assert one.product.read_text() == "xx"


def test_time_left_is_that_of_jobs_of_the_kind(tmp_path, capsys):
    jobs = [job(tmp_path, str(i), kind=kind) for i, kind in enumerate(["slow", "fast", "slow", "new"])]
    run(tmp_path, *jobs[:2])
    for name, seconds in (("0", 600), ("1", 60)):
        note = tmp_path / f"out/jobs/{name}.json"
        note.write_text(json.dumps({**json.loads(note.read_text()), "seconds": seconds}))
    capsys.readouterr()
    run(tmp_path, *jobs)
    # 600 s for the slow one, the mean of 600 and 60 for the one of a new kind.
    assert "[3/4] 2 (time left in all: 15.5 min)" in capsys.readouterr().out


def test_ctrl_c_ends_the_job_too_and_the_rest_goes_on_later(tmp_path):
    script = tmp_path / "script.py"
    slow = f"import os, time, pathlib; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); "
    slow += "time.sleep(60)"
    script.write_text(
        "import dataclasses, pathlib, sys\n"
        "from tfseg import cli\n"
        "from tfseg.paper.runner import Job, Runner\n"
        "@dataclasses.dataclass\nclass Options: pass\n"
        f"product = pathlib.Path({str(tmp_path / 'slow.txt')!r})\n"
        f"job = Job('slow', 'k', ('-c', {slow!r}), product)\n"
        f"run = lambda options: Runner(pathlib.Path({str(tmp_path / 'out')!r}), [job]).run()\n"
        "sys.exit(cli.run('command', 'Runs.', Options, run))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, env=environment, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "interrupted: 0 of 1 runs are finished; the same command goes on\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert "run" not in json.loads((tmp_path / "out/jobs/slow.json").read_text())


def test_a_process_that_will_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(runner_module, "_GRACE_SECONDS", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); "
    deaf += "time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    process.stdout.readline()
    runner_module._end(process)
    assert process.returncode == -signal.SIGKILL


def test_durations_are_for_people():
    assert [format_seconds(s) for s in (5, 150, 9000, None)] == ["5 s", "2.5 min", "2.5 h", "unknown"]
