// mqtt.js in a page of headless Chromium.
//
// browser.js CHROMIUM     says `serving ORIGIN STRANGER`, hears the URL of the server, says what the page said
const http = require('node:http');
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const { chromium } = require('playwright-core');

const bundle = fs.readFileSync(path.join(path.dirname(require.resolve('mqtt/package.json')), 'dist/mqtt.min.js'));

function serve() {
  const server = http.createServer((request, response) => {
    if (request.url === '/mqtt.js') return response.setHeader('Content-Type', 'text/javascript').end(bundle);
    response.setHeader('Content-Type', 'text/html').end('<!doctype html><title>sensors</title><script src="/mqtt.js"></script>');
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}`)));
}

// Runs in the page.
async function converse([url, protocolVersion]) {
  const client = mqtt.connect(url, { protocolVersion, reconnectPeriod: 0, connectTimeout: 10000, clientId: `page-${protocolVersion}` });
  const event = (name) => new Promise((resolve) => client.once(name, resolve));
  if (await Promise.race([event('connect').then(() => true), event('close').then(() => false)]) === false) return 'refused';
  const texts = ['small', 'Grüße', 'x'.repeat(300000)];
  const heard = [];
  const all = new Promise((resolve) => client.on('message', (topic, payload, packet) => {
    heard.push(`${packet.qos}:${payload.toString()}`);
    if (heard.length === texts.length) resolve();
  }));
  await client.subscribeAsync('page/#', { qos: 2 });
  for (const [qos, text] of texts.entries()) await client.publishAsync('page/out', text, { qos });
  await all;
  await client.endAsync();
  const right = texts.every((text, qos) => heard.includes(`${qos}:${text}`));
  return right ? 'heard all' : `heard ${heard.map((it) => it.slice(0, 20))}`;
}

(async () => {
  const [listed, stranger] = [await serve(), await serve()];
  console.log(`serving ${listed} ${stranger}`);
  const lines = readline.createInterface({ input: process.stdin });
  const url = await new Promise((resolve) => lines.once('line', resolve));
  const browser = await chromium.launch({
    executablePath: process.argv[2],
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  const page = await browser.newPage();
  for (const [origin, version] of [[listed, 4], [listed, 5], [stranger, 5]]) {
    await page.goto(origin);
    console.log(await page.evaluate(converse, [url, version]));
  }
  await browser.close();
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
