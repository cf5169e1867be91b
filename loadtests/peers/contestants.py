"""Who is measured: how each is started, and what it speaks.

    from loadtests.peers.contestants import CONTESTANTS

A command is filled in with {python} (of its environment), {bin} (where that lies), {http}, {grpc} (ports), {workers}, {bundle}.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A server. ``notes`` say for a column why it has no figure there."""

    name: str
    title: str
    command: str
    speaks: frozenset[str] = frozenset({"v1"})
    notes: dict[str, str] = field(default_factory=dict)
    # Those without a file of requirements run in our own environment.
    own_environment: bool = True


_ALL = frozenset({"v1", "v2", "grpc"})
_GUNICORN = "--bind 127.0.0.1:{http} --workers {workers} --worker-class gthread --threads 32 --keep-alive 75 --log-level warning"
_PORTS = "{http} {grpc} {workers}"
_KSERVE = "--http_port {http} --grpc_port {grpc} --workers {workers} --enable_grpc true"

CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(
            name="ours",
            title="Chiffre",
            command=f"{{python}} -m serving --model_dir {{bundle}} --model_name digits {_KSERVE}",
            speaks=_ALL,
            own_environment=False,
        ),
        Contestant(
            name="echo",
            title="echo (uvicorn, the ceiling)",
            command=f"{{python}} -m loadtests.peers.echo_server {_PORTS}",
            speaks=frozenset({"echo"}),
            own_environment=False,
        ),
        Contestant(
            name="kserve",
            title="stock KServe SDK",
            command=f"{{python}} -m loadtests.peers.kserve_server {_KSERVE} --log_config_file loadtests/peers/kserve_log.json",
            speaks=_ALL,
        ),
        Contestant(name="fastapi", title="FastAPI", command=f"{{python}} -m loadtests.peers.fastapi_server {_PORTS}"),
        Contestant(name="flask", title="Flask", command=f"{{python}} -m gunicorn {_GUNICORN} loadtests.peers.flask_server:app"),
        Contestant(
            name="mlserver",
            title="MLServer",
            command=f"{{python}} -m loadtests.peers.mlserver_server {_PORTS}",
            speaks=frozenset({"v1", "grpc"}),
            notes={"v2_b32": "takes no binary tensors by REST", "workers": "one process: its workers behind queues are slower"},
        ),
        Contestant(
            name="bentoml",
            title="BentoML",
            command="{python} -m bentoml serve loadtests.peers.bentoml_server:Digits --host 127.0.0.1 --port {http} --quiet",
        ),
        Contestant(name="litserve", title="LitServe", command=f"{{python}} -m loadtests.peers.litserve_server {_PORTS}"),
    )
}
