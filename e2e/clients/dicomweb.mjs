// Drives a DICOMweb service with the npm package dicomweb-client, in a browser, which is where it runs. A line of JSON for each operation.
//
//   dicomweb.mjs ROOT MANIFEST PAGE    ROOT is the service's /dicom-web, MANIFEST is from objects.py, PAGE is where the browser is: an
//                                      address of another origin makes every request a cross-origin one
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { modulePath, run, withBrowser } from './browser.mjs';

const [root, manifestFile, pageURL] = process.argv.slice(2);
const manifest = JSON.parse(readFileSync(manifestFile, 'utf8'));
const file = name => readFileSync(manifest[name].file).toString('base64');
const at = name => ({ studyInstanceUID: manifest[name].study, seriesInstanceUID: manifest[name].series, sopInstanceUID: manifest[name].sop });
const studyA = manifest.a1.study;
const studyB = manifest.rle.study;

// inPage is what runs in the browser. Byte arrays come and go in base64.
function inPage([root, method, options, files]) {
  const decode = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer;
  const encode = value => {
    if (value instanceof ArrayBuffer) {
      let text = '';
      new Uint8Array(value).forEach(b => (text += String.fromCharCode(b)));
      return btoa(text);
    }
    return Array.isArray(value) && value[0] instanceof ArrayBuffer ? value.map(encode) : value;
  };
  const client = new window.DICOMwebClient.api.DICOMwebClient({ url: root });
  if (files) options = { ...options, datasets: files.map(decode) };
  return client[method](options).then(encode, e => {
    throw new Error(`${e.message} ${e.status ?? ''} ${typeof e.response === 'string' ? e.response : ''}`);
  });
}

