"""An app that webhooks call: prints each request as a line of JSON, and answers as it is told.

    receiver.py [SECRET] [--port PORT] [--tls NAME]

The first line is its URL. On standard input it takes answers, one line of JSON each: {"status": 503, "headers":
{...}, "delay": 2} goes to the next request, {"topic": "a/b", ...} to every request about that topic. Everything else
is answered with 204. With a secret every signature is checked by the library of Standard Webhooks.
"""

import argparse
import json
import queue
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

arguments = argparse.ArgumentParser()
arguments.add_argument("secret", nargs="?", default="")
arguments.add_argument("--port", type=int, default=0)
arguments.add_argument("--tls", metavar="NAME", help="serve HTTPS with NAME.pem and NAME.key")
arguments = arguments.parse_args()

next_answers = queue.SimpleQueue()
topic_answers = {}


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        topic = unquote(headers.get("waystation-topic", ""))
        answer = topic_answers.get(topic)
        if answer is None:
            try:
                answer = next_answers.get_nowait()
            except queue.Empty:
                answer = {}
        status = answer.get("status", 204)
        report = {
            "path": self.path,
            "topic": topic,
            "attempt": int(headers["waystation-attempt"]),
            "status": status,
            "verified": verified(body, headers),
            "body": body.decode("utf-8", "backslashreplace"),
            "headers": headers,
            "at": time.monotonic(),
        }
        print(json.dumps(report), flush=True)
        time.sleep(answer.get("delay", 0))
        self.send_response(status)
        for name, value in answer.get("headers", {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_):
        pass


def verified(body, headers):
    if not arguments.secret:
        return None
    try:
        # It wants a body of JSON, and gives it back; what it raises over one that is none comes after the signature.
        Webhook(arguments.secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    except ValueError:
        pass
    return True


server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Receiver)
server.daemon_threads = True
scheme = "http"
if arguments.tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{arguments.tls}.pem", f"{arguments.tls}.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "https"
print(f"{scheme}://127.0.0.1:{server.server_port}/hook", flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
for line in sys.stdin:
    told = json.loads(line)
    if "topic" in told:
        topic_answers[told["topic"]] = told
    else:
        next_answers.put(told)
    print("told", flush=True)
