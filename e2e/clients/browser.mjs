// Starts Debian's Chromium with a profile of its own, for the scripts beside this one.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRequire } from 'node:module';

// Modules are imported from where they are cached: the folder that CLIENTS names.
const require = createRequire(join(process.env.CLIENTS, 'package.json'));
const { chromium } = require('playwright-core');

export const modulePath = name => require.resolve(name);

// withBrowser calls f with an empty page and closes the browser whatever f does.
export async function withBrowser(f) {
  const profile = mkdtempSync(join(tmpdir(), 'chatxray-chromium-'));
  try {
    const browser = await chromium.launchPersistentContext(profile, {
      executablePath: process.env.CHROMIUM,
      headless: true,
      viewport: { width: 1280, height: 800 },
      args: [
        '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync',
      ],
    });
    try {
      await f(browser.pages()[0] ?? (await browser.newPage()), browser);
    } finally {
      await browser.close();
    }
  } finally {
    rmSync(profile, { recursive: true, force: true });
  }
}

// run does each operation and prints a line of JSON for it: its name, and what went wrong.
export async function run(operations) {
  for (const [operation, f] of operations) {
    let error = '';
    try {
      await f();
    } catch (e) {
      error = String(e?.message ?? e).slice(0, 2000) || 'failed';
    }
    console.log(JSON.stringify({ operation, error }));
  }
}
