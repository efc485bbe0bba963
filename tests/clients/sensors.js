// Sensors and their readers by mqtt.js: properties, a persistent session with QoS 2, a will.
//
// sensors.js URL VERSION COUNT        VERSION as on the wire: 3 (3.1), 4 (3.1.1) or 5
const assert = require('node:assert');
const mqtt = require('mqtt');

const [url, version, count] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
setTimeout(() => { console.error('too slow'); process.exit(1); }, 20000).unref();

const five = version === 5;
const common = {
  protocolVersion: version,
  protocolId: version === 3 ? 'MQIsdp' : 'MQTT',
  reconnectPeriod: 0,
  connectTimeout: 15000,
};

function connect(clientId, more = {}) {
  const client = mqtt.connect(url, { ...common, clientId, ...more });
  return new Promise((resolve, reject) => {
    client.once('connect', (connack) => resolve([client, connack]));
    client.once('error', reject);
  });
}

function hears(client, number) {
  return new Promise((resolve) => {
    const heard = [];
    client.on('message', (topic, payload, packet) => {
      heard.push({ topic, value: JSON.parse(payload), packet });
      if (heard.length === number) resolve(heard);
    });
  });
}

async function properties() {
  const aliases = five ? { properties: { topicAliasMaximum: 5 }, autoUseTopicAlias: true, autoAssignTopicAlias: true } : {};
  const [client] = await connect('sensor', aliases);
  const heard = hears(client, count);
  const granted = await client.subscribeAsync('plant/+/state', { qos: 2, ...(five ? { nl: false, rap: true, rh: 0 } : {}) });
  assert.strictEqual(granted[0].qos, 2);
  for (let n = 0; n < count; n++) {
    const extra = five ? { properties: { contentType: 'application/json', userProperties: { unit: '°C' }, messageExpiryInterval: 60 } } : {};
    await client.publishAsync(`plant/${n % 3}/state`, JSON.stringify({ n, unit: '°C' }), { qos: n % 3, ...extra });
  }
  for (const { topic, value, packet } of await heard) {
    assert.strictEqual(topic, `plant/${value.n % 3}/state`);
    assert.strictEqual(packet.qos, value.n % 3);
    if (five) {
      assert.strictEqual(packet.properties.contentType, 'application/json');
      assert.strictEqual(packet.properties.userProperties.unit, '°C');
    }
  }
  await client.endAsync();
}

async function session() {
  const keep = { clean: false, ...(five ? { properties: { sessionExpiryInterval: 600 } } : {}) };
  const [reader, first] = await connect('reader', keep);
  assert.ok(!first.sessionPresent);
  await reader.subscribeAsync('orders/#', { qos: 2 });
  await reader.endAsync();

  const [writer] = await connect('writer');
  for (let n = 0; n < count; n++) await writer.publishAsync('orders/new', JSON.stringify(n), { qos: 2 });
  await writer.endAsync();

  // Who resumes must be listening before the messages come.
  const again = mqtt.connect(url, { ...common, clientId: 'reader', ...keep });
  const heard = hears(again, count);
  const connack = await new Promise((resolve) => again.once('connect', resolve));
  // MQTT 3.1 has no such flag.
  assert.ok(version === 3 || connack.sessionPresent);
  assert.deepStrictEqual((await heard).map((it) => it.value), [...Array(count).keys()]);
  await again.endAsync();
}

async function will() {
  const [witness] = await connect('witness');
  const heard = hears(witness, 1);
  await witness.subscribeAsync('wills/+', { qos: 1 });
  const [mortal] = await connect('mortal', { will: { topic: 'wills/mortal', payload: '"gone"', qos: 1, retain: false } });
  mortal.on('error', () => {});
  mortal.stream.destroy();
  assert.strictEqual((await heard)[0].value, 'gone');
  await witness.endAsync();
}

(async () => {
  await properties();
  await session();
  await will();
  console.log('all read');
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
