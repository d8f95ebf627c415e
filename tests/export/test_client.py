"""The client against an export behind both interfaces, on disk, and against servers that fail."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from image_files import encode, picture
from PIL import Image
from serving_server import Server
from small_export import REPOSITORY

from export import client
from tfseg.data.voc_colors import palette

PATIENT = "--timeout=300"


@pytest.fixture(scope="module")
def server(exported):
    own = Server(exported.version_dir)
    with own.running() as (url, grpc):
        own.url, own.grpc = url, grpc
        yield own


@pytest.fixture(autouse=True)
def well(request):
    yield
    if "server" in request.fixturenames:
        own = request.getfixturevalue("server")
        own.refusals, own.delay, own.calls = 0, 0.0, 0


@pytest.fixture
def photographs(tmp_path):
    """Files of several kinds and sizes."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb = [picture(51 + 9 * i, 77, seed=i).convert("RGB") for i in range(4)]
    (folder / "a.png").write_bytes(encode(rgb[0], "PNG"))
    (folder / "b.jpg").write_bytes(encode(rgb[1], "JPEG", exif=exif))
    (folder / "c.webp").write_bytes(encode(rgb[2], "WEBP", lossless=True))
    (folder / "d.bmp").write_bytes(encode(rgb[3], "BMP"))
    return sorted(folder.iterdir())


def read_mask(path):
    with Image.open(path) as opened:
        assert opened.mode == "P"
        np.testing.assert_array_equal(np.reshape(opened.getpalette(), (-1, 3))[:6], palette()[:6])
        return np.array(opened)


def assert_mask(path, exported, image, labels):
    expected = exported.segmenter.segment(image, labels).label_map
    mask = read_mask(path)
    assert mask.shape == expected.shape and (mask != expected).mean() < 0.002


@pytest.mark.parametrize("way", ["url", "grpc", "model"])
def test_a_batch_of_files_with_predicted_labels(server, exported, photographs, tmp_path, capsys, way):
    where = {"url": server.url, "grpc": server.grpc, "model": exported.version_dir.parent}[way]
    words = [f"--{way}={where}", f"--output_dir={tmp_path / 'out'}", "--overlay", *map(str, photographs)]
    assert client.main([PATIENT, *words]) == 0
    out = capsys.readouterr().out
    for path in photographs:
        assert_mask(tmp_path / f"out/{path.stem}.png", exported, path, None)
        found = exported.segmenter.segment(path)
        with Image.open(tmp_path / f"out/{path.stem}.overlay.png") as overlay:
            assert overlay.size == found.label_map.shape[::-1]
            tinted = np.abs(np.asarray(overlay).astype(int) - found.image).max(axis=-1)
            assert tinted[found.label_map > 0].mean() > 20
        for label in found.labels:
            assert f"{exported.label_map.label(label).name} " in out
    assert "probability 0." in out or "probability 1." in out


@pytest.mark.parametrize("way", ["url", "grpc", "model"])
def test_named_labels(server, exported, photographs, tmp_path, way):
    where = {"url": server.url, "grpc": server.grpc, "model": exported.version_dir}[way]
    target = tmp_path / "mask.png"
    words = ["--label=hound", "--label=4", f"--image={photographs[1]}", f"--output={target}"]
    assert client.main([PATIENT, f"--{way}={where}", *words]) == 0
    assert_mask(target, exported, photographs[1], [1, 4])


