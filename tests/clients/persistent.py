"""QoS 2 with a persistent session: subscribe, go away, have messages queued, come back, read each once.

persistent.py PORT VERSION COUNT
"""
import sys
import threading

import paho_versions

port, version, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
PATIENCE = 20


def session(on_ready, on_message):
    """Connects the consumer; gives it and whether its session was there."""
    made = paho_versions.client("consumer", version, clean=False)
    present = []
    connected = threading.Event()

    def on_connect(client, userdata, flags, code, *properties):
        present.append(flags["session present"])
        assert int(getattr(code, "value", code)) == 0, code
        connected.set()

    made.on_connect = on_connect
    made.on_subscribe = lambda *_: on_ready.set()
    made.on_message = on_message
    paho_versions.connect(made, port, version, clean=False)
    made.loop_start()
    assert connected.wait(PATIENCE), "no CONNACK"
    return made, present[0]


def leave(made):
    gone = threading.Event()
    made.on_disconnect = lambda *_: gone.set()
    made.disconnect()
    assert gone.wait(PATIENCE), "still connected"
    made.loop_stop()


subscribed = threading.Event()
first, present = session(subscribed, lambda *_: None)
assert not present
first.subscribe("orders/#", qos=2)
assert subscribed.wait(PATIENCE), "no SUBACK"
leave(first)

producer = paho_versions.client("producer", version, clean=True)
paho_versions.connect(producer, port, version, clean=True)
producer.loop_start()
sent = [producer.publish("orders/new", str(n), qos=2) for n in range(count)]
for it in sent:
    it.wait_for_publish(PATIENCE)
    assert it.is_published()
leave(producer)

heard = []
enough = threading.Event()


def hear(client, userdata, message):
    heard.append((int(message.payload), message.qos))
    if len(heard) >= count:
        enough.set()


second, present = session(threading.Event(), hear)
assert present, "the session is lost"
assert enough.wait(PATIENCE), heard
leave(second)
assert heard == [(n, 2) for n in range(count)], heard
print("each once, in order", flush=True)
