"""Reads $SYS as courses teach it: subscribe to $SYS/#, print what comes.

sys_topics.py PORT VERSION TOPIC=VALUE...     ends when every TOPIC has come with its VALUE, or with any for =*
"""
import sys

import paho_versions

port, version, wanted = int(sys.argv[1]), sys.argv[2], set(sys.argv[3:])
made = paho_versions.client("watcher", version, clean=True)


def on_connect(client, userdata, flags, code, *properties):
    # In on_connect, so that the subscription is there again after a reconnect.
    client.subscribe([("$SYS/#", 0), ("#", 0)])


def on_message(client, userdata, message):
    print(message.topic, message.payload.decode(), flush=True)
    assert message.topic.startswith("$SYS/"), "# does not match $SYS, and nobody else publishes"
    wanted.difference_update({message.topic + "=" + message.payload.decode(), message.topic + "=*"})
    if not wanted:
        client.disconnect()


made.on_connect = on_connect
made.on_message = on_message
paho_versions.connect(made, port, version, clean=True)
made.loop_forever()
