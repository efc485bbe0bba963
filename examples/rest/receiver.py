#!/usr/bin/env python3
"""An app that is called by a webhook: checks the signature, does each message once, answers when it is done.

    SECRET=whsec_... ./receiver.py --port 9000

    curl -X PUT http://localhost:8080/v1/webhooks/alarms -d '{"url": "http://localhost:9000/hook",
        "filters": ["house/+/alarm"], "secret": "whsec_..."}'

The server must allow targets on this machine: --set gateways.rest.allow_private_targets=true. Nothing but Python's
standard library is needed; the package `standardwebhooks` has `verify` ready made.
"""

import argparse
import base64
import hashlib
import hmac
import os
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--port", type=int, default=9000)
arguments = arguments.parse_args()

secret = os.environ.get("SECRET", "")
key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()

# A message comes again when an answer is lost on the way: what was done is remembered by its id. Keep it with your
# results if they outlive the process.
done = set()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if key and not is_signed(self.headers, body):
            return self.answer(401)  # for good: the message becomes a dead letter
        message = self.headers["webhook-id"]
        if message not in done:
            act(unquote(self.headers["Waystation-Topic"]), body)
            done.add(message)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def act(topic, body):
    print(f"{topic}: {body.decode(errors='replace')}", flush=True)


def is_signed(headers, body):
    """By the Standard Webhooks convention; what is older than five minutes may be a recording."""
    stamp = headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > 300:
        return False
    signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
    right = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return any(hmac.compare_digest(right, given) for given in headers.get("webhook-signature", "").split())


with HTTPServer(("127.0.0.1", arguments.port), Receiver) as server:
    print(f"listening on http://localhost:{server.server_port}/hook", flush=True)
    server.serve_forever()
