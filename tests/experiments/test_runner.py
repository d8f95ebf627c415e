import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfseg.errors import InputError
from tfseg.experiments.runner import Job, Runner

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


def test_other_flags_recipe_or_data_are_refused(tmp_path):
    recipe = tmp_path / "recipe.cfg"
    recipe.write_text("--steps=1\n")
    one = job(tmp_path, "a")
    with_recipe = Job("r", "kind", (*one.argv, f"--flagfile={recipe}"), one.product, data="d1")
    run(tmp_path, one, with_recipe)
    with pytest.raises(InputError, match="a was finished with other flags"):
        Runner(tmp_path / "out", [job(tmp_path, "a", "pass")])
    with pytest.raises(InputError, match="r was finished with other flags, data"):
        Runner(tmp_path / "out", [Job("r", "kind", with_recipe.argv, one.product, data="d2")])
    recipe.write_text("--steps=2\n")
    with pytest.raises(InputError, match="another recipe"):
        Runner(tmp_path / "out", [with_recipe])


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
        "import pathlib, sys\n"
        "from tfseg.experiments.runner import Job, Runner\n"
        f"product = pathlib.Path({str(tmp_path / 'slow.txt')!r})\n"
        f"job = Job('slow', 'k', ('-c', {slow!r}), product)\n"
        f"Runner(pathlib.Path({str(tmp_path / 'out')!r}), [job]).run()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not (tmp_path / "out/jobs/slow.json").exists()
