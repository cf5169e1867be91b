"""Real digits to a service under load, every answer checked, and the chart's objectives held against what was seen.

    python -m serving --model_dir build/bundle --model_name digits --http_port 8080 --grpc_port 8081
    locust -f loadtests/locustfile.py                                     # Locust's page, http://127.0.0.1:8089
    locust -f loadtests/locustfile.py --headless                          # a minute of ten users
    locust -f loadtests/locustfile.py --headless --shape knee --grpc-host 127.0.0.1:8081
    locust -f loadtests/locustfile.py --headless --host http://127.0.0.1:8080 --host-header digits-predictor.chiffre.localhost

From the repository's root. Exit code 0: every objective was held; 1: one was missed, or nobody answered; 2: flags, values or data
must be mended. Reports are in build/load; `loadtests/slo/report.py` says which. Names of users after the flags choose protocols.
"""

from locust import events

from loadtests.slo.opening import set_up
from loadtests.slo.settings import add_flags
from loadtests.slo.users import GrpcUser, ImageUser, V1User, V2User

__all__ = ["GrpcUser", "ImageUser", "V1User", "V2User"]

events.init_command_line_parser.add_listener(add_flags)
events.init.add_listener(set_up)
