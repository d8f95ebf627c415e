"""Eight threads of good and bad requests on one export: every answer is right, and memory is flat.

20 s by default; `make soak SECONDS=120` runs it longer and prints the figures.
"""

import io
import os
import resource
import threading
import time
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from fault_counts import COUNTS
from image_files import broken, encode, picture
from PIL import Image

THREADS = 8
SECONDS = float(os.environ.get("TFSEG_SOAK_SECONDS", "20"))


def call(signatures, name, **inputs):
    return signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})


def pixels(png):
    with Image.open(io.BytesIO(png)) as opened:
        return np.array(opened)


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


@pytest.fixture(scope="module")
def requests(exported, signatures):
    """Functions that make a request and hold its answer to what the Keras model gave."""
    images = [np.asarray(picture(51 + 13 * i, 77, seed=i).convert("RGB")) for i in range(4)]
    files = [encode(Image.fromarray(image), ("PNG", "JPEG")[i % 2]) for i, image in enumerate(images)]
    one_label = [exported.segmenter.segment(file, [4]).label_map for file in files]
    predicted = [exported.segmenter.segment(file) for file in files]
    damaged = list(broken().values())

    def same(mask, expected):
        assert mask.shape == expected.shape and (mask != expected).mean() < 0.002

    def send_bytes(rng):
        i, j = rng.integers(0, 4, 2)
        masks = call(signatures, "bytes", image_bytes=[files[i], files[j]], label=[4, 4])["mask_bytes"]
        same(pixels(masks[0].numpy()), one_label[i])
        same(pixels(masks[1].numpy()), one_label[j])

    def send_segment(rng):
        i = rng.integers(0, 4)
        answer = call(signatures, "segment", image_bytes=[files[i]])
        assert answer["labels"][0].numpy().tolist() == list(predicted[i].labels)
        same(pixels(answer["mask_bytes"][0].numpy()), predicted[i].label_map)

    def send_pixels(rng):
        i = 2 * rng.integers(0, 2)  # Of a PNG: a JPEG's pixels are others.
        same(call(signatures, "pixels", image=images[i][None], label=[4])["mask"][0].numpy(), one_label[i])

    def refused(said, name, **inputs):
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call(signatures, name, **inputs)
        assert said in " ".join(str(caught.value).split())

    def send_broken(rng):
        file, said = damaged[rng.integers(len(damaged))]
        refused(f"row 1: image_bytes: {said}", "bytes", image_bytes=[files[0], file], label=[4, 4])

    def send_wrong_label(rng):
        refused("row 0: label: 999; allowed are 1 to 5", "pixels", image=images[0][None], label=[999])

    def send_nan(rng):
        image = np.full((1, 40, 30, 3), np.nan, np.float32)
        refused("row 0: image: has values that are NaN", "serving_default", image=image, label=[1])

    return {
        "good": [send_bytes, send_segment, send_pixels],
        "bad": [send_broken, send_wrong_label, send_nan],
    }


def test_good_and_bad_requests_at_once(requests):
    counts, wrong, stop, lock = Counter(), [], threading.Event(), threading.Lock()

    def work(seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            kind = ("good", "bad")[rng.integers(2)]
            send = requests[kind][rng.integers(3)]
            try:
                send(rng)
            except BaseException as error:
                wrong.append(error)
                stop.set()
            with lock:
                counts[kind] += 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    memory, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end and not stop.wait(SECONDS / 40):
        memory.append(resident_mb())
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    assert min(counts["good"], counts["bad"]) >= THREADS
    COUNTS["requests answered rightly"] += counts["good"]
    COUNTS["bad requests refused"] += counts["bad"]
    # The first half fills arenas and caches.
    middle, last = np.median(memory[16:24]), np.median(memory[-8:])
    print(
        f"{THREADS} threads, {SECONDS:.0f} s: {counts['good']} good requests answered rightly, "
        f"{counts['bad']} bad ones refused; resident {memory[0]:.0f} MB at the start, {middle:.0f} in the "
        f"middle, {last:.0f} at the end"
    )
    assert last - middle < 60, memory
