"""Producer and consumer of JSON by aiomqtt, side by side.

json_sensors.py PORT VERSION COUNT
"""
import asyncio
import json
import sys

import aiomqtt

port, version, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
protocol = aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311


async def consume(ready):
    async with aiomqtt.Client("127.0.0.1", port, identifier="consumer", protocol=protocol) as client:
        await client.subscribe("plant/+/state", qos=1)
        ready.set()
        readings = []
        async for message in client.messages:
            readings.append((str(message.topic), json.loads(message.payload)))
            if len(readings) == count:
                return readings


async def produce():
    async with aiomqtt.Client("127.0.0.1", port, identifier="producer", protocol=protocol) as client:
        for n in range(count):
            await client.publish("plant/7/state", json.dumps({"n": n, "unit": "°C"}), qos=1)


async def main():
    ready = asyncio.Event()
    consumer = asyncio.create_task(consume(ready))
    await ready.wait()
    await produce()
    assert await consumer == [("plant/7/state", {"n": n, "unit": "°C"}) for n in range(count)]


asyncio.run(asyncio.wait_for(main(), 20))
print("all read", flush=True)
