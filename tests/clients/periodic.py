"""A sensor that publishes its reading as JSON every so often, and a consumer that averages, each with its own loop.

periodic.py PORT VERSION COUNT
"""
import json
import sys
import threading
import time

import paho_versions

port, version, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
readings = []
subscribed = threading.Event()


def on_message(client, userdata, message):
    reading = json.loads(message.payload)
    readings.append(reading["celsius"])
    if len(readings) == count:
        client.disconnect()


def consume():
    consumer = paho_versions.client("consumer", version, clean=True)
    consumer.on_connect = lambda client, *_: client.subscribe("house/+/temperature", qos=1)
    consumer.on_subscribe = lambda *_: subscribed.set()
    consumer.on_message = on_message
    paho_versions.connect(consumer, port, version, clean=True)
    consumer.loop_forever()


thread = threading.Thread(target=consume)
thread.start()
assert subscribed.wait(20), "no SUBACK"

sensor = paho_versions.client("sensor", version, clean=True)
paho_versions.connect(sensor, port, version, clean=True)
sensor.loop_start()
for n in range(count):
    sent = sensor.publish("house/kitchen/temperature", json.dumps({"celsius": 20 + n}), qos=n % 2, retain=True)
    sent.wait_for_publish(20)
    time.sleep(0.02)
thread.join(20)
sensor.disconnect()
sensor.loop_stop()
assert sorted(readings) == [20 + n for n in range(count)], readings
print("average", sum(readings) / count, flush=True)
