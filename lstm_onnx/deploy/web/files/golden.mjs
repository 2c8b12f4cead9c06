/**
 * Prove a model on the machine where it runs: golden.json and golden.bin hold inputs, the outputs that they must give,
 * and how far each output may be off.
 *
 *     const report = await prove(model, await readGolden("golden.json", "golden.bin"));
 *     if (!report.passed) throw new Error("the model computes something else here");
 */

const ARRAYS = {
  float16: Uint16Array, float32: Float32Array, float64: Float64Array, bool: Uint8Array,
  int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array,
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array,
};

// As in lstm-onnx.mjs: no literal, and commented, for bundlers.
const NODE_FILES = "node:fs/promises";

async function bytesOf(source) {
  if (typeof process === "object" && process.versions?.node && !/^(https?|data|blob):/.test(String(source))) {
    const { readFile } = await import(/* webpackIgnore: true */ /* @vite-ignore */ NODE_FILES);
    return new Uint8Array(await readFile(source));
  }
  const response = await fetch(source);
  if (!response.ok) throw new Error(`${source}: cannot be read: HTTP status ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** The golden data of two URLs (in Node also paths). */
export async function readGolden(json, bin) {
  const [text, content] = await Promise.all([bytesOf(json), bytesOf(bin)]);
  const golden = JSON.parse(new TextDecoder().decode(text));
  if (golden.schema !== 1) throw new Error(`${json}: has the layout ${golden.schema}, and this module reads 1`);
  if (golden.bytes !== content.length) {
    throw new Error(`${bin}: has ${content.length} bytes, and ${json} is of one with ${golden.bytes}: copy both again`);
  }
  return { ...golden, content: content.slice().buffer };
}

/** A stored array as a tensor's data, and its shape. */
function arrayOf(golden, { dtype, shape, offset }) {
  const size = shape.reduce((product, dim) => product * dim, 1);
  return new ARRAYS[dtype](golden.content, offset, size);
}

function tensorOf(ort, golden, entry) {
  return new ort.Tensor(entry.dtype, arrayOf(golden, entry).slice(), entry.shape);
}

/** float16 bits as a number. */
function ofHalf(bits) {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

function numbersOf(data, dtype) {
  return Array.from(data, dtype === "float16" && data instanceof Uint16Array ? ofHalf : Number);
}

/** How an output differs from the expected one. */
function compare(name, tensor, expected, golden, every) {
  const result = { name, error: NaN, allowed: expected.allowed, share: Infinity, passed: false, problem: "" };
  if (tensor === undefined) return { ...result, problem: "is not an output of the model" };
  const step = tensor.dims.length ? every ?? 1 : 1;
  const dims = tensor.dims.map((dim, axis) => (axis === tensor.dims.length - 1 ? Math.ceil(dim / step) : dim));
  if (String(dims) !== String(expected.shape)) {
    return { ...result, problem: `has shape (${dims.join(", ")}), and must have (${expected.shape.join(", ")})` };
  }
  let actual = numbersOf(tensor.data, tensor.type);
  if (step > 1) {
    const width = tensor.dims.at(-1);
    actual = actual.filter((_, at) => (at % width) % step === 0);
  }
  const wanted = numbersOf(arrayOf(golden, expected), expected.dtype);
  if (!expected.dtype.startsWith("float")) {
    const free = new Set(expected.free ?? []);
    const error = wanted.filter((number, at) => actual[at] !== number && !free.has(at)).length;
    const passed = error <= expected.allowed;
    return { ...result, error, share: passed ? 0 : Infinity, passed, problem: passed ? "" : `${error} integers differ` };
  }
  let error = 0;
  for (let at = 0; at < wanted.length; at += 1) {
    if (Object.is(actual[at], wanted[at]) || actual[at] === wanted[at]) continue; // the same NaN or infinity, too
    const off = Math.abs(actual[at] - wanted[at]);
    if (Number.isNaN(off)) return { ...result, problem: "is not a number where it must be, or the other way round" };
    if (off > error) error = off;
  }
  return { ...result, error, share: error / expected.allowed, passed: error <= expected.allowed };
}

/** `size` steps of a tensor from `start` on. */
function cut(ort, tensor, axis, start, size) {
  const outer = tensor.dims.slice(0, axis).reduce((product, dim) => product * dim, 1);
  const inner = tensor.dims.slice(axis + 1).reduce((product, dim) => product * dim, 1);
  const data = new tensor.data.constructor(outer * size * inner);
  for (let row = 0; row < outer; row += 1) {
    const from = (row * tensor.dims[axis] + start) * inner;
    data.set(tensor.data.subarray(from, from + size * inner), row * size * inner);
  }
  return new ort.Tensor(tensor.type, data, tensor.dims.map((dim, at) => (at === axis ? size : dim)));
}

/** Tensors joined along an axis. */
export function concatenate(ort, tensors, axis) {
  const [first] = tensors;
  const dims = first.dims.map((dim, at) => (at === axis ? tensors.reduce((sum, tensor) => sum + tensor.dims[at], 0) : dim));
  const outer = dims.slice(0, axis).reduce((product, dim) => product * dim, 1);
  const data = new first.data.constructor(dims.reduce((product, dim) => product * dim, 1));
  let at = 0;
  for (let row = 0; row < outer; row += 1) {
    for (const tensor of tensors) {
      const width = tensor.data.length / outer;
      data.set(tensor.data.subarray(row * width, (row + 1) * width), at);
      at += width;
    }
  }
  return new ort.Tensor(first.type, data, dims);
}

function withStates(model, stream, outputs) {
  const { state } = stream;
  const ends = Object.entries(model.states).map(([name, output]) => [output, state[name]]);
  return { ...outputs, ...Object.fromEntries(ends) };
}

/** The outputs of chunks of a stream that starts from the states among the feeds of the first. */
async function runChunks(model, golden, item, chunks) {
  const stream = model.stream({ batch: item.batch, check: false });
  const given = Object.entries(chunks[0]).filter(([name]) => name in model.states);
  if (given.length) stream.state = { ...stream.state, ...Object.fromEntries(given) };
  const outputs = [];
  for (const chunk of chunks) {
    const feeds = Object.fromEntries(Object.entries(chunk).filter(([name]) => !(name in model.states)));
    outputs.push(withStates(model, stream, await stream.run(feeds)));
    stream.state = JSON.parse(JSON.stringify(stream.state)); // saved, and loaded again
  }
  if (model.metadata.streaming) outputs.push(withStates(model, stream, await stream.flush()));
  return outputs;
}

function feedsOf(model, golden, call) {
  return Object.fromEntries(Object.entries(call.feeds).map(([name, entry]) => [name, tensorOf(model.ort, golden, entry)]));
}

/** The outputs of each call of a case; of a stream that is cut in several ways, each way is a call. */
async function outputsOf(model, golden, item) {
  const feeds = item.calls.map((call) => feedsOf(model, golden, call));
  if (item.kind !== "stream") {
    const found = [];
    for (const [at, one] of feeds.entries()) found.push([item.calls[at], await model.run(one)]);
    return found;
  }
  if (!item.chunkings.length) {
    const outputs = await runChunks(model, golden, item, feeds);
    return item.calls.map((call, at) => [call, outputs[at]]);
  }
  const found = [];
  for (const sizes of item.chunkings) {
    let start = 0;
    const chunks = sizes.map((size) => {
      const chunk = Object.entries(feeds[0]).map(([name, tensor]) => {
        const axis = item.time_axes[name];
        return [name, axis === undefined ? tensor : cut(model.ort, tensor, axis, start, size)];
      });
      start += size;
      return Object.fromEntries(chunk);
    });
    const parts = await runChunks(model, golden, item, chunks);
    const whole = Object.entries(parts.at(-1)).map(([name, last]) => {
      const axis = item.time_axes[name];
      return [name, axis === undefined ? last : concatenate(model.ort, parts.map((part) => part[name]), axis)];
    });
    found.push([item.calls[0], Object.fromEntries(whole)]);
  }
  return found;
}

/**
 * Runs `model` on every case.  Returns whether all passed, and for each case the largest error of each output, which is
 * allowed to be `allowed`; `share` is their quotient.  `onCase(result, number, count)` is called after each case.
 */
export async function prove(model, golden, { onCase } = {}) {
  const cases = [];
  for (const item of golden.cases) {
    const started = performance.now();
    const result = { label: item.label, kind: item.kind, calls: 0, passed: true, error: "", outputs: [] };
    try {
      const worst = new Map();
      for (const [call, outputs] of await outputsOf(model, golden, item)) {
        result.calls += 1;
        for (const [name, expected] of Object.entries(call.expected)) {
          const found = compare(name, outputs[name], expected, golden, item.every[name]);
          const before = worst.get(name);
          if (!before || (before.passed && (!found.passed || found.share > before.share))) worst.set(name, found);
        }
      }
      result.outputs = [...worst.values()];
      result.passed = result.outputs.every((output) => output.passed);
    } catch (error) {
      Object.assign(result, { passed: false, error: String(error.message ?? error) });
    }
    result.milliseconds = performance.now() - started;
    cases.push(result);
    await onCase?.(result, cases.length, golden.cases.length);
  }
  return { passed: cases.length > 0 && cases.every((one) => one.passed), cases };
}

/** The feeds of one step, or of the smallest chunk that always gives one; of a whole run for a model without streams. */
export function exampleFeeds(model, golden) {
  const item = golden.cases.find((one) => one.kind === "stream") ?? golden.cases[0];
  const feeds = feedsOf(model, golden, item.calls[0]);
  if (item.kind !== "stream") return { batch: item.batch, streams: false, steps: null, feeds };
  const { hop } = model.stream({ batch: item.batch, check: false });
  const { chunk = 1 } = model.metadata.streaming ?? {};
  const unit = hop % chunk ? hop * chunk : hop;
  let steps = null;
  const entries = Object.entries(feeds).filter(([name]) => !(name in model.states)).map(([name, tensor]) => {
    const axis = item.time_axes[name];
    if (axis === undefined) return [name, tensor];
    steps = Math.min(unit, tensor.dims[axis]);
    return [name, cut(model.ort, tensor, axis, 0, steps)];
  });
  return { batch: item.batch, streams: true, steps, feeds: Object.fromEntries(entries) };
}
