"""Writes what a TensorFlow Serving needs beside the export: its configuration, Docker Compose, Kubernetes."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tfseg import cli
from tfseg.commands import called
from tfseg.errors import InputError
from tfseg.files import require_output_folder, write_atomic

EXAMPLES = (
    "--export_dir=runs/demo/export --output_dir=runs/demo/serving",
    "--export_dir=runs/demo/export --output_dir=runs/demo/serving --label=stable:1 --label=canary:2",
)
MONITORING_PATH = "/monitoring/prometheus/metrics"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What is served and how; each field is a flag."""

    export_dir: str = cli.flag("Folder of versions that export.saved_model wrote.", exists="folder")
    output_dir: str = cli.flag("Folder of the files.")
    name: str = cli.flag("Name of the model in URLs.", default="tfseg")
    label: tuple[str, ...] = cli.flag(
        "Label of a version, as in canary:2; may be repeated. The newest version alone is served without.",
        default=(),
    )
    image: str = cli.flag(
        "Docker image, a release no older than the TensorFlow that exported.",
        default="tensorflow/serving:2.21.0",
    )
    max_batch_size: int = cli.flag("Rows that the server joins, with --batching.", default=8, lower=1)
    batch_timeout_ms: float = cli.flag("How long a row waits for others.", default=5.0, lower=0.0)
    batching: bool = cli.flag(
        "Whether requests are joined to batches: one wrong row then fails the requests beside it.",
        default=False,
    )
    replicas: int = cli.flag("Of the Kubernetes Deployment.", default=1, lower=1)
    claim: str = cli.flag("PersistentVolumeClaim that holds the versions.", default="tfseg-models")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("export.serve_files", __doc__, ServeOptions, _run, argv, EXAMPLES)


def _run(options: ServeOptions) -> None:
    require_output_folder(options.output_dir, "--output_dir=")
    files = serve_files(options)
    folder = Path(options.output_dir)
    for name, text in files.items():
        write_atomic(folder / name, text.encode())
        print(folder / name)
    print(f"docker compose --file {shlex.quote(str(folder / 'docker-compose.yml'))} up --wait")


