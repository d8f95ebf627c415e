"""The wheel, installed into an environment of its own and used from another folder."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tfrecords.synthetic_scenes import SOURCE

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = {
    "tfseg": "tfseg",
    "tfrecords": "tfseg/tfrecords",
    "export": "tfseg/export",
    "configs": "tfseg/configs",
}
IN_ONE_PROCESS = """
import shlex, sys
import tfseg
from tfseg.__main__ import main
print(tfseg.__file__)
for line in sys.stdin:
    if status := main(shlex.split(line)):
        sys.exit(f"{line}: status {status}")
print([name for name in sys.modules if name in ("export", "tfrecords", "configs")])
"""
COUNTS = "--source_train=24 --target_train=40 --target_val=1 --target_test=8"
THINGS = "--images=drawn/folders/things/images --masks=drawn/folders/things/masks --domain=source"
RECORDS = "--label_map=labels.json --output_dir=records --workers=1"
SMALL = "--data_dir=records --model_dir=model --image_size=32 --resize_to=36 --steps=2 --batch_size=4"
NAMES = ",".join(SOURCE)
VALUES = ",".join(f"{number}:{name}" for number, name in enumerate(SOURCE, start=1))
SCRIPTS = f"""
build synthetic --output_dir=drawn --folders {COUNTS} --workers=2
label-map --names={NAMES} --domain=source --output=labels.json
label-map --from=drawn/folders/photographs --domain=target --label_map=labels.json --output=labels.json
"""
CHAIN = f"""
build folder {THINGS} {RECORDS} --mask_values={VALUES}
build folder --images=drawn/folders/photographs {RECORDS}
verify records --workers=1
train --flagfile=tfseg:small/tiny/attention.cfg --encoder_weights=none {SMALL}
train --flagfile=mine.cfg {SMALL}
predict --model_dir=model --label=fish --output_dir=predicted drawn/folders/test/images
export --model_dir=model --output_dir=exported
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    words = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([sys.executable, "-m", "pip", *words, REPOSITORY], check=True, timeout=120)
    (found,) = folder.glob("tfseg-*.whl")
    return found


@pytest.fixture(scope="module")
def bin_folder(wheel, tmp_path_factory):
    """Of an environment that holds the wheel, and takes all else from that of the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "--disable-pip-version-check"]
    words = ["install", "--quiet", "--no-index", "--no-deps", "--ignore-installed", wheel]
    subprocess.run([*pip, *words], check=True, timeout=120)
    return folder / "bin"


def run(*words, cwd, text=None):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_the_wheel_holds_one_package_with_every_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"tfseg"}
    wanted = {
        f"{inside}/{path.relative_to(REPOSITORY / folder).as_posix()}"
        for folder, inside in PACKAGES.items()
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted == {name for name in names if ".dist-info/" not in name}


def test_packages_import_each_other_by_names_that_an_installation_has():
    for folder in PACKAGES:
        for path in (REPOSITORY / folder).rglob("*.py"):
            found = re.search(r"^ *(from|import) (export|tfrecords)\b.*", path.read_text(), re.MULTILINE)
            assert found is None, f"{path}: {found[0]}"


def test_the_console_script_answers_without_tensorflow(bin_folder, tmp_path):
    done = run(bin_folder / "tfseg", cwd=tmp_path)
    assert done.returncode == 0 and "build folder" in done.stdout and "serve-files" in done.stdout
    done = run(bin_folder / "tfseg", "export", "--help", cwd=tmp_path)
    assert "usage: tfseg export --FLAG=VALUE" in done.stdout
    done = run(bin_folder / "tfseg", "bild", "folder", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean build folder?" in done.stderr
    done = run(bin_folder / "python", "-X", "importtime", "-m", "tfseg", "train", "--helpp", cwd=tmp_path)
    assert done.returncode == 2 and "absl.flags" in done.stderr
    assert not {"tensorflow", "keras", "numpy.linalg"} & {
        line.rpartition("|")[2].strip() for line in done.stderr.splitlines()
    }
    done = run(bin_folder / "python", "-c", "import tfrecords", cwd=tmp_path)
    assert "No module named 'tfrecords'" in done.stderr


def test_from_class_folders_to_an_export(bin_folder, tmp_path):
    for line in SCRIPTS.strip().splitlines():
        done = run(bin_folder / "tfseg", *line.split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    (tmp_path / "mine.cfg").write_text("--flagfile=tfseg:small/tiny/joint.cfg\n")
    done = run(bin_folder / "python", "-c", IN_ONE_PROCESS, cwd=tmp_path, text=CHAIN.strip())
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert Path(lines[0]).is_relative_to(bin_folder.parent)
    assert lines[-1] == "[]"
    assert "records: whole" in lines
    masks = {path.stem for path in (tmp_path / "predicted/masks").iterdir()}
    assert masks == {path.stem for path in (tmp_path / "drawn/folders/test/images").iterdir()}
    assert (tmp_path / "exported/1/saved_model.pb").is_file()
