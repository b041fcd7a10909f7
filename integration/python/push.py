"""Pushes to the manager as to a Pushgateway, with the Python client's own functions.

    python push.py <manager's HTTP url>

PUSH_TOKEN is sent as the password, if it is set; SSL_CERT_FILE names who signed the manager's certificate.

Prints a JSON line after each step: the grouping key's labels, the texts that are in force now, and the manager's page.
"""

import json
import os
import sys
import urllib.request

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Summary,
    delete_from_gateway,
    generate_latest,
    push_to_gateway,
    pushadd_to_gateway,
)
from prometheus_client.exposition import basic_auth_handler

url = sys.argv[1]
token = os.environ.get("PUSH_TOKEN")


def with_token(**request):
    return basic_auth_handler(**request, username="any", password=token)


auth = {"handler": with_token} if token else {}


def registry_of_a_bot():
    registry = CollectorRegistry()
    commands = Counter("commands", 'Commands, "quoted", back\\slash,\nsecond line 🦀', ["name", "job"], registry=registry)
    seconds = Histogram("seconds", "Time to answer.", ["name"], buckets=[0.1, 1], registry=registry)
    Gauge("guilds", "Guilds.", registry=registry).set(-1.5)
    Summary("sizes", "Sizes.", registry=registry).observe(3.25)
    Info("build", "What runs.", registry=registry).info({"version": "1"})

    def work():
        commands.labels('ping"\n', "own").inc()
        seconds.labels("ping").observe(0.5)
        seconds.labels("ping").observe(7)

    work()
    return registry, work


def small_registry(name, value):
    registry = CollectorRegistry()
    Gauge(name, "Added.", registry=registry).set(value)
    Counter(f"{name}_events", "Added.", registry=registry).inc(value)
    return registry


def say(step, key, *registries):
    page = urllib.request.urlopen(f"{url}/metrics").read().decode()
    said = [generate_latest(registry).decode() for registry in registries]
    print(json.dumps({"step": step, "labels": key, "said": said, "page": page}))


def steps(job, key, shown):
    registry, work = registry_of_a_bot()
    push_to_gateway(url, job, registry, key, **auth)
    say("push", shown, registry)
    work()
    push_to_gateway(url.removeprefix("http://") + "/", job, registry, key, compression="gzip", **auth)
    say("push, gzip, by host and port", shown, registry)
    added = small_registry("added", 4)
    pushadd_to_gateway(url, job, added, key, compression="gzip", **auth)
    say("add", shown, registry, added)
    other = small_registry("other", 5)
    push_to_gateway(url, job, other, key, **auth)
    say("push something else", shown, other)
    delete_from_gateway(url, job, key, **auth)
    say("delete", shown)


# Slashes and spaces are pushed in base64, other text in percent-encoding.
steps("bot", {"shard_id": 3, "instance": "a/b c"}, {"exported_job": "bot", "exported_instance": "a/b c"})
steps("bot/ü", {"shard_id": "3", "zone": "ü+&%", "instance": ""}, {"exported_job": "bot/ü", "zone": "ü+&%"})