def serve_files(options: ServeOptions) -> dict[str, str]:
    """Returns the text of each file by its name.

    Raises:
        InputError: If there is no version, a labelled one is missing, or a name is not allowed.
    """
    if not options.name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"--name={options.name}: allowed are letters, digits, - and _")
    versions = _versions(Path(options.export_dir))
    labels = _labels(options.label, versions)
    served = [versions[number] for number in labels.values()] or [versions[max(versions)]]
    size = sum(f.stat().st_size for v in served for f in v.rglob("*") if f.is_file())
    # Weights twice, for two versions are there while one replaces the other, and 2 GB to compute in.
    memory = 2 + -(-2 * size // 10**9)
    config = {
        "models.config": _models_config(options.name, labels),
        "batching_params.pbtxt": _batching_params(options),
        "monitoring.config": f'prometheus_config {{\n  enable: true\n  path: "{MONITORING_PATH}"\n}}\n',
    }
    return {
        **config,
        "docker-compose.yml": _compose(options, memory),
        "kubernetes.yml": _kubernetes(options, config, memory),
    }


def _versions(folder: Path) -> dict[int, Path]:
    found = {
        int(p.parent.name): p.parent for p in folder.glob("*/saved_model.pb") if p.parent.name.isdecimal()
    }
    if not found:
        raise InputError(f"{folder}: holds no version; {called('export.saved_model')} writes one")
    return found


def _labels(words: Sequence[str], versions: dict[int, Path]) -> dict[str, int]:
    labels: dict[str, int] = {}
    for word in words:
        name, _, number = word.partition(":")
        if not name or not number.isdecimal() or name in labels:
            raise InputError(f"--label={word}: must be NAME:VERSION, each name once")
        if int(number) not in versions:
            there = ", ".join(map(str, sorted(versions)))
            raise InputError(f"--label={word}: there is no version {number}; there are {there}")
        labels[name] = int(number)
    return labels


def _models_config(name: str, labels: dict[str, int]) -> str:
    """`ModelServerConfig`; without a policy the newest version is served, and those before are unloaded."""
    lines = [f'    name: "{name}"', f'    base_path: "/models/{name}"', '    model_platform: "tensorflow"']
    if labels:
        numbers = "".join(f" versions: {number}" for number in sorted(set(labels.values())))
        lines.append(f"    model_version_policy {{ specific {{{numbers} }} }}")
        lines += [f'    version_labels {{ key: "{key}" value: {value} }}' for key, value in labels.items()]
    return "\n".join(["model_config_list {", "  config {", *lines, "  }", "}", ""])


def _batching_params(options: ServeOptions) -> str:
    """`BatchingParameters`."""
    values = {
        "max_batch_size": options.max_batch_size,
        "batch_timeout_micros": round(1000 * options.batch_timeout_ms),
        "max_enqueued_batches": 64,
        "num_batch_threads": 2,
    }
    return "".join(f"{name} {{ value: {value} }}\n" for name, value in values.items())


def _arguments(options: ServeOptions) -> list[str]:
    arguments = [
        "--model_config_file=/config/models.config",
        "--model_config_file_poll_wait_seconds=60",
        "--monitoring_config_file=/config/monitoring.config",
        # A label may name a version that is still being loaded.
        "--allow_version_labels_for_unavailable_models=true",
        "--rest_api_timeout_in_ms=60000",
    ]
    if options.batching:
        arguments += ["--enable_batching=true", "--batching_parameters_file=/config/batching_params.pbtxt"]
    return arguments


def _compose(options: ServeOptions, memory: int) -> str:
    # The image has no curl; bash speaks HTTP well enough for a health check.
    request = f"GET /v1/models/{options.name} HTTP/1.0\\r\\n\\r\\n"
    check = f"exec 3<>/dev/tcp/127.0.0.1/8501 && printf '{request}' >&3 && grep -q AVAILABLE <&3"
    models, config = Path(options.export_dir).resolve(), Path(options.output_dir).resolve()
    arguments = "\n".join(f"      - {json.dumps(argument)}" for argument in _arguments(options))
    return f"""\
services:
  {options.name}:
    image: {json.dumps(options.image)}
    command:
{arguments}
    ports:
      - "8500:8500"  # gRPC
      - "8501:8501"  # REST
    volumes:
      - type: bind
        source: {json.dumps(str(models))}
        target: {json.dumps(f"/models/{options.name}")}
        read_only: true
      - type: bind
        source: {json.dumps(str(config))}
        target: /config
        read_only: true
    healthcheck:
      test: ["CMD", "bash", "-c", {json.dumps(check)}]
      interval: 10s
      timeout: 5s
      retries: 3
      start_period: 120s
    restart: unless-stopped
    read_only: true
    tmpfs: ["/tmp"]
    cap_drop: ["ALL"]
    security_opt: ["no-new-privileges:true"]
    mem_limit: {memory}g
"""


def _kubernetes(options: ServeOptions, config: dict[str, str], memory: int) -> str:
    name = options.name.lower().replace("_", "-")
    documents = (_config_map(name, config), _deployment(name, options, memory), _service(name))
    return "---\n".join(documents)


def _config_map(name: str, config: dict[str, str]) -> str:
    data = "\n".join(
        f"  {file}: |\n" + "\n".join(f"    {line}" for line in text.splitlines())
        for file, text in config.items()
    )
    return f"""\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}-serving
data:
{data}
"""


def _deployment(name: str, options: ServeOptions, memory: int) -> str:
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}-serving
  labels: {{app: {name}-serving}}
spec:
  replicas: {options.replicas}
  selector:
    matchLabels: {{app: {name}-serving}}
  template:
    metadata:
      labels: {{app: {name}-serving}}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "8501"
        prometheus.io/path: {MONITORING_PATH}
    spec:
      automountServiceAccountToken: false
      containers:
{_container(options, memory)}\
      volumes:
        - name: models
          persistentVolumeClaim: {{claimName: {json.dumps(options.claim)}, readOnly: true}}
        - name: config
          configMap: {{name: {name}-serving}}
        - name: tmp
          emptyDir: {{}}
"""


def _container(options: ServeOptions, memory: int) -> str:
    arguments = "\n".join(f"            - {json.dumps(argument)}" for argument in _arguments(options))
    # Metadata is NOT_FOUND until a version is loaded and warmed up; the model's status is not.
    return f"""\
        - name: serving
          image: {json.dumps(options.image)}
          args:
{arguments}
          ports:
            - {{name: grpc, containerPort: 8500}}
            - {{name: rest, containerPort: 8501}}
          readinessProbe:
            httpGet: {{path: /v1/models/{options.name}/metadata, port: rest}}
            periodSeconds: 10
            timeoutSeconds: 5
          livenessProbe:
            tcpSocket: {{port: grpc}}
            initialDelaySeconds: 120
            periodSeconds: 20
          resources:
            requests: {{cpu: "1", memory: {memory}Gi}}
            limits: {{memory: {memory}Gi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: models, mountPath: /models/{options.name}, readOnly: true}}
            - {{name: config, mountPath: /config, readOnly: true}}
            - {{name: tmp, mountPath: /tmp}}
"""


def _service(name: str) -> str:
    return f"""\
apiVersion: v1
kind: Service
metadata:
  name: {name}-serving
spec:
  selector: {{app: {name}-serving}}
  ports:
    - {{name: grpc, port: 8500, targetPort: grpc}}
    - {{name: rest, port: 8501, targetPort: rest}}
"""


if __name__ == "__main__":
    sys.exit(main())
