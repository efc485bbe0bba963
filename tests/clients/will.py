"""Sets a will and waits to be killed, or says goodbye at a line on standard input.

will.py PORT VERSION TOPIC PAYLOAD
"""
import sys
import threading

import paho_versions

port, version, topic, payload = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
made = paho_versions.client("mortal", version, clean=True)
made.will_set(topic, payload, qos=1, retain=True)
connected = threading.Event()
made.on_connect = lambda *_: connected.set()
paho_versions.connect(made, port, version, clean=True)
made.loop_start()
assert connected.wait(20), "no CONNACK"
print("connected", flush=True)
sys.stdin.readline()
made.disconnect()
made.loop_stop()
