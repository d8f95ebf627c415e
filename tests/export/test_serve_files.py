"""The files for a server, parsed back by the protos and by YAML."""

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from export import serve_files

INT64, STRING, BOOL, MESSAGE = 3, 9, 8, 11


def message_class(package_file, name, fields, nested=None):
    """A message that tensorflow-serving-api does not ship, from its published field list."""
    file = descriptor_pb2.FileDescriptorProto(
        name=package_file, package="tensorflow.serving", syntax="proto3"
    )
    file.dependency.append("google/protobuf/wrappers.proto")
    for message_name, message_fields in {**(nested or {}), name: fields}.items():
        message = file.message_type.add(name=message_name)
        for field_name, number, kind, type_name, repeated in message_fields:
            field = message.field.add(name=field_name, number=number, type=kind, label=3 if repeated else 1)
            if type_name:
                field.type_name = type_name
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))


WIDE = ".google.protobuf.Int64Value"
# tensorflow_serving/servables/tensorflow/session_bundle_config.proto
BATCHING = [
    ("max_batch_size", 1, MESSAGE, WIDE, False),
    ("batch_timeout_micros", 2, MESSAGE, WIDE, False),
    ("max_enqueued_batches", 3, MESSAGE, WIDE, False),
    ("num_batch_threads", 4, MESSAGE, WIDE, False),
    ("thread_pool_name", 5, MESSAGE, ".google.protobuf.StringValue", False),
    ("allowed_batch_sizes", 6, INT64, None, True),
    ("pad_variable_length_inputs", 7, BOOL, None, False),
]
# tensorflow_serving/config/monitoring_config.proto
PROMETHEUS = [("enable", 1, BOOL, None, False), ("path", 2, STRING, None, False)]
MONITORING = [("prometheus_config", 1, MESSAGE, ".tensorflow.serving.PrometheusConfig", False)]


@pytest.fixture
def versions(tmp_path):
    for number in (1, 2, 10):
        (tmp_path / "models" / str(number)).mkdir(parents=True)
        (tmp_path / "models" / str(number) / "saved_model.pb").write_bytes(b"x" * 1000)
    (tmp_path / "models" / ".tmp-11-1").mkdir()
    return tmp_path / "models"


def write(versions, tmp_path, *words):
    status = serve_files.main([f"--export_dir={versions}", f"--output_dir={tmp_path / 'serving'}", *words])
    assert status == 0
    return tmp_path / "serving"


def models_config(folder):
    text = (folder / "models.config").read_text()
    parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (config,) = parsed.model_config_list.config
    return config


def test_the_servers_own_files(versions, tmp_path, capsys):
    folder = write(versions, tmp_path, "--max_batch_size=16", "--batch_timeout_ms=2.5")
    config = models_config(folder)
    assert (config.name, config.base_path, config.model_platform) == ("tfseg", "/models/tfseg", "tensorflow")
    assert not config.HasField("model_version_policy") and not config.version_labels
    batching = text_format.Parse(
        (folder / "batching_params.pbtxt").read_text(),
        message_class("batching.proto", "BatchingParameters", BATCHING)(),
    )
    assert (batching.max_batch_size.value, batching.batch_timeout_micros.value) == (16, 2500)
    assert batching.num_batch_threads.value >= 1
    assert not batching.pad_variable_length_inputs  # Padded pixels would be segmented.
    monitoring = text_format.Parse(
        (folder / "monitoring.config").read_text(),
        message_class("monitoring.proto", "MonitoringConfig", MONITORING, {"PrometheusConfig": PROMETHEUS})(),
    )
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"
    assert f"docker compose --file {folder}/docker-compose.yml up" in capsys.readouterr().out


def test_versions_by_label(versions, tmp_path):
    folder = write(versions, tmp_path, "--name=animals", "--label=stable:2", "--label=canary:10")
    config = models_config(folder)
    assert config.name == "animals"
    assert list(config.model_version_policy.specific.versions) == [2, 10]
    assert dict(config.version_labels) == {"stable": 2, "canary": 10}


def test_docker_compose(versions, tmp_path):
    folder = write(versions, tmp_path)
    (service,) = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"].values()
    name, tag = service["image"].split(":")
    assert name == "tensorflow/serving" and tag[0].isdigit() and tag.count(".") == 2
    assert service["ports"] == ["8500:8500", "8501:8501"]
    mounts = {volume["target"]: volume for volume in service["volumes"]}
    assert mounts["/models/tfseg"]["source"] == str(versions)
    assert mounts["/config"]["source"] == str(folder)
    assert all(volume["read_only"] is True for volume in mounts.values())
    assert "--model_config_file=/config/models.config" in service["command"]
    assert not any("batching" in word for word in service["command"])
    assert "AVAILABLE" in service["healthcheck"]["test"][-1]
    assert "/v1/models/tfseg HTTP/1.0" in service["healthcheck"]["test"][-1]
    batching = write(versions, tmp_path, "--batching")
    (service,) = yaml.safe_load((batching / "docker-compose.yml").read_text())["services"].values()
    assert "--enable_batching=true" in service["command"]
    assert "--batching_parameters_file=/config/batching_params.pbtxt" in service["command"]


def test_kubernetes(versions, tmp_path):
    folder = write(versions, tmp_path, "--name=my_model", "--replicas=3", "--claim=store")
    documents = {
        document["kind"]: document for document in yaml.safe_load_all((folder / "kubernetes.yml").read_text())
    }
    assert set(documents) == {"ConfigMap", "Deployment", "Service"}
    for name, text in documents["ConfigMap"]["data"].items():
        assert text == (folder / name).read_text()
    specification = documents["Deployment"]["spec"]
    assert specification["replicas"] == 3
    (container,) = specification["template"]["spec"]["containers"]
    probe = container["readinessProbe"]["httpGet"]
    assert probe == {"path": "/v1/models/my_model/metadata", "port": "rest"}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
        "/models/my_model",
        "/config",
        "/tmp",
    }
    volumes = {volume["name"]: volume for volume in specification["template"]["spec"]["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "store", "readOnly": True}
    labels = specification["selector"]["matchLabels"]
    assert (
        labels == specification["template"]["metadata"]["labels"] == documents["Service"]["spec"]["selector"]
    )
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"] for port in documents["Service"]["spec"]["ports"]} == set(ports)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--label=canary"], "must be NAME:VERSION"),
        (["--label=a:1", "--label=a:2"], "each name once"),
        (["--label=canary:3"], "there is no version 3; there are 1, 2, 10"),
        (["--name=a/b"], "allowed are letters"),
    ],
)
def test_what_is_refused(versions, tmp_path, capsys, words, said):
    assert serve_files.main([f"--export_dir={versions}", f"--output_dir={tmp_path / 'x'}", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_no_version_is_told(tmp_path, capsys):
    assert serve_files.main([f"--export_dir={tmp_path}", f"--output_dir={tmp_path / 'x'}"]) == 2
    assert "holds no version" in capsys.readouterr().err
