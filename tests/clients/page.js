// Opens examples/rest/page.html in Chromium and says what it shows.
//
//   page.js CHROMIUM FOLDER    serves the folder and prints its origin; then takes a line with the server's URL and a
//                              filter, opens the page, and prints its rows whenever they change.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const readline = require("node:readline");
const { chromium } = require("playwright-core");

const [executablePath, folder] = process.argv.slice(2);

const files = http.createServer((request, response) => {
  const name = path.basename(new URL(request.url, "http://localhost").pathname);
  if (name !== "page.html") {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { "content-type": "text/html" }).end(fs.readFileSync(path.join(folder, name)));
});

async function open(origin, server, filter) {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--no-proxy-server"] });
  const page = await browser.newPage();
  page.on("pageerror", error => console.log(`error: ${error}`));
  page.on("console", message => console.log(`console: ${message.text()}`));
  await page.goto(`${origin}/page.html?${new URLSearchParams({ server, filter })}`);
  await page.waitForFunction(() => document.querySelector("#state").textContent === "connected");
  console.log("connected");
  let shown = "";
  for (;;) {
    const rows = await page.$$eval("tr", rows => rows.map(row => `${row.cells[0].innerText}=${row.cells[1].innerText}`));
    const now = `rows: ${rows.join(" ")}`;
    if (now !== shown) {
      console.log(now);
      shown = now;
    }
    await page.waitForTimeout(50);
  }
}

files.listen(0, "127.0.0.1", () => {
  const origin = `http://localhost:${files.address().port}`;
  console.log(origin);
  readline.createInterface({ input: process.stdin }).once("line", line => {
    const [server, filter] = line.split(" ");
    open(origin, server, filter).catch(error => { console.log(`failed: ${error}`); process.exit(1); });
  });
});
