#!/usr/bin/env python3
"""An app that pulls its messages over HTTP, and counts each exactly once.

It keeps the cursor in the same transaction as what it made of the messages. Kill it at any moment and start it
again: it goes on where its results end. Nothing but Python's standard library is needed.

    ./pull.py --url http://localhost:8080 --session meter-app --filter 'meters/#' --database meters.db
"""

import argparse
import json
import sqlite3
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--url", default="http://localhost:8080")
arguments.add_argument("--session", default="meter-app")
arguments.add_argument("--filter", default="meters/#")
arguments.add_argument("--database", default="meters.db")
arguments.add_argument("--wait", type=int, default=30, help="seconds a read is held when nothing waits")
arguments.add_argument("--until-empty", action="store_true", help="end when nothing waits")
arguments = arguments.parse_args()

session = f"{arguments.url}/v1/sessions/{urllib.parse.quote(arguments.session, safe='')}"


def call(method, url, body=None):
    """Status and JSON of the answer; network faults and overload are waited out."""
    data = None if body is None else json.dumps(body).encode()
    while True:
        try:
            request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
            with urllib.request.urlopen(request, timeout=arguments.wait + 30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                sys.exit(f"{error.code}: {json.loads(error.read())['detail']}")
            time.sleep(float(error.headers.get("Retry-After", 1)))
        except OSError as error:
            print(f"{error}; trying again", file=sys.stderr)
            time.sleep(1)


results = sqlite3.connect(arguments.database)
results.execute("CREATE TABLE IF NOT EXISTS total (topic TEXT PRIMARY KEY, sum REAL, count INTEGER)")
results.execute("CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), cursor TEXT)")

# Makes the session, or finds it as it is: what came while the app was away waits there for a day.
call("PUT", session, {"subscriptions": [{"filter": arguments.filter, "qos": 1}], "expiry": 86_400})
place = results.execute("SELECT cursor FROM place").fetchone()
cursor = place and place[0]

while True:
    query = {"max": 100, "wait": 0 if arguments.until_empty else arguments.wait}
    if cursor:
        # This acknowledges everything up to it: it is in the database.
        query["after"] = cursor
    status, page = call("GET", f"{session}/messages?{urllib.parse.urlencode(query)}")
    if status == 204:
        if arguments.until_empty:
            break
        continue
    if page["missed"]:
        print(f"{page['missed']} messages were lost: the queue was full", file=sys.stderr)
    with results:  # one transaction
        for message in page["messages"]:
            results.execute(
                "INSERT INTO total VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET sum = sum + excluded.sum, count = count + 1",
                (message["topic"], float(message["payload"])),
            )
        results.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (page["cursor"],))
    cursor = page["cursor"]
    print(f"{len(page['messages'])} messages", flush=True)

for topic, total, count in results.execute("SELECT topic, sum, count FROM total ORDER BY topic"):
    print(f"{topic}: {total:g} in {count}", flush=True)
