"""An MQTT-SN board by mqtt-sn-12.

board.py PORT pub TOPIC QOS PAYLOAD [retain]
board.py PORT sub TOPIC QOS COUNT
board.py PORT minus1 TOPIC -1 PAYLOAD      a short name, or the number of a predefined topic; it never connects

The library acknowledges no message that it gets; eclipse_board.py does.
"""
import sys

from mqttsn12.client.MqttSnClient import MqttSnClient, MqttSnListener

port, action, topic, qos, what = sys.argv[1:6]


class Printer(MqttSnListener):
    def __init__(self):
        self.left = int(what)

    def message_arrived(self, message):
        print(message.get_payload().decode(), flush=True)
        self.left -= 1


client = MqttSnClient()
client.set_client_id("py-" + action)
client.set_clean_session(True)
client.set_keep_alive(60)
client.set_timeout(20)
client.open("127.0.0.1", int(port))
if action == "minus1":
    if topic.isdigit():
        client.send_publish_predefined(int(topic), what.encode(), int(qos))
    else:
        client.send_publish_with_bytes(topic.encode(), what.encode(), int(qos))
    client.close()
    sys.exit()
client.send_connect()
if action == "pub":
    client.send_publish(topic, what.encode(), int(qos), "retain" in sys.argv[6:])
else:
    printer = Printer()
    client.send_subscribe(topic, int(qos), printer)
    print("subscribed", flush=True)
    while printer.left > 0:
        client.polling()
client.send_disconnect(0)
client.close()