await withBrowser(async page => {
  await page.goto(pageURL);
  await page.addScriptTag({ path: modulePath('dicomweb-client') });
  const call = (method, options = {}, files) => page.evaluate(inPage, [root, method, options, files?.map(file)]);
  const stored = (answer, count) => {
    const model = typeof answer === 'string' ? JSON.parse(answer) : answer;
    assert.equal(model['00081199'].Value.length, count);
    assert.equal(model['00081198'], undefined);
  };
  const search = async (method, queryParams, options = {}) => call(method, { ...options, queryParams });
  const uids = (found, tag = '0020000D') => found.map(f => f[tag].Value[0]);
  // picture checks what browsers can decode: its size, and that it is not of one gray.
  const picture = async (answer, type, name) => {
    const [encoded] = [answer].flat();
    const seen = await page.evaluate(async ([encoded, type]) => {
      const image = await createImageBitmap(new Blob([Uint8Array.from(atob(encoded), c => c.charCodeAt(0))], { type }));
      const canvas = new OffscreenCanvas(image.width, image.height).getContext('2d');
      canvas.drawImage(image, 0, 0);
      const reds = canvas.getImageData(0, 0, image.width, image.height).data.filter((_, i) => i % 4 === 0);
      return { width: image.width, height: image.height, spread: Math.max(...reds) - Math.min(...reds) };
    }, [encoded, type]);
    if (name) assert.deepEqual([seen.width, seen.height], [manifest[name].columns, manifest[name].rows]);
    assert.ok(seen.spread > 30, `the picture is flat: ${seen.spread}`);
    assert.equal(Buffer.from(encoded, 'base64').subarray(0, 2).toString('hex'), type === 'image/png' ? '8950' : 'ffd8');
  };

  await run([
    ['store one', async () => stored(await call('storeInstances', {}, ['a1']), 1)],
    ['store several, to a study', async () => stored(await call('storeInstances', { studyInstanceUID: studyA }, ['a2', 'frames']), 2)],
    ['store several studies, one instance a duplicate', async () => stored(await call('storeInstances', {}, ['a1', 'rle']), 2)],
    ['store to another study', async () => {
      await assert.rejects(call('storeInstances', { studyInstanceUID: studyA }, ['rle']), /409/);
    }],
    ['search studies', async () => assert.deepEqual(uids(await search('searchForStudies', {})).sort(), [studyA, studyB].sort())],
    ['search studies by name', async () => {
      assert.deepEqual(uids(await search('searchForStudies', { PatientName: 'm\u00fcller*' })), [studyA]);
      assert.deepEqual(uids(await search('searchForStudies', { PatientName: 'Yamada^Tarou' })), [studyB]);
    }],
    ['search studies by date, modality and tag', async () => {
      assert.equal((await search('searchForStudies', { StudyDate: '20250101-20250103' })).length, 2);
      assert.deepEqual(await search('searchForStudies', { StudyDate: '20250103-' }), []);
      assert.deepEqual(uids(await search('searchForStudies', { ModalitiesInStudy: 'OT' })), [studyA]);
      assert.deepEqual(uids(await search('searchForStudies', { '00100020': 'B' })), [studyB]);
    }],
    ['search studies by a list of UIDs', async () => {
      assert.equal((await search('searchForStudies', { StudyInstanceUID: `${studyA}\\${studyB}\\1.2.3` })).length, 2);
    }],
    ['search with limit and offset', async () => {
      const pages = [];
      for (const offset of [0, 1, 2]) pages.push(uids(await search('searchForStudies', { limit: 1, offset })));
      assert.deepEqual([...pages[0], ...pages[1]].sort(), [studyA, studyB].sort());
      assert.deepEqual(pages[2], []);
    }],
    ['search series', async () => {
      assert.equal((await search('searchForSeries', {})).length, 3);
      const found = await search('searchForSeries', { Modality: 'OT' }, { studyInstanceUID: studyA });
      assert.deepEqual(uids(found, '0020000E'), [manifest.frames.series]);
    }],
    ['search instances', async () => {
      assert.equal((await search('searchForInstances', {})).length, 4);
      assert.equal((await search('searchForInstances', {}, { studyInstanceUID: studyA })).length, 3);
      const { studyInstanceUID, seriesInstanceUID } = at('a1');
      const found = await search('searchForInstances', { InstanceNumber: 2 }, { studyInstanceUID, seriesInstanceUID });
      assert.deepEqual(uids(found, '00080018'), [manifest.a2.sop]);
    }],
    ['search finds nothing', async () => assert.deepEqual(await search('searchForStudies', { PatientID: 'nobody' }), [])],
    ['retrieve a study', async () => {
      assert.deepEqual((await call('retrieveStudy', at('a1'))).sort(), ['a1', 'a2', 'frames'].map(file).sort());
    }],
    ['retrieve a series', async () => {
      assert.deepEqual((await call('retrieveSeries', at('a1'))).sort(), ['a1', 'a2'].map(file).sort());
    }],
    ['retrieve an instance', async () => assert.equal(await call('retrieveInstance', at('a1')), file('a1'))],
    // The client cannot ask for a transfer syntax here, so the service chooses one, and has to say which.
    ['retrieve a compressed instance', async () => {
      const got = Buffer.from(await call('retrieveInstance', at('rle')), 'base64');
      const pixels = Buffer.from(manifest.rle.frames[0], 'base64');
      const uncompressed = got.includes('1.2.840.10008.1.2.1\0') && got.subarray(-pixels.length).equals(pixels);
      assert.ok(uncompressed || got.toString('base64') === file('rle'), 'neither the file as it was stored nor its pixels uncompressed');
    }],
    ['metadata', async () => {
      assert.equal((await call('retrieveStudyMetadata', at('a1'))).length, 3);
      assert.equal((await call('retrieveSeriesMetadata', at('a1'))).length, 2);
      const [model] = await call('retrieveInstanceMetadata', at('rle'));
      assert.deepEqual(model['00100010'].Value[0], { Alphabetic: 'Yamada^Tarou', Ideographic: '\u5c71\u7530^\u592a\u90ce' });
      assert.equal(model['00280010'].Value[0], manifest.rle.rows);
    }],
    ['bulk data', async () => {
      const [model] = await call('retrieveInstanceMetadata', at('a1'));
      assert.deepEqual(await call('retrieveBulkData', { BulkDataURI: model['00991001'].BulkDataURI }), [manifest.a1.bulk]);
    }],
    ['bulk data of pixels', async () => {
      const [model] = await call('retrieveInstanceMetadata', at('a1'));
      assert.deepEqual(await call('retrieveBulkData', { BulkDataURI: model['7FE00010'].BulkDataURI }), [manifest.a1.frames[0]]);
    }],
    ['frames', async () => {
      const [one, two, three] = manifest.frames.frames;
      assert.deepEqual(await call('retrieveInstanceFrames', { ...at('frames'), frameNumbers: [3, 1] }), [three, one]);
      assert.deepEqual(await call('retrieveInstanceFrames', { ...at('frames'), frameNumbers: [2] }), [two]);
    }],
    ['frames of a compressed instance', async () => {
      const mediaTypes = [{ mediaType: 'application/octet-stream', transferSyntaxUID: '1.2.840.10008.1.2.1' }];
      assert.deepEqual(await call('retrieveInstanceFrames', { ...at('rle'), frameNumbers: [1], mediaTypes }), manifest.rle.frames);
    }],
    ['rendered instance', async () => {
      await picture(await call('retrieveInstanceRendered', at('a1')), 'image/jpeg', 'a1');
      await picture(await call('retrieveInstanceRendered', { ...at('rle'), mediaTypes: [{ mediaType: 'image/png' }] }), 'image/png', 'rle');
    }],
    ['rendered frames', async () => {
      const options = { ...at('frames'), frameNumbers: [2], mediaTypes: [{ mediaType: 'image/jpeg' }] };
      await picture(await call('retrieveInstanceFramesRendered', options), 'image/jpeg', 'frames');
    }],
    ['thumbnail', async () => {
      const encoded = await call('retrieveInstanceThumbnail', { ...at('a1'), mediaTypes: [{ mediaType: 'image/jpeg' }] });
      await picture(encoded, 'image/jpeg');
    }],
    // This client has no delete.
  ]);
});
