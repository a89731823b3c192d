// Drives OHIF, served by the service itself, in a browser. A line of JSON for each operation.
//
//   viewer.mjs ROOT STUDY PICTURES    ROOT is where the viewer is, STUDY a Study Instance UID with a radiograph and both reports,
//                                     PICTURES a folder for screenshots
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { run, withBrowser } from './browser.mjs';

const [root, study, pictures] = process.argv.slice(2);
const patience = { timeout: 60_000 };

// spread decodes a screenshot in the page and measures its gray: the standard deviation, and how many levels there are.
const spread = (page, png) => page.evaluate(async text => {
  const image = await createImageBitmap(new Blob([Uint8Array.from(atob(text), c => c.charCodeAt(0))], { type: 'image/png' }));
  const canvas = new OffscreenCanvas(image.width, image.height).getContext('2d');
  canvas.drawImage(image, 0, 0);
  const reds = canvas.getImageData(0, 0, image.width, image.height).data.filter((_, i) => i % 4 === 0);
  const mean = reds.reduce((a, b) => a + b, 0) / reds.length;
  return { deviation: Math.sqrt(reds.reduce((a, b) => a + (b - mean) ** 2, 0) / reds.length), levels: new Set(reds).size };
}, png.toString('base64'));

await withBrowser(async page => {
  const faults = [];
  page.on('pageerror', e => faults.push(`${e}`));
  page.on('response', r => r.status() >= 400 && faults.push(`${r.status()} ${r.url()}`));
  page.on('requestfailed', r => r.failure()?.errorText !== 'net::ERR_ABORTED' && faults.push(`${r.failure()?.errorText} ${r.url()}`));
  // OHIF's tour comes at the first visit; it would cover what is looked at.
  await page.addInitScript(() => localStorage.setItem('shownTours', '["basicViewerTour"]'));
  const seen = text => page.waitForFunction(t => document.body.innerText.includes(t), text, patience);
  const open = name => page.getByText(name).first().dblclick(patience);

  await run([
    ['list studies', async () => {
      await page.goto(root);
      await seen('PHANTOM chest');
      await seen('DX\\SR');
      await seen('for investigational use only');
      await page.getByText('Confirm and hide').click(patience);
    }],
    ['open a radiograph', async () => {
      await page.goto(`${root}viewer?StudyInstanceUIDs=${study}`);
      await seen('ChatXRay findings');
      await page.locator('canvas').first().waitFor(patience);
    }],
    ['see its pixels', async () => {
      const box = await page.locator('canvas').first().boundingBox();
      const clip = { x: box.x + box.width * 0.25, y: box.y + box.height * 0.2, width: box.width * 0.5, height: box.height * 0.6 };
      for (let left = 100; ; left--) {
        const { deviation, levels } = await spread(page, await page.screenshot({ clip }));
        if (deviation > 25 && levels > 60) break;
        assert.ok(left > 0, `the radiograph is flat: deviation ${deviation}, ${levels} levels`);
        await page.waitForTimeout(100);
      }
    }],
    ['open the findings (TID 1500)', async () => {
      await open('ChatXRay findings');
      await seen('Imaging Measurement Report');
      const text = await page.innerText('body');
      for (const wanted of ['Qualitative Evaluations', 'Overall Assessment', 'Presence:', 'Narrative Summary:', 'Algorithm Version:', 'not reviewed']) {
        assert.ok(text.includes(wanted), `it does not show ${wanted}`);
      }
      console.log(JSON.stringify({ findings: text }));
    }],
    ['open the draft report (TID 2000)', async () => {
      await open('ChatXRay report');
      await seen('Diagnostic Imaging Report');
      const text = await page.innerText('body');
      for (const wanted of ['Findings', 'Impression', 'not reviewed by a radiologist', 'PHANTOM']) {
        assert.ok(text.includes(wanted), `it does not show ${wanted}`);
      }
      console.log(JSON.stringify({ report: text }));
    }],
    ['open the radiograph beside the findings', async () => {
      await open('PHANTOM chest PA');
      await page.locator('[data-cy="Layout"]').click(patience);
      await page.locator('[data-cy="Layout-1-0"]').click(patience);
      await page.locator('[data-cy="viewport-pane"]').nth(1).click(patience);
      await open('ChatXRay findings');
      await seen('Qualitative Evaluations');
      await page.locator('canvas').first().waitFor(patience);
      await page.getByText('Imaging Measurements').first().evaluate(e => e.scrollIntoView());
      await page.screenshot({ path: join(pictures, 'ohif.png') });
    }],
    ['no request failed, no script threw', async () => assert.deepEqual(faults, [])],
  ]);
});
