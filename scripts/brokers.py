"""Brokers that the benchmark scripts start, measure and stop. Each knows its own process and ends no other."""

import json
import os
import pathlib
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time


class Broker:
    """A broker on a core of its own, with everything it writes in `folder`."""

    # Where it keeps its state, below `folder`; made anew for each run.
    state = None

    def __init__(self, core, folder, environment=None):
        self.core, self.folder, self.environment = core, folder, environment
        self.process, self.port = None, None

    def start(self, command, **options):
        if self.state:
            shutil.rmtree(os.path.join(self.folder, self.state), ignore_errors=True)
            os.mkdir(os.path.join(self.folder, self.state), 0o700)
        # taskset replaces itself by the broker: the pid is the broker's own.
        self.log = open(os.path.join(self.folder, self.name + ".log"), "ab")
        self.process = subprocess.Popen(["taskset", "-c", str(self.core), *command], stderr=self.log,
                                        start_new_session=True, env=self.environment, **options)

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.log.close()
        self.process = None

    def wait_for_port(self):
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.02)
        self.fail("did not start")

    def fail(self, why):
        self.stop()
        log = pathlib.Path(self.folder, self.name + ".log").read_text(errors="replace")
        sys.exit(f"{os.path.basename(sys.argv[0])}: {self.name} {why}\n{log[-2000:]}")


class Mosquitto(Broker):
    """mosquitto; in `config` {port}, {tls_port} and {folder} are filled in."""

    name = "mosquitto"

    def __init__(self, program, config, *rest):
        super().__init__(*rest)
        self.program, self.config = program, config

    def run(self):
        self.port, self.tls_port = free_ports(2)
        config = os.path.join(self.folder, "mosquitto.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write(self.config.format(port=self.port, tls_port=self.tls_port, folder=self.folder))
        self.start([self.program, "-c", config], stdout=subprocess.DEVNULL)
        self.wait_for_port()


class Waystation(Broker):
    """Waystation with MQTT alone, unless the settings say otherwise."""

    name = "waystation"

    def __init__(self, program, settings, *rest):
        super().__init__(*rest)
        self.program, self.settings = program, settings

    def run(self):
        settings = ['gateways.mqtt.listen="127.0.0.1:0"', "gateways.rest.enabled=false",
                    "gateways.mqtt_sn.enabled=false", 'log.level="error"', *self.settings]
        arguments = [part for setting in settings for part in ("--set", setting)]
        # In a folder of ours, so that no configuration file of the checkout is found.
        self.start([self.program, "run", *arguments], stdout=subprocess.PIPE, cwd=self.folder)
        ready, _, _ = select.select([self.process.stdout], [], [], 10)
        line = self.process.stdout.readline().decode() if ready else ""
        names = dict(part.split("=", 1) for part in line.split() if "=" in part)
        if not line.startswith("waystation ready") or "mqtt" not in names:
            self.fail(f"did not become ready, but said: {line!r}")
        self.port, self.tls_port, self.sn_port = (
            int(names.get(name, ":0").rsplit(":", 1)[1]) for name in ("mqtt", "mqtt_tls", "mqtt_sn"))


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def bench(command, arguments, folder, fail, environment=None):
    """The report of one run of `waystation bench`."""
    done = subprocess.run([*command, *arguments, "--json"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=300, env=environment)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return fail(f"could not be measured: {' '.join(arguments)}\n{done.stderr}")


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def troubles(name, found):
    """What went wrong, of the reports of each broker."""
    for broker, reports in found.items():
        for key in ("lost", "duplicates", "refused", "unacknowledged", "disconnects"):
            count = sum(report[key] for report in reports)
            if count:
                yield f"{name}: {broker}: {count} {key} in {len(reports)} rounds"
