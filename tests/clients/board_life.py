"""A day in the life of an MQTT-SN board, by mqtt-sn-12: will, subscriptions, sleep, return, and loss.

board_life.py PORT      goes on with each line on its standard input

The library answers no message that it gets: it subscribes with QoS 0.
"""
import sys

from mqttsn12.MqttSnConstants import MqttSnConstants
from mqttsn12.client.MqttSnClient import MqttSnClient, MqttSnListener
from mqttsn12.packets import PingReqPacket


class Printer(MqttSnListener):
    heard = 0

    def message_arrived(self, message):
        self.heard += 1
        print("heard", message.get_payload().decode(), flush=True)


def hears(count):
    end = printer.heard + count
    while printer.heard < end:
        client.polling()


printer = Printer()
client = MqttSnClient()
client.set_client_id("life")
client.set_clean_session(True)
client.set_keep_alive(60)
client.set_timeout(20)
client.set_will("wills/life", "gone", 1, False)
client.open("127.0.0.1", int(sys.argv[1]))
client.send_connect()
client.send_will_message_update("gone for good")
client.send_subscribe("valves/+", 0, printer)
# A number of its own: the library does not tell predefined ids from others.
client.send_subscribe_predefined(900, 0, printer)
print("subscribed", flush=True)
hears(2)

client.send_disconnect(60)
print("asleep", flush=True)
sys.stdin.readline()
ping = PingReqPacket()
ping.client_id = "life"
client.send_packet(ping.encode())
hears(2)
assert client.wait_for(True, MqttSnConstants.TYPE_PINGRESP), "no PINGRESP"

client.set_keep_alive(1)
client.send_connect()
client.send_unsubscribe("valves/+")
print("back", flush=True)
sys.stdin.readline()
# Without a goodbye.
