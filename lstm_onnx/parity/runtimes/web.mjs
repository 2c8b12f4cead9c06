// ONNX Runtime Web in Node: opens and runs files on request, in the messages of frames.py.
// Arguments: the folder of npm packages, and the number of threads (0 for the default).
import { readFileSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const ARRAYS = {
  bool: ["bool", Uint8Array],
  float16: ["float16", typeof Float16Array === "undefined" ? Uint16Array : Float16Array],
  float32: ["float32", Float32Array],
  float64: ["float64", Float64Array],
  int16: ["int16", Int16Array],
  int32: ["int32", Int32Array],
  int64: ["int64", BigInt64Array],
  int8: ["int8", Int8Array],
  uint16: ["uint16", Uint16Array],
  uint32: ["uint32", Uint32Array],
  uint64: ["uint64", BigUint64Array],
  uint8: ["uint8", Uint8Array],
};

function readBytes(size) {
  const bytes = Buffer.alloc(size);
  let at = 0;
  while (at < size) {
    let count;
    try {
      count = readSync(0, bytes, at, size - at);
    } catch (error) {
      if (error.code === "EAGAIN") continue;
      throw error;
    }
    if (count === 0) process.exit(0); // the parent has closed its end
    at += count;
  }
  return bytes;
}

function readMessage() {
  const header = JSON.parse(readBytes(readBytes(4).readUInt32LE()).toString());
  const feeds = {};
  for (const { name, dtype, shape } of header.arrays) {
    const [type, kind] = ARRAYS[dtype];
    const size = shape.reduce((product, dim) => product * dim, 1);
    const bytes = readBytes(size * kind.BYTES_PER_ELEMENT);
    const copy = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length); // aligned
    feeds[name] = new ort.Tensor(type, new kind(copy, 0, size), shape);
  }
  return [header, feeds];
}

function writeAll(bytes) {
  let at = 0;
  while (at < bytes.length) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

function writeMessage(fields, tensors = {}) {
  const arrays = [];
  const parts = [];
  for (const [name, { type, dims, data }] of Object.entries(tensors)) {
    arrays.push({ name, dtype: type, shape: [...dims] });
    parts.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  }
  const header = Buffer.from(JSON.stringify({ ...fields, arrays }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(header.length);
  writeAll(Buffer.concat([length, header, ...parts]));
}

function reason(error) {
  return String(error?.message ?? error).slice(0, 500).replaceAll(/\s+/g, " ");
}

console.log = console.info = console.warn = console.error; // stdout carries the answers
const [folder, threads] = [process.argv[2], Number(process.argv[3])];
let ort;
try {
  const home = join(folder, "onnxruntime-web");
  ort = await import(pathToFileURL(join(home, "dist", "ort.node.min.mjs")));
  ort = ort.default?.InferenceSession ? ort.default : ort;
  ort.env.logLevel = "error";
  if (threads) ort.env.wasm.numThreads = threads;
  writeMessage({ version: JSON.parse(readFileSync(join(home, "package.json"))).version });
} catch (error) {
  writeMessage({ error: reason(error) });
  process.exit(1);
}

const sessions = new Map();
for (;;) {
  const [header, feeds] = readMessage();
  try {
    for (const number of header.forget) {
      await sessions.get(number)?.release();
      sessions.delete(number);
    }
    if (header.path !== undefined) {
      const model = new Uint8Array(readFileSync(header.path));
      const options = { executionProviders: ["wasm"], logSeverityLevel: 4 };
      sessions.set(header.file, await ort.InferenceSession.create(model, options));
      writeMessage({});
    } else {
      writeMessage({}, await sessions.get(header.file).run(feeds));
    }
  } catch (error) {
    writeMessage({ error: reason(error) });
  }
}
