"""Run by test_jax_backend.py under KERAS_BACKEND=jax: layers and the tiny network, without TensorFlow.

Usage: jax_network.py INPUT.npz OUTPUT.npz
"""

import sys


class _NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ImportError("the layers must not need TensorFlow")
        return None


sys.meta_path.insert(0, _NoTensorFlow())

import jax  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

from tfseg.config import preset  # noqa: E402
from tfseg.layers import LabelOneHot, MaxPooling2DWithSwitches, MaxUnpooling2D  # noqa: E402
from tfseg.losses import label_cross_entropy, mask_cross_entropy  # noqa: E402
from tfseg.models.transfernet import build_transfernet  # noqa: E402


def main(source: str, target: str) -> None:
    assert keras.backend.backend() == "jax"
    data = dict(np.load(source))
    model = build_transfernet(preset("tiny"))
    model.set_weights([data[f"weight{index}"] for index in range(len(model.weights))])
    inputs = {"image": data["image"], "label": data["label"]}
    results = {name: np.asarray(x) for name, x in model(inputs).items()}
    loss_sum, valid = mask_cross_entropy(data["mask"], results["mask_logits"])
    results.update(loss_sum=np.asarray(loss_sum), valid=np.asarray(valid))
    label_loss = label_cross_entropy(data["label"], results["class_logits"])
    results["label_loss"] = np.asarray(label_loss)

    pool, unpool = MaxPooling2DWithSwitches(), MaxUnpooling2D()
    pooled, switches = jax.jit(pool)(data["maps"])
    results.update(pooled=np.asarray(pooled), switches=np.asarray(switches))
    results["unpooled"] = np.asarray(jax.jit(unpool)((pooled, switches)))
    gradient = jax.grad(lambda x: (pool(x)[0] * data["upstream"]).sum())(data["maps"])
    results["pool_gradient"] = np.asarray(gradient)
    results["one_hot"] = np.asarray(jax.jit(LabelOneHot(3))(np.array([2, 0, 4], np.int32)))
    np.savez(target, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
