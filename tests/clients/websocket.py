"""Publishes and hears its own messages over WebSocket.

websocket.py PORT VERSION CA COUNT (CA: the authority's file, or - for no TLS)
"""
import sys
import threading

import paho.mqtt.client as mqtt

port, version, authority, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
protocol = mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "page", transport="websockets", protocol=protocol)
client.ws_set_options(path="/mqtt")
if authority != "-":
    client.tls_set(authority)

heard, everything = [], threading.Event()


def connected(client, userdata, flags, reason, properties):
    assert not reason.is_failure, reason
    client.subscribe("a", 2)


def subscribed(client, userdata, mid, reasons, properties):
    # Short and long ones: all three ways to write a frame's length.
    for n in range(count):
        client.publish("a", f"{n} ".ljust([10, 1_000, 100_000][n % 3]), qos=n % 3)


def message(client, userdata, message):
    heard.append(int(message.payload.split()[0]))
    if len(heard) == count:
        everything.set()


client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, message
client.connect("127.0.0.1", port)
client.loop_start()
assert everything.wait(20), f"{len(heard)} of {count}"
assert sorted(heard) == list(range(count)), heard
print("all heard", flush=True)
client.disconnect()
client.loop_stop()
