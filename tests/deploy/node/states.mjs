// Streams deployed folders in Node and in Chromium for test_web_streams.py, which go on from each other's states:
// node states.mjs NODE_MODULES CHROMIUM PROFILE ROOT ADDRESS FOLDER...; a line of JSON for each folder on stdout.
// FOLDER has steps.json: chunks, expected outputs (the last after the end) and Python's state in the middle.
import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, executablePath, profile, root, address, ...folders] = process.argv.slice(2);
const require = createRequire(join(modules, "x.js"));
const { chromium } = require("playwright-core");

/** What both sides do: proves a folder, streams it whole, and from a state in the middle; times a step. */
async function streamed(ort, module, folder, source, steps, elsewhere, seconds) {
  const ARRAYS = { float16: Uint16Array, float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array };
  const tensor = ({ dtype, shape, data }) =>
    new ort.Tensor(dtype, new ARRAYS[dtype](Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer), shape);
  const tensors = (packed) => Object.fromEntries(Object.entries(packed).map(([name, value]) => [name, tensor(value)]));
  const half = (bits) => {
    const [exponent, fraction] = [(bits >> 10) & 31, (bits & 1023) / 1024];
    return (bits & 32768 ? -1 : 1) * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
  };
  // Without Float16Array, as in Node 20, numbers of float16 come as their bits.
  const numbers = ({ type, data }) => Array.from(data, type === "float16" && data instanceof Uint16Array ? half : Number);
  const error = (found, wanted) => {
    if (String(found.dims) !== String(wanted.dims)) return Infinity;
    const [one, other] = [numbers(found), numbers(wanted)];
    return one.reduce((most, value, at) => Math.max(most, Math.abs(value - other[at])), 0);
  };
  const { load, prove, readGolden } = module;
  const model = await load(ort, `${source}/model.onnx`, { sessionOptions: { logSeverityLevel: 3 } });
  const report = await prove(model, await readGolden(`${source}/golden.json`, `${source}/golden.bin`));
  const share = Math.max(...report.cases.flatMap(({ outputs }) => outputs.map((output) => output.share)));
  const result = { folder, passed: report.passed, cases: report.cases.length, share };
  if (steps === null) return result;
  const stream = model.stream();
  const middle = steps.chunks.length / 2;
  const run = async (from, to) => {
    let most = 0;
    const compare = (outputs, expected) => {
      for (const name in expected) most = Math.max(most, error(outputs[name], tensor(expected[name])));
    };
    for (let at = from; at < to; at += 1) compare(await stream.run(tensors(steps.chunks[at])), steps.expected[at]);
    if (to === steps.chunks.length) compare(await stream.flush(), steps.expected[to]);
    return most;
  };
  const first = await run(0, middle);
  result.state = JSON.parse(JSON.stringify(stream.state));
  result.whole = Math.max(first, await run(middle, steps.chunks.length));
  stream.state = steps.middle;
  result.fromPython = await run(middle, steps.chunks.length);
  if (elsewhere) {
    stream.state = elsewhere;
    result.fromElsewhere = await run(middle, steps.chunks.length);
  }
  if (seconds) {
    // The same calls by hand; in turns, since the load of the machine changes.
    const chunk = tensors(steps.chunks[0]);
    const last = model.metadata.streaming?.last;
    const more = last ? { [last]: new ort.Tensor("int64", BigInt64Array.of(0n), [1]) } : {};
    const pairs = Object.entries(model.states);
    stream.reset();
    const states = { ...stream.state };
    const ours = async (count) => {
      for (let at = 0; at < count; at += 1) await stream.run(chunk);
    };
    const session = model.session;
    const byHand = async (count) => {
      for (let at = 0; at < count; at += 1) {
        const outputs = await session.run({ ...chunk, ...more, ...states });
        for (const [input, output] of pairs) states[input] = outputs[output];
      }
    };
    const times = { ours: [], byHand: [] };
    await ours(300);
    const begun = performance.now();
    await byHand(300);
    // A browser's clock has steps of 0.1 ms.
    const count = Math.max(10, Math.ceil((300 * 20) / (performance.now() - begun)));
    const until = performance.now() + seconds * 1000;
    for (let round = 0; performance.now() < until || round < 20; round += 1) {
      for (const which of round % 2 ? ["ours", "byHand"] : ["byHand", "ours"]) {
        const start = performance.now();
        await { ours, byHand }[which](count);
        times[which].push((performance.now() - start) / count);
      }
    }
    const median = (list) => [...list].sort((one, other) => one - other)[list.length >> 1];
    result.step = median(times.ours);
    result.ratio = median(times.ours.map((time, round) => time / times.byHand[round]));
  }
  return result;
}

const nodeOrt = require("onnxruntime-web");
nodeOrt.env.wasm.numThreads = 1;
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
const page = await context.newPage();
page.setDefaultTimeout(240000);
await page.goto(`${address}/${folders[0]}/README.md`);
await page.evaluate(`window.streamed = ${streamed}`);
for (const folder of folders) {
  const place = join(root, folder);
  const names = ["lstm-onnx.mjs", "golden.mjs"];
  const [mine, golden] = await Promise.all(names.map((name) => import(pathToFileURL(join(place, name)))));
  const steps = await readFile(join(place, "steps.json"), "utf-8").then(JSON.parse, () => null);
  const inNode = await streamed(nodeOrt, { ...mine, ...golden }, folder, place, steps, null, 0);
  const inChromium = await page.evaluate(async ([folder, steps, state, seconds]) => {
    const ort = await import(`/${folder}/ort/ort.wasm.bundle.min.mjs`);
    ort.env.wasm.numThreads = 1;
    const module = { ...(await import(`/${folder}/lstm-onnx.mjs`)), ...(await import(`/${folder}/golden.mjs`)) };
    return window.streamed(ort, module, folder, `/${folder}`, steps, state, seconds);
  }, [folder, steps, inNode.state ?? null, Number(process.env.STEP_SECONDS ?? 0)]);
  let back = null;
  if (steps !== null) {
    const model = await mine.load(nodeOrt, join(place, "model.onnx"), { sessionOptions: { logSeverityLevel: 3 } });
    await model.release();
    back = await streamed(nodeOrt, { ...mine, ...golden }, folder, place, steps, inChromium.state, 0);
  }
  delete inNode.state;
  delete inChromium.state;
  console.log(JSON.stringify({ folder, node: inNode, chromium: inChromium, back: back?.fromElsewhere ?? null }));
}
await context.close();
