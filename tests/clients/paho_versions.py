"""One client for both generations of paho-mqtt: 1.6 knows no CallbackAPIVersion."""
import paho.mqtt.client as mqtt


def client(client_id, version, clean):
    five = version == "5"
    more = {"protocol": mqtt.MQTTv5 if five else mqtt.MQTTv311}
    if not five:
        more["clean_session"] = clean
    if hasattr(mqtt, "CallbackAPIVersion"):
        made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, client_id, **more)
    else:
        made = mqtt.Client(client_id, **more)
    return made


def connect(made, port, version, clean):
    if version != "5":
        return made.connect("127.0.0.1", port)
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 0 if clean else 600
    return made.connect("127.0.0.1", port, clean_start=clean, properties=properties)