def test_one_file_is_enough(server, photographs, tmp_path):
    """Copied away, without tfseg and without TensorFlow."""
    shutil.copy(REPOSITORY / "export/client.py", tmp_path / "client.py")
    code = (
        "import sys, client; status = client.main(sys.argv[1:]);"
        "names = {name.split('.')[0] for name in sys.modules};"
        "print(sorted(names & {'tensorflow', 'keras', 'tfseg', 'export', 'absl', 'grpc', 'requests'}));"
        "sys.exit(status)"
    )
    words = [PATIENT, f"--url={server.url}", f"--image={photographs[0]}", f"--output={tmp_path}/mask.png"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert read_mask(tmp_path / "mask.png").shape == (51, 77)


@pytest.mark.parametrize("way", ["url", "grpc", "model"])
def test_a_refused_file_does_not_stop_the_others(server, exported, photographs, tmp_path, capsys, way):
    """Pillow opens this file, the server does not."""
    said = "has 9000x1 pixels; allowed are 25000000 in all"
    long = tmp_path / "long.png"
    Image.new("RGB", (9000, 1)).save(long)
    where = {"url": server.url, "grpc": server.grpc, "model": exported.version_dir}[way]
    text = tmp_path / "text.jpg"
    text.write_bytes(b"hello")
    files = [photographs[0], long, text, photographs[1]]
    words = [f"--{way}={where}", "--label=cat", f"--output_dir={tmp_path}/out", *map(str, files)]
    status = client.main([PATIENT, *words])
    err = capsys.readouterr().err
    assert status == client.SOME_REFUSED
    assert f"error: {long}: refused: image_bytes: {said}" in err
    assert f"error: {text}: cannot be read: it is damaged, or no image of a known format" in err
    assert err.count("\n") == 2
    for path in (photographs[0], photographs[1]):
        assert_mask(tmp_path / f"out/{path.stem}.png", exported, path, [2])
    assert not (tmp_path / "out/long.png").exists()


@pytest.mark.parametrize("way", ["url", "grpc"])
def test_an_unknown_label_is_told_once(server, photographs, tmp_path, capsys, way):
    where = {"url": server.url, "grpc": server.grpc}[way]
    words = [f"--{way}={where}", "--label=dgo", f"--output_dir={tmp_path}", *map(str, photographs)]
    assert client.main(words) == client.BAD_CALL
    err = capsys.readouterr().err
    assert "no label is called dgo; allowed are the ids 1 to 5 and the names dog, cat" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("way", ["url", "grpc"])
def test_an_unavailable_server_is_asked_again(server, photographs, tmp_path, way):
    where = {"url": server.url, "grpc": server.grpc}[way]
    words = [f"--{way}={where}", f"--image={photographs[0]}", f"--output={tmp_path / 'm.png'}"]
    server.refusals = 2
    assert client.main([PATIENT, *words]) == 0
    assert server.calls == 3
    server.refusals, server.calls = 99, 0
    assert client.main([PATIENT, *words]) == client.BAD_CALL
    assert server.calls == 1 + client.RETRIES


@pytest.mark.parametrize("way", ["url", "grpc"])
def test_a_refusal_is_not_asked_again(server, photographs, tmp_path, way):
    where = {"url": server.url, "grpc": server.grpc}[way]
    words = [f"--{way}={where}", "--label=dgo", f"--image={photographs[0]}", f"--output={tmp_path / 'm.png'}"]
    assert client.main(words) == client.BAD_CALL
    assert server.calls == 1


@pytest.mark.parametrize("way", ["url", "grpc"])
def test_a_late_answer_is_given_up(server, photographs, tmp_path, capsys, way):
    where = {"url": server.url, "grpc": server.grpc}[way]
    server.delay = 3.0
    words = [f"--{way}={where}", f"--image={photographs[0]}", f"--output={tmp_path / 'm.png'}"]
    start = time.monotonic()
    assert client.main([*words, "--timeout=0.5"]) == client.BAD_CALL
    assert time.monotonic() - start < 3
    err = capsys.readouterr().err
    assert "no answer in time" in err or "DEADLINE_EXCEEDED" in err
    assert not (tmp_path / "m.png").exists()


@contextlib.contextmanager
def answering(status, data, pause=0.0, length=None):
    """A server that says one thing, whatever it is asked; `pause` between bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(length or len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):
                for byte in data if pause else [data]:
                    self.wfile.write(bytes([byte]) if pause else byte)
                    time.sleep(pause)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/models/tfseg"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "data", "said"),
    [
        (
            404,
            b'{"error": "Servable not found for request: Latest(m)"}',
            "answers 404: Servable not found",
        ),
        (500, b"<html>oops</html>", "answers 500: 500 Internal Server Error"),
        (200, b"<html>hello</html>", "the answer is not TensorFlow Serving's"),
        (200, b"[1, 2]", "the answer is not TensorFlow Serving's"),
        (200, b'{"outputs": {"labels": [[1]]}}', "is not that of an export of tfseg"),
        (
            200,
            json.dumps(
                {"outputs": {"labels": [[1]], "names": [["a"]], "mask_bytes": [{"b64": "aGVsbG8="}]}}
            ).encode(),
            "is not that of an export of tfseg",
        ),
        (
            400,
            b'{"error": "Serving signature key \\"segment\\" not found."}',
            "name labels with --label: it was exported without a classifier",
        ),
    ],
)
def test_what_a_server_may_say_instead(photographs, tmp_path, capsys, status, data, said):
    with answering(status, data) as url:
        words = [f"--url={url}", f"--image={photographs[0]}", f"--output={tmp_path / 'm.png'}"]
        assert client.main(words) == client.BAD_CALL
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "m.png").exists()


def test_a_server_that_dawdles_or_breaks_off(photographs, tmp_path, capsys):
    words = [f"--image={photographs[0]}", f"--output={tmp_path / 'm.png'}", "--timeout=1"]
    with answering(200, b" " * 1000, pause=0.1) as url:
        start = time.monotonic()
        assert client.main([f"--url={url}", *words]) == client.BAD_CALL
        assert time.monotonic() - start < 10
    assert "no answer in time" in capsys.readouterr().err
    with answering(200, b"{", length=100) as url:
        assert client.main([f"--url={url}", *words]) == client.BAD_CALL
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("way", ["url", "grpc"])
def test_nobody_there(photographs, tmp_path, capsys, way):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"http://127.0.0.1:{port}/v1/models/tfseg" if way == "url" else f"127.0.0.1:{port}"
    words = [f"--image={photographs[0]}", f"--output={tmp_path / 'm.png'}", "--timeout=5"]
    assert client.main([f"--{way}={where}", *words]) == client.BAD_CALL
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "m.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image=a"], "give one of --url, --grpc and --model"),
        (["--model=a", "--url=http://b", "--image=a"], "give one of --url, --grpc and --model"),
        (["--url=http://b/v1/models/m"], "no image given"),
        (["--url=http://b/v1/models/m", "--image=a"], "give one of --output and --output_dir"),
        (["--url=http://b/v1/models/m", "a", "b", "--output=m.png"], "use --output_dir"),
        (["--url=ftp://host/x", "--image=a", "--output=m.png"], "must be as in http://HOST"),
        (["--model={tmp}", "--image=a", "--output=m.png"], "holds no SavedModel"),
        (["--model=a", "--image=a", "--output=m", "--background_factor=1"], "is decided by the export"),
    ],
)
def test_wrong_words(tmp_path, capsys, words, said):
    assert client.main([word.format(tmp=tmp_path) for word in words]) == client.BAD_CALL
    err = capsys.readouterr().err
    assert said in err and err.startswith("error: ") and err.count("\n") == 1


def test_flags_can_come_from_a_file(tmp_path, capsys):
    (tmp_path / "call.cfg").write_text("# the server\n--url=ftp://host/x\n--output=m.png\n")
    assert client.main([f"--flagfile={tmp_path / 'call.cfg'}", "--image=a"]) == client.BAD_CALL
    assert "must be as in http://HOST" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        client.main(["--no_such_flag=1"])
    assert caught.value.code == 2
    assert "no_such_flag" in capsys.readouterr().err


def test_colours_are_vocs():
    np.testing.assert_array_equal(np.reshape(client.palette(), (-1, 3)), palette())
