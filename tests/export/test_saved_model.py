"""The graph of an export: what TensorFlow Serving can run, for each network."""

import in_process
import numpy as np
import pytest
import tensorflow as tf
from image_files import encode, picture
from PIL import Image
from small_export import CONFIG, LABEL_MAP, make_network
from tensorflow.core.protobuf import saved_model_pb2

from export import saved_model
from export.publish import export_model
from tfseg.inference.networks import KerasNetwork
from tfseg.inference.segmenter import Segmenter
from tfseg.model_dir import ModelDir
from tfseg.models import build_classifier


def test_the_graph_needs_neither_python_nor_xla(exported):
    """TensorFlow Serving has neither (DESIGN 4)."""
    saved = saved_model_pb2.SavedModel.FromString((exported.version_dir / "saved_model.pb").read_bytes())
    for graph in saved.meta_graphs:
        library = graph.graph_def.library.function
        nodes = [*graph.graph_def.node, *(node for function in library for node in function.node_def)]
        operations = {node.op for node in nodes}
        assert "Conv2D" in operations and len(nodes) > 100
        assert not {op for op in operations if "PyFunc" in op or op.startswith("Xla")}
        for owner in [*nodes, *library]:
            for key, value in owner.attr.items():
                assert not (key in ("_XlaMustCompile", "_noinline_xla") and value.b), owner


@pytest.mark.parametrize("name", ["baselinenet", "decouplednet"])
def test_baselines_are_exported_alike(name, tmp_path):
    network = make_network(name)
    directory = ModelDir(tmp_path / "model", name, CONFIG, LABEL_MAP)
    assert export_model(directory, network, None, tmp_path / "out/1").difference <= 1e-5
    loaded = tf.saved_model.load(str(tmp_path / "out/1"))
    image = np.random.default_rng(1).integers(0, 256, (1, 51, 77, 3), np.uint8)
    found = loaded.signatures["labels"](image=tf.constant(image), labels=tf.constant([[1, 4]]))
    expected = Segmenter(KerasNetwork(network), LABEL_MAP).segment(image[0], [1, 4])
    assert (found["label_map"][0] == expected.label_map).numpy().mean() > 0.998


def test_the_recipe_for_photographs_is_exported_alike(tmp_path):
    """Stretched images, mirrored borders, standardised features of length 1, class activation maps."""
    config = CONFIG.replace(
        image_fit="stretch",
        encoder_padding="symmetric",
        feature_norm="standardize",
        feature_scale=0.3,
        unit_features=True,
        classifier_units=0,
        score_pool="mean",
    )
    network, classifier = make_network(config=config), build_classifier(config)
    rng = np.random.default_rng(2)
    for parent in (network.get_layer("attention"), classifier):
        layer = parent.get_layer("conv5_3_scaled")
        layer.mean.assign(rng.uniform(0, 20, layer.mean.shape))
        layer.stddev.assign(rng.uniform(1, 9, layer.stddev.shape))
    directory = ModelDir(tmp_path / "model", "transfernet", config, LABEL_MAP)
    assert export_model(directory, network, classifier, tmp_path / "out/1").difference <= 1e-5
    loaded = tf.saved_model.load(str(tmp_path / "out/1"))
    segmenter = Segmenter(KerasNetwork(network, classifier, image_fit="stretch"), LABEL_MAP)
    for size in ((51, 77), (90, 40)):
        image = np.asarray(picture(*size, seed=3).convert("RGB"))
        found = loaded.signatures["labels"](image=tf.constant(image[None]), labels=tf.constant([[1, 4]]))
        expected = segmenter.segment(image, [1, 4])
        assert len(np.unique(expected.label_map)) > 1
        assert (found["label_map"][0] == expected.label_map).numpy().mean() > 0.998
        file = encode(Image.fromarray(image), "PNG")
        answer = loaded.signatures["segment"](image_bytes=tf.constant([file]))
        expected = segmenter.segment(image)
        assert answer["labels"][0].numpy().tolist() == list(expected.labels)
        mask = tf.io.decode_png(answer["mask_bytes"][0])[..., 0].numpy()
        assert mask.shape == size and (mask == expected.label_map).mean() > 0.998


def test_the_segmenter_takes_an_export_for_its_model(exported):
    """Images are encoded once and may have several labels."""
    over_export = Segmenter.load(exported.version_dir)
    images = [np.random.default_rng(i).integers(0, 256, (40 + 9 * i, 51, 3), np.uint8) for i in range(3)]
    for labels in ([2, 5, 1], None):
        ours = list(exported.segmenter.segment_many(images, labels, batch_size=4))
        theirs = list(over_export.segment_many(images, labels, batch_size=4))
        for one, other in zip(ours, theirs, strict=True):
            assert one.labels == other.labels
            np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-5)


def test_an_older_checkpoint_can_be_chosen(tmp_path):
    directory = ModelDir(tmp_path / "model", "transfernet", CONFIG, LABEL_MAP)
    directory.save()
    older, newer = make_network(seed=1), make_network(seed=2)
    for number, network in ((5, older), (6, newer)):
        checkpoint = tf.train.Checkpoint(model=network)
        manager = tf.train.CheckpointManager(checkpoint, directory.path / "joint", max_to_keep=None)
        manager.save(checkpoint_number=number)
    words = [f"--model_dir={directory.path}", f"--output_dir={tmp_path / 'out'}"]
    ran = in_process.call(saved_model.main, *words, "--checkpoint=5")
    assert ran.returncode == 0, ran.stderr
    image = np.random.default_rng(2).integers(0, 256, (40, 60, 3), np.uint8)
    exported, old, new = (
        segmenter.segment(image, [1]).probabilities
        for segmenter in (
            Segmenter.load(tmp_path / "out/1"),
            *(Segmenter(KerasNetwork(network), LABEL_MAP) for network in (older, newer)),
        )
    )
    np.testing.assert_allclose(exported, old, atol=1e-5)
    assert np.abs(exported - new).max() > 0.01
    ran = in_process.call(saved_model.main, *words, "--checkpoint=4")
    assert ran.returncode == 2 and "holds no checkpoint 4; it has 5, 6" in ran.stderr
