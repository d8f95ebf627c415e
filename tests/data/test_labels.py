"""Label maps: the one that ships, and what is refused."""

import json

import pytest

from tfseg.data.labels import LabelMap
from tfseg.errors import InputError

VOC = ["aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"]
VOC += ["dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"]


def two_labels(**changes):
    first = {"id": 1, "name": "cat", "domain": "target", "aliases": ["kitten"], **changes}
    return {"name": "pets", "labels": [first, {"id": 2, "name": "dog", "domain": "source"}]}


def test_shipped_map_has_vocs_classes_first_and_cocos_others_behind(voc20_coco60):
    assert voc20_coco60.num_labels == 80
    assert voc20_coco60.names("target") == tuple(VOC)
    assert voc20_coco60.ids("target") == tuple(range(1, 21))
    assert voc20_coco60.ids("source") == tuple(range(21, 81))
    assert voc20_coco60.names("source")[0] == "truck"
    assert voc20_coco60.names("source")[-1] == "toothbrush"


@pytest.mark.parametrize(
    ("coco", "voc"),
    [
        ("airplane", "aeroplane"),
        ("motorcycle", "motorbike"),
        ("couch", "sofa"),
        ("tv", "tvmonitor"),
        ("dining table", "diningtable"),
        ("potted plant", "pottedplant"),
        ("person", "person"),
    ],
)
def test_shipped_map_knows_cocos_names_of_vocs_classes(voc20_coco60, coco, voc):
    assert voc20_coco60.find(coco) is voc20_coco60.find(voc)
    assert voc20_coco60.find(coco).domain == "target"


def test_shipped_map_finds_all_80_names_of_the_real_file(voc20_coco60, real_sample):
    content = json.loads((real_sample / "coco/annotations/instances_train2017.json").read_text())
    found = [voc20_coco60.find(category["name"]) for category in content["categories"]]
    assert len(found) == 80 and None not in found
    # The 60 others keep the order of COCO's category ids.
    others = [label.id for label in found if label.domain == "source"]
    assert others == list(range(21, 81))


def test_find_is_exact_and_label_is_by_id():
    labels = LabelMap.from_dict(two_labels())
    assert labels.find("kitten").id == 1
    assert labels.find("Cat") is None
    assert labels.label(2).name == "dog"
    with pytest.raises(InputError, match="1 to 2"):
        labels.label(0)


def test_to_dict_and_back(voc20_coco60):
    assert LabelMap.from_dict(json.loads(json.dumps(voc20_coco60.to_dict()))) == voc20_coco60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must be an object"),
        ({"name": "x"}, "1 to 254"),
        ({"name": "x", "labels": []}, "1 to 254"),
        ({"name": 3, "labels": []}, '"name"'),
        ({"name": "x", "labels": ["cat"]}, "must be an object, found 'cat'"),
        (two_labels(id=3), "ids must be 1 to 2"),
        (two_labels(id=2), "ids must be 1 to 2"),
        (two_labels(id=0), "ids must be 1 to 2"),
        (two_labels(id="1"), "whole number"),
        (two_labels(id=True), "whole number"),
        (two_labels(name=""), "not empty"),
        (two_labels(name=None), "not empty"),
        (two_labels(domain="both"), "source or target"),
        (two_labels(name="dog"), "'dog' stands for the labels 1 and 2"),
        (two_labels(aliases=["dog"]), "'dog' stands for the labels 1 and 2"),
        (two_labels(aliases="kitten"), "list of names"),
        (two_labels(aliases=[1]), "list of names"),
    ],
)
def test_malformed_maps_are_refused(tmp_path, content, message):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        LabelMap.load(path)
    assert str(path) in str(caught.value)


def test_files_that_are_missing_or_no_json_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.json"):
        LabelMap.load(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text('{"name": ')
    with pytest.raises(InputError, match=r"broken\.json: is not JSON"):
        LabelMap.load(tmp_path / "broken.json")


def test_name_ids_and_aliases_may_be_left_out(tmp_path):
    path = tmp_path / "pets.json"
    path.write_text('{"labels": [{"name": "dog", "domain": "target"}, {"name": "cup", "domain": "source"}]}')
    expected = [{"id": 1, "name": "dog", "domain": "target", "aliases": []}]
    expected += [{"id": 2, "name": "cup", "domain": "source", "aliases": []}]
    assert LabelMap.load(path).to_dict() == {"name": "pets", "labels": expected}
    path.write_text(
        '{"labels": [{"name": "dog", "domain": "target"}, {"id": 2, "name": "a", "domain": "source"}]}'
    )
    with pytest.raises(InputError, match="label 'dog': id must be a whole number"):
        LabelMap.load(path)


@pytest.mark.parametrize("name", ["c\nat", "c\x1bat", "c\ud800at", "c\u2028at"])
def test_names_have_no_control_characters_and_are_text(name):
    content = {"name": "pets", "labels": [{"name": name, "domain": "target"}]}
    with pytest.raises(InputError, match="name must be a string that is not empty and has no control"):
        LabelMap.from_dict(content)
    with pytest.raises(InputError, match='must be an object with "name"'):
        LabelMap.from_dict({"name": name, "labels": [{"name": "cat", "domain": "target"}]})


def test_a_number_of_more_digits_than_python_reads_is_no_label():
    label_map = LabelMap.from_dict({"name": "pets", "labels": [{"name": "cat", "domain": "target"}]})
    with pytest.raises(InputError, match="is not in pets"):
        label_map.resolve("9" * 5000)
