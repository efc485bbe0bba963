"""An MQTT-SN board by mqttsn, Eclipse's client for RSMB, that subscribes, and acknowledges what it gets, which
mqtt-sn-12 does not.

eclipse_board.py PORT TOPIC QOS COUNT

Its short topic names alone work with every QoS, and its goodbye does not work at all: it vanishes.
"""
import sys
import threading

from mqttsn.client import Callback, Client

port, topic, qos, count = sys.argv[1:5]


class Printer(Callback):
    left = int(count)
    done = threading.Event()

    def message_arrived(self, topic_name, payload, qos, retained, msgid):
        print(qos, payload.decode(), flush=True)
        self.left -= 1
        if self.left == 0:
            self.done.set()
        return True


printer = Printer()
client = Client(b"eclipse", host="127.0.0.1", port=int(port))
client.register_callback(printer)
client.connect()
code, _ = client.subscribe(topic, int(qos))
assert code == 0, code
print("subscribed", flush=True)
assert printer.done.wait(20), "it takes too long"
