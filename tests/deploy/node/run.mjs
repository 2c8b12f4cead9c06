// Runs jobs of test_web_node.py: node run.mjs NODE_MODULES FILES; each line of stdin is a list of jobs as JSON, and each
// line of stdout their results.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createInterface } from "node:readline";

const [modules, files] = process.argv.slice(2);
const { load } = await import(pathToFileURL(join(files, "lstm-onnx.mjs")));
const { concatenate, prove, readGolden } = await import(pathToFileURL(join(files, "golden.mjs")));

async function runtime(name) {
  if (name === "none") return {};
  if (name === "onnxruntime-node") return createRequire(join(modules, "x.js"))(name);
  const ort = await import(pathToFileURL(join(modules, "onnxruntime-web/dist/ort.node.min.mjs")));
  ort.env.wasm.numThreads = 1;
  return ort;
}

const ARRAYS = {
  bool: Uint8Array, float16: Uint16Array, float32: Float32Array, float64: Float64Array, int32: Int32Array,
  int64: BigInt64Array,
};
const tensor = (ort, { dtype, shape, data }) => {
  if (dtype === "uint8") return new ort.Tensor(dtype, Buffer.from(data, "base64"), shape); // as what Node reads
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new ort.Tensor(dtype, new ARRAYS[dtype](bytes.buffer), shape);
};
const tensors = (ort, items) => Object.fromEntries(Object.entries(items).map(([name, item]) => [name, tensor(ort, item)]));
const packed = (items) =>
  Object.fromEntries(Object.entries(items).map(([name, { type, dims, data }]) => {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    return [name, { dtype: type, shape: dims, data: bytes.toString("base64") }];
  }));

async function perform(ort, job) {
  const model = await load(ort, job.model, { ...job.options, sessionOptions: { intraOpNumThreads: 1, ...job.options?.sessionOptions } });
  if (job.kind === "prove") {
    const folder = job.folder;
    return prove(model, await readGolden(join(folder, "golden.json"), join(folder, "golden.bin")));
  }
  if (job.kind === "run") return packed(await model.run(tensors(ort, job.feeds)));
  if (job.kind === "stream") {
    const stream = model.stream(job.stream);
    if (job.state) stream.state = job.state;
    const outputs = [];
    for (const feeds of job.chunks) outputs.push(await stream.run(tensors(ort, feeds)));
    const state = JSON.parse(JSON.stringify(stream.state));
    if (job.flush) outputs.push(await stream.flush());
    return { outputs: outputs.map(packed), state, delay: stream.delay, hop: stream.hop };
  }
  if (job.kind === "warned") {
    const stream = model.stream();
    const warnings = [];
    const { warn } = console;
    console.warn = (text) => warnings.push(text);
    for (const feeds of job.chunks) await stream.run(tensors(ort, feeds));
    await model.run(tensors(ort, job.chunks[0]));
    console.warn = warn;
    return { warnings };
  }
  if (job.kind === "warned run") {
    let warning = "";
    const { warn } = console;
    console.warn = (text) => (warning = text);
    await model.run(tensors(ort, job.feeds));
    console.warn = warn;
    return { warning };
  }
  if (job.kind === "unawaited runs") {
    const running = job.chunks.map((feeds) => {
      const given = tensors(ort, feeds);
      const outputs = model.run(given);
      for (const { data } of Object.values(given)) data.fill(0);
      return outputs;
    });
    return (await Promise.all(running)).map(packed);
  }
  if (job.kind === "disposed") {
    const given = tensors(ort, job.feeds);
    for (const tensor of Object.values(given)) tensor.dispose();
    const running = [model.stream().run(given), model.run(given)]; // neither throws here
    return Promise.all(running.map((outputs) => outputs.catch((error) => `${error.constructor.name}: ${error.message}`)));
  }
  if (job.kind === "cloned state") {
    const stream = model.stream();
    stream.state = { ...structuredClone({ ...stream.state }) };
    return {};
  }
  if (job.kind === "unawaited") {
    const stream = model.stream();
    const running = job.chunks.map((feeds) => {
      const given = tensors(ort, feeds);
      const outputs = stream.run(given);
      for (const { data } of Object.values(given)) data.fill(0); // the caller's memory for the next chunk
      return outputs;
    });
    let refused = "";
    try {
      stream.reset();
    } catch (error) {
      refused = error.message;
    }
    const outputs = (await Promise.all(running)).map(packed);
    return { outputs, refused, nothing: await stream.run(null).catch((error) => error.message) };
  }
  if (job.kind === "joined") return packed({ joined: concatenate(ort, job.parts.map((part) => tensor(ort, part)), job.axis) });
  throw new Error(job.kind);
}

const exact = (_, value) => (typeof value !== "number" || Number.isFinite(value) ? value : String(value));
for await (const line of createInterface({ input: process.stdin })) {
  const results = [];
  for (const job of JSON.parse(line)) {
    const ort = await runtime(job.runtime);
    try {
      results.push({ result: await perform(ort.InferenceSession ? ort : ort.default, job) });
    } catch (error) {
      results.push({ error: error.message, kind: error.constructor.name, input: error.input ?? null });
    }
  }
  console.log(JSON.stringify(results, exact));
}
