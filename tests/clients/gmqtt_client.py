"""gmqtt: subscribes with an identifier, publishes with properties, reads them again; a will with a delay.

gmqtt_client.py PORT VERSION
"""
import asyncio
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

port, five = int(sys.argv[1]), sys.argv[2] == "5"
version = MQTTv50 if five else MQTTv311


async def main():
    heard = asyncio.Queue()
    subscribed = asyncio.Event()

    def on_message(client, topic, payload, qos, properties):
        heard.put_nowait((topic, payload.decode(), qos, properties))
        return 0

    more = {"session_expiry_interval": 60, "receive_maximum": 10} if five else {}
    client = gmqtt.Client("gmqtt", clean_session=True, **more)
    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    await client.connect("127.0.0.1", port, version=version)
    if five:
        client.subscribe("plant/#", qos=2, subscription_identifier=7)
    else:
        client.subscribe("plant/#", qos=2)
    await subscribed.wait()
    for qos in range(3):
        extra = {"content_type": "text/plain", "user_property": [("a", "1"), ("b", "2")]} if five else {}
        client.publish("plant/1", f"reading {qos}", qos=qos, **extra)
    messages = sorted([await heard.get() for _ in range(3)], key=lambda it: it[2])
    for qos, (topic, payload, got, properties) in enumerate(messages):
        assert (topic, payload, got) == ("plant/1", f"reading {qos}", qos), messages
        if five:
            assert properties["content_type"] == ["text/plain"], properties
            assert properties["user_property"] == [("a", "1"), ("b", "2")], properties
            assert properties["subscription_identifier"] == [7], properties

    mortal = gmqtt.Client("mortal", will_message=gmqtt.Message("plant/will", "gone", qos=1, **({"will_delay_interval": 1} if five else {})))
    await mortal.connect("127.0.0.1", port, version=version)
    mortal.set_config({"reconnect_retries": 0})
    mortal._connection._transport.abort()
    assert (await heard.get())[:3] == ("plant/will", "gone", 1)
    await client.disconnect()


asyncio.run(asyncio.wait_for(main(), 20))
print("all read", flush=True)
