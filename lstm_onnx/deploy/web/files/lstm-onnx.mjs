/**
 * Run and stream models of lstm-onnx with ONNX Runtime, in browsers and in Node.
 *
 *     import * as ort from "onnxruntime-web"; // or "onnxruntime-node"
 *     import { load } from "./lstm-onnx.mjs";
 *
 *     const model = await load(ort, "model.onnx");
 *     const stream = model.stream();
 *     const outputs = await stream.run({ input: new ort.Tensor("float32", samples, [1, 1, 4]) });
 *
 * What the file's metadata says is done as in Python: absent states and lengths are filled in, and inputs are checked
 * before ONNX Runtime sees them, since some others (a batch of 0) end its process.  Types are in lstm-onnx.d.mts.
 */

const PREFIX = "lstm_onnx.";
const CHECKSUM = `${PREFIX}checksum`;
const BATCH = "batch";
const HIDING_NAN = ["LSTM", "GRU", "RNN"]; // ONNX Runtime's make ordinary numbers of it
const LSTM_STATES = { h0: "hn", c0: "cn" };
const DTYPES = [
  null, "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "float64",
  "uint32", "uint64",
];
const ARRAYS = {
  float16: Uint16Array, // ONNX Runtime takes it for float16, whether or not there is a Float16Array
  float32: Float32Array, float64: Float64Array, bool: Uint8Array,
  int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array,
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array,
};

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit += 1) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

// --- errors ----------------------------------------------------------------------------------------------------------

/** The base class of every error of this module; `message` is "PATH: what is wrong; how to fix it". */
export class LSTMOnnxError extends Error {
  constructor(message, { path, hint, name, cause } = {}) {
    super(`${path ? `${path}: ` : ""}${message}${hint ? `; ${hint}` : ""}`, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.input = name ?? null;
    this.hint = hint ?? null;
  }
}
/** The file is not a model, or not one that this module can run. */
export class ModelError extends LSTMOnnxError {}
/** Tensors passed to a model do not fit it: name, rank, shape, dtype or range. */
export class InputError extends LSTMOnnxError {}
/** ONNX Runtime accepted the inputs, and failed while running. */
export class RunError extends LSTMOnnxError {}

// --- the file: a reader of the few protobuf fields that are needed ---------------------------------------------------

/** Calls `on[field](value)` for each field of a message: a Uint8Array for strings and messages, else a number. */
function readMessage(bytes, on) {
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (at >= bytes.length) throw new RangeError("it ends too early");
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
    throw new RangeError("a number in it is too long");
  };
  while (at < bytes.length) {
    const tag = varint();
    const field = Math.floor(tag / 8);
    let value;
    if (tag % 8 === 0) value = varint();
    else {
      const size = { 1: 8, 2: -1, 5: 4 }[tag % 8];
      if (size === undefined) throw new RangeError("it has a field of an unknown kind");
      const length = size < 0 ? varint() : size;
      if (length < 0 || at + length > bytes.length) throw new RangeError("it ends too early");
      value = bytes.subarray(at, at + length);
      at += length;
    }
    on[field]?.(value);
  }
}

/** What the checksum of a file is: the CRC-32 of all bytes, with zeros in place of the digits in `entry`, as JSON. */
function checksum(bytes, entry) {
  const start = entry.byteOffset - bytes.byteOffset + 1; // after its quote
  let crc = -1;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = at >= start && at < start + 8 ? 48 : bytes[at];
    crc = (crc >>> 8) ^ CRC[(crc ^ byte) & 255];
  }
  return JSON.stringify((~crc >>> 0).toString(16).padStart(8, "0"));
}

/** The inputs, outputs, operators and metadata of an ONNX file, and whether another tool has changed it. */
function readModel(bytes, path) {
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  const text = (value) => utf8.decode(value);
  const valueInfo = (message) => {
    const info = { name: "", dtype: null, shape: [] };
    const dim = (value) => {
      let size = null;
      readMessage(value, { 1: (n) => (size = n), 2: (name) => (size = text(name) || null) });
      info.shape.push(size);
    };
    const tensor = (value) =>
      readMessage(value, { 1: (n) => (info.dtype = DTYPES[n] ?? null), 2: (shape) => readMessage(shape, { 1: dim }) });
    readMessage(message, { 1: (name) => (info.name = text(name)), 2: (type) => readMessage(type, { 1: tensor }) });
    return info;
  };
  const found = { inputs: {}, outputs: {}, properties: {}, hasGraph: false, operators: new Set(), isChanged: false };
  const initializers = new Set();
  const property = (value) => {
    const item = { key: "", value: "" };
    let bytesOfValue = null;
    readMessage(value, { 1: (key) => (item.key = text(key)), 2: (v) => (item.value = text((bytesOfValue = v))) });
    found.properties[item.key] = item.value;
    if (item.key === CHECKSUM) found.isChanged = checksum(bytes, bytesOfValue) !== item.value;
  };
  const add = (values) => (value) => {
    const info = valueInfo(value);
    values[info.name] = info;
  };
  const attribute = (message) => readMessage(message, { 6: body, 11: body });
  const node = (message) => readMessage(message, { 4: (type) => found.operators.add(text(type)), 5: attribute });
  const body = (message) => readMessage(message, { 1: node });
  const graph = (value) => {
    found.hasGraph = true;
    const initializer = (tensor) => readMessage(tensor, { 8: (name) => initializers.add(text(name)) });
    readMessage(value, { 1: node, 5: initializer, 11: add(found.inputs), 12: add(found.outputs) });
  };
  try {
    readMessage(bytes, { 7: graph, 14: property, 25: (one) => readMessage(one, { 7: node }) });
  } catch (error) {
    throw new ModelError(`is not an ONNX model: ${error.message}`, { path, cause: error });
  }
  if (!found.hasGraph) throw new ModelError("is not an ONNX model: it has no graph", { path });
  for (const name of initializers) delete found.inputs[name]; // old files list their weights among the inputs
  return found;
}

/** The metadata of lstm-onnx: the JSON values of its keys, without the prefix. */
function readMetadata(properties, path) {
  const metadata = {};
  for (const [key, value] of Object.entries(properties)) {
    if (!key.startsWith(PREFIX) || key === CHECKSUM) continue;
    try {
      metadata[key.slice(PREFIX.length)] = JSON.parse(value);
    } catch (error) {
      const message = `the metadata lstm_onnx.* is damaged (${error.message})`;
      throw new ModelError(message, { path, hint: "export the model again", cause: error });
    }
  }
  return metadata;
}

// No literal, and commented: bundlers for browsers would look for a module of Node, and fail.
const NODE_FILES = "node:fs/promises";

async function readSource(source) {
  if (source instanceof ArrayBuffer) return { path: "model", bytes: new Uint8Array(source) };
  if (ArrayBuffer.isView(source)) {
    return { path: "model", bytes: new Uint8Array(source.buffer, source.byteOffset, source.byteLength) };
  }
  const path = String(source);
  try {
    if (typeof process === "object" && process.versions?.node && !/^(https?|data|blob):/.test(path)) {
      const { readFile } = await import(/* webpackIgnore: true */ /* @vite-ignore */ NODE_FILES);
      return { path, bytes: new Uint8Array(await readFile(source instanceof URL ? source : path)) };
    }
    const response = await fetch(source);
    if (!response.ok) throw new Error(`HTTP status ${response.status}`);
    return { path, bytes: new Uint8Array(await response.arrayBuffer()) };
  } catch (error) {
    throw new ModelError(`cannot be read: ${error.message ?? error}`, { path, cause: error });
  }
}

// --- axes whose size is an expression of others: 4*batch, (time - 1)//2 + 1 ------------------------------------------

const NAME = /^[\p{L}_][\p{L}\p{N}_]*$/u;
const NAMES = /[\p{L}_][\p{L}\p{N}_]*(?:\.[\p{L}\p{N}_]+)*/gu; // some tools number their axes: DynamicDimension.0
const TOKEN = /\s*(\/\/|[-+*%()]|\d+|[\p{L}_][\p{L}\p{N}_]*)/uy;

/** The size of an axis; null where it has no name, or `sizes` lack a name in it. */
function sizeOf(dim, sizes) {
  if (typeof dim !== "string") return dim;
  if (sizes.has(dim)) return sizes.get(dim);
  if (NAME.test(dim) || dim.length > 200) return null;
  const tokens = [];
  TOKEN.lastIndex = 0;
  const text = dim.trimEnd();
  while (TOKEN.lastIndex < text.length) {
    const token = TOKEN.exec(text);
    if (token === null) return null;
    tokens.push(token[1]);
  }
  let at = 0;
  const atom = () => {
    const token = tokens[at++];
    if (token === "-") return -atom();
    if (token === "(") {
      const value = sum();
      return tokens[at++] === ")" ? value : NaN;
    }
    if (/^\d+$/.test(token)) return Number(token);
    return NAME.test(token ?? "") ? sizes.get(token) ?? NaN : NaN;
  };
  const product = () => {
    let value = atom();
    while (["*", "//", "%"].includes(tokens[at])) {
      const operator = tokens[at++];
      const other = atom();
      value = operator === "*" ? value * other : operator === "//" ? Math.floor(value / other)
        : value - other * Math.floor(value / other);
    }
    return value;
  };
  const sum = () => {
    let value = product();
    while (tokens[at] === "+" || tokens[at] === "-") value = tokens[at++] === "+" ? value + product() : value - product();
    return value;
  };
  const value = sum();
  return at === tokens.length && Number.isSafeInteger(value) ? value : null;
}

// --- tensors ---------------------------------------------------------------------------------------------------------

const tuple = (shape) => `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;
const described = (info) => `${info.name} ${info.dtype} (${info.shape.map((dim) => dim ?? "?").join(", ")})`;
const product = (shape) => shape.reduce((size, dim) => size * dim, 1);
const isDynamic = (dim) => typeof dim !== "number";
const sameShape = (one, other) => {
  if (one.length !== other.length) return false;
  for (let axis = 0; axis < one.length; axis += 1) if (one[axis] !== other[axis]) return false;
  return true;
};
const numbersOf = (tensor) => Array.from(tensor.data, Number);
/** What is finite, infinite or NaN as the float16 of these bits is; its other numbers are not of interest here. */
const ofHalf = (bits) => ((bits & 0x7c00) !== 0x7c00 ? 0 : bits & 0x3ff ? NaN : Infinity);

function requireKnownNames(infos, feeds) {
  for (const name of Object.keys(feeds)) {
    if (!Object.hasOwn(infos, name)) {
      const hint = `its inputs are ${Object.keys(infos).join(", ")}`;
      throw new InputError(`${name} is not an input of the model`, { hint, name });
    }
  }
}

/** A copy of a tensor; the method `slice` of Node's Buffer, which may hold bytes or bools, makes none. */
const copied = (ort, { type, dims, data }) =>
  new ort.Tensor(type, ArrayBuffer.isView(data) ? Uint8Array.prototype.slice.call(data) : data.slice(), dims);

/** Copies of tensors: before the run begins the caller may write the next numbers into the same memory. */
function held(ort, feeds) {
  if (feeds === null || typeof feeds !== "object") return feeds;
  const copies = {};
  for (const name in feeds) {
    const tensor = feeds[name];
    try {
      const isHere = Array.isArray(tensor?.dims) && ["cpu", "none", undefined].includes(tensor.location); // none: disposed
      copies[name] = isHere && ArrayBuffer.isView(tensor.data) ? copied(ort, tensor) : tensor;
    } catch (error) { // it was disposed, or its memory went to a worker, or its size is not that of its shape
      const hint = "create it anew with new ort.Tensor";
      throw new InputError(`${name} cannot be read: ${error.message}`, { name, hint, cause: error });
    }
  }
  return copies;
}

function requireObject(feeds) {
  if (feeds === null || typeof feeds !== "object") {
    throw new InputError(`run takes names to tensors, such as {name: tensor}, and not a ${typeof feeds}`);
  }
}

/** Checks that one tensor fits; `axes` collects the sizes of named axes, and which input gave them. */
function validate(info, tensor, axes, limits) {
  const { name, shape } = info;
  const dims = tensor?.dims;
  if (!Array.isArray(dims) || typeof tensor.type !== "string") {
    throw new InputError(`${name} is not an ort.Tensor`, { name, hint: `the model takes ${described(info)}` });
  }
  if (info.dtype !== null && tensor.type !== info.dtype) {
    const hint = `the model takes ${info.dtype} (new ort.Tensor("${info.dtype}", ...))`;
    throw new InputError(`${name} has dtype ${tensor.type}`, { name, hint });
  }
  if (dims.length !== shape.length) {
    const hint = `the model takes ${shape.length} axes: ${described(info)}`;
    throw new InputError(`${name} has shape ${tuple(dims)}`, { name, hint });
  }
  for (let axis = 0; axis < dims.length; axis += 1) {
    const size = dims[axis];
    const dim = shape[axis];
    if (size === 0) {
      const message = `${name} has shape ${tuple(dims)}: the axis ${dim ?? axis} is empty`;
      throw new InputError(message, { name, hint: "it must be at least 1" });
    }
    if (typeof dim === "number" && dim > 0) {
      if (size !== dim) {
        const hint = `axis ${axis} must be ${dim}: ${described(info)}`;
        throw new InputError(`${name} has shape ${tuple(dims)}`, { name, hint });
      }
    } else if (typeof dim === "string") {
      const known = axes.get(dim);
      if (known === undefined) axes.set(dim, { size, name });
      else if (known.size !== size) {
        const other = `${known.name} has ${dim} = ${known.size}`;
        throw new InputError(`${name} has shape ${tuple(dims)}, so ${dim} is ${size}, but ${other}`, { name });
      }
      const [least, largest] = limits?.[dim] ?? [1, null];
      if (size < least || (largest !== null && size > largest)) {
        const allowed = largest === null ? `${least} or more` : least === largest ? least : `from ${least} to ${largest}`;
        const hint = `the model is right only if ${dim} is ${allowed}`;
        throw new InputError(`${name} has shape ${tuple(dims)}, so ${dim} is ${size}`, { name, hint });
      }
    }
  }
}

/** Checks that all tensors fit, together, and none is missing but `optional` ones, which are if no other is. */
function validateFeeds(infos, feeds, limits, optional = []) {
  requireKnownNames(infos, feeds);
  const axes = new Map();
  const absent = [];
  for (const name in infos) {
    if (Object.hasOwn(feeds, name)) validate(infos[name], feeds[name], axes, limits);
    else absent.push(name);
  }
  const needed = absent.filter((name) => !optional.includes(name));
  const missing = needed.length ? needed : absent;
  if (missing.length) {
    const wanted = missing.map((name) => described(infos[name])).join("; ");
    throw new InputError(`missing input: ${wanted}`, { name: missing[0] });
  }
  let sizes = null;
  for (const [dim, { size, name }] of axes) {
    if (NAME.test(dim)) continue;
    sizes ??= new Map([...axes].filter(([other]) => NAME.test(other)).map(([other, found]) => [other, found.size]));
    const expected = sizeOf(dim, sizes);
    if (expected !== null && expected !== size) {
      const message = `${name} has shape ${tuple(feeds[name].dims)}, so ${dim} is ${size}`;
      throw new InputError(`${message}, but the other inputs make it ${expected}`, { name });
    }
  }
}

/** The sizes of the named axes of the given tensors. */
function axisSizes(infos, feeds) {
  const sizes = new Map();
  for (const name in feeds) {
    const shape = infos[name]?.shape;
    const dims = feeds[name]?.dims;
    if (shape?.length !== dims?.length) continue;
    shape?.forEach((dim, axis) => {
      if (typeof dim === "string" && !sizes.has(dim)) sizes.set(dim, dims[axis]);
    });
  }
  return sizes;
}

/** The inputs whose integers count along an axis, as lengths do along time, and the least of them. */
function countsOf(metadata, inputs) {
  if (metadata.spec) return inputs.lengths ? { lengths: { low: 1, axis: "time" } } : {};
  const counts = {};
  for (const { name, low, high } of metadata.inputs ?? []) {
    if (typeof high === "string" && inputs[name]) counts[name] = { low: Math.trunc(low ?? 0), axis: high };
  }
  return counts;
}

function requireCounts(counts, feeds, sizes) {
  for (const [name, { low, axis }] of Object.entries(counts)) {
    const tensor = feeds[name];
    if (!/^u?int/.test(tensor?.type ?? "")) continue;
    const size = sizes.get(axis);
    const at = tensor.data.findIndex((value) => value < low || (size !== undefined && value > size));
    const allowed = size === undefined ? `${low} or more` : `from ${low} to ${axis}, ${size}`;
    if (at >= 0) throw outOfRange(name, tensor, at, `it must be ${allowed}`);
  }
}

/** Refuses rows that a table does not have: PyTorch does so, and a graph takes -1 for the last one. */
function requireTableRows(tableRows, feeds) {
  for (const [name, rows] of Object.entries(tableRows)) {
    const tensor = feeds[name];
    if (!/^u?int/.test(tensor?.type ?? "")) continue;
    const at = tensor.data.findIndex((value) => value < 0 || value >= rows);
    const hint = `it must be from 0 to ${rows - 1}: the model looks it up in a table of ${rows} rows`;
    if (at >= 0) throw outOfRange(name, tensor, at, hint);
  }
}

function outOfRange(name, tensor, at, hint) {
  const index = [];
  for (let axis = tensor.dims.length - 1, rest = at; axis >= 0; axis -= 1) {
    index.unshift(rest % tensor.dims[axis]);
    rest = Math.floor(rest / tensor.dims[axis]);
  }
  const place = index.length ? `[${index.join(", ")}]` : "";
  return new InputError(`${name}${place} is ${tensor.data[at]}`, { name, hint });
}

// --- states ----------------------------------------------------------------------------------------------------------

/** A tensor as JSON, in the form that the metadata has, and Python's lstm_onnx.state_from_json reads. */
function packed(tensor) {
  const { buffer, byteOffset, byteLength } = tensor.data;
  const bytes = new Uint8Array(buffer, byteOffset, byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  return { dtype: tensor.type, shape: [...tensor.dims], data: btoa(text) };
}

function unpacked(ort, name, item) {
  const kind = ARRAYS[item?.dtype];
  try {
    const bytes = Uint8Array.from(atob(item.data), (character) => character.charCodeAt(0));
    const size = product(item.shape);
    if (kind === undefined || bytes.length !== size * kind.BYTES_PER_ELEMENT) throw new TypeError("its size is wrong");
    return new ort.Tensor(item.dtype, new kind(bytes.buffer), item.shape);
  } catch (error) {
    const hint = 'it must be {"dtype": ..., "shape": [...], "data": base64}';
    throw new InputError(`${name} is not a tensor as JSON (${error.message})`, { name, hint, cause: error });
  }
}

/** Initial states of the metadata, in the dtypes of the graph. */
function initialStates(ort, metadata, inputs, path) {
  const states = {};
  for (const [name, item] of Object.entries(metadata.initial ?? {})) {
    const info = inputs[name];
    const hint = "export the model again";
    if (!info) {
      throw new ModelError(`the metadata has an initial state for '${name}', which is not an input`, { path, hint, name });
    }
    let state = unpacked(ort, name, item);
    const fits = state.dims.length === info.shape.length && state.dims.every((n, at) => isDynamic(info.shape[at]) || n === info.shape[at]);
    const widths = ["float32", "float64"];
    if (fits && state.type !== info.dtype && widths.includes(state.type) && widths.includes(info.dtype)) {
      state = new ort.Tensor(info.dtype, ARRAYS[info.dtype].from(state.data), state.dims);
    }
    if (!fits || state.type !== info.dtype || !state.data.length) {
      const found = `${state.type} ${tuple(state.dims)}`;
      throw new ModelError(`the metadata's initial state for ${described(info)} is ${found}, which does not fit`, { path, hint, name });
    }
    states[name] = state;
  }
  return states;
}

/** `tensor` with its axes of size 1 repeated to `shape`. */
function broadcast(ort, tensor, shape) {
  const data = new tensor.data.constructor(product(shape));
  for (let at = 0; at < data.length; at += 1) {
    let from = 0;
    for (let axis = shape.length - 1, rest = at, stride = 1; axis >= 0; axis -= 1) {
      if (tensor.dims[axis] !== 1) from += (rest % shape[axis]) * stride;
      rest = Math.floor(rest / shape[axis]);
      stride *= tensor.dims[axis];
    }
    data[at] = tensor.data[from];
  }
  return new ort.Tensor(tensor.type, data, shape);
}

/** What a missing state starts from; null where the size of one of its axes is not known. */
function initialState(ort, info, sizes, initial) {
  if (initial === undefined) {
    const shape = info.shape.map((dim) => sizeOf(dim, sizes));
    if (!ARRAYS[info.dtype] || shape.includes(null)) return null;
    return new ort.Tensor(info.dtype, new ARRAYS[info.dtype](product(shape)), shape);
  }
  const shape = [];
  for (const [axis, dim] of info.shape.entries()) {
    const length = initial.dims[axis];
    const size = sizeOf(dim, sizes);
    if (size === null && length === 1) return null;
    if (size !== null && size !== length && length !== 1) {
      const message = `the file's initial state for ${info.name} has ${dim} = ${length}, but ${dim} is ${size} here`;
      throw new InputError(message, { name: info.name, hint: `pass the state ${described(info)}` });
    }
    shape.push(size || length);
  }
  return broadcast(ort, initial, shape);
}

/** The initial state of a stream of `batch` sequences; its batch is the axis of that name, or its only dynamic one. */
function streamInitialState(ort, info, batch, initial) {
  const sizes = new Map([[BATCH, batch]]);
  const shape = [...info.shape];
  const dynamic = [...shape.keys()].filter((axis) => isDynamic(shape[axis]));
  const depends = dynamic.some((axis) => sizeOf(shape[axis], sizes) !== null);
  if (!depends && dynamic.length === 1 && (String(shape[dynamic[0]]).match(NAMES) ?? []).length <= 1) {
    shape[dynamic[0]] = BATCH;
  }
  if (initial !== undefined) {
    for (const axis of dynamic) if (sizeOf(shape[axis], sizes) === null) shape[axis] = initial.dims[axis];
  }
  const state = initialState(ort, { ...info, shape }, sizes, initial);
  if (state === null) {
    const message = `the state ${described(info)} cannot start as zeros: only one of its axes may be dynamic, the batch`;
    throw new InputError(message, { name: info.name });
  }
  return state;
}

// --- the model -------------------------------------------------------------------------------------------------------

/**
 * Opens a model.
 *
 * `source` is a URL, in Node also a path, or the bytes of the file.  Options: `states`, for models of other tools, each
 * state input and the output that feeds it; `sessionOptions`, what ONNX Runtime's InferenceSession.create takes.
 */
export async function load(ort, source, options = {}) {
  const runtime = ort?.InferenceSession ? ort : ort?.default; // a CommonJS package that was imported as a whole
  if (!runtime?.InferenceSession) throw new InputError("load takes the runtime first", { hint: "pass onnxruntime-web or onnxruntime-node" });
  const { path, bytes } = await readSource(source);
  const file = readModel(bytes, path);
  const metadata = readMetadata(file.properties, path);
  const states = { ...(options.states ?? metadata.states ?? {}) };
  for (const [input, output] of Object.entries(states)) {
    for (const [name, known, kind] of [[input, file.inputs, "input"], [output, file.outputs, "output"]]) {
      if (!Object.hasOwn(known, name)) {
        const hint = `its ${kind}s are ${Object.keys(known).join(", ")}`;
        throw new ModelError(`the state ${kind} '${name}' does not exist`, { path, hint, name });
      }
    }
    if (metadata.spec && LSTM_STATES[input] !== output && metadata.states?.[input] !== output) {
      const message = `is a bare LSTM with h0 <- hn, c0 <- cn: ${output} does not feed ${input}`;
      throw new ModelError(message, { path, name: input });
    }
  }
  const initial = initialStates(runtime, metadata, file.inputs, path);
  let session;
  try {
    session = await runtime.InferenceSession.create(bytes, options.sessionOptions);
  } catch (error) {
    throw new ModelError(`ONNX Runtime cannot open it: ${error.message ?? error}`, { path, cause: error });
  }
  const isUnnamed = (dim) => dim === "" || dim === 2 ** 32 - 1; // in onnxruntime-node and onnxruntime-web
  for (const { name, isTensor, shape } of session.outputMetadata ?? []) { // as inferred, where the file has none
    if (isTensor && Object.hasOwn(file.outputs, name)) file.outputs[name].shape = shape.map((dim) => (isUnnamed(dim) ? null : dim));
  }
  return new Model(runtime, { ...file, path, session, metadata, states, initial });
}

/** A model that is open for running; `load` creates it. */
export class Model {
  constructor(ort, { path, session, metadata, states, initial, inputs, outputs, operators, isChanged }) {
    Object.assign(this, { ort, path, session, metadata, states, initial, inputs, outputs, operators, isChanged });
    this.hidesNaN = HIDING_NAN.some((type) => operators.has(type));
    this.counts = countsOf(metadata, inputs);
    this.checksNumbers = Object.keys(this.counts).length > 0 || metadata.table_rows !== undefined;
  }

  /** Runs the model by the names of its inputs; absent states and lengths are filled in. */
  async run(feeds) {
    requireObject(feeds);
    const complete = this.completed(held(this.ort, feeds));
    this.validate(complete);
    this.requireWholeSequence(complete, feeds);
    return this.execute(complete);
  }

  /** Checks complete feeds. */
  validate(feeds) {
    const { spec, streaming, axis_limits: limits } = this.metadata;
    const filledIn = [...Object.keys(this.states), streaming?.last, spec ? "lengths" : undefined];
    validateFeeds(this.inputs, feeds, limits, filledIn);
    this.requireNumbers(feeds);
    const { chunk = 1, time = {} } = streaming ?? {};
    for (const [name, axis] of Object.entries(time)) {
      const steps = feeds[name].dims[axis];
      if (steps % chunk) {
        const hint = "collect that many, or make the file without chunk, for chunks of any length";
        throw new InputError(`${name} has ${steps} steps, but the file takes multiples of ${chunk}`, { name, hint });
      }
    }
  }

  /** Refuses a sequence that ends with fewer steps than the model takes; `given` are the inputs that the caller passed. */
  requireWholeSequence(feeds, given) {
    const { least = 1, multiple = 1, last = null, steps: counted = null, time = {} } = this.metadata.streaming ?? {};
    if (least === 1 && multiple === 1) return;
    const ends = last === null ? !Object.keys(given).some((name) => name in this.states) : feeds[last].data[0] !== 0n;
    if (!ends) return;
    const before = counted === null ? 0 : Number(feeds[counted].data[0]);
    for (const [name, axis] of Object.entries(time)) {
      const steps = before + feeds[name].dims[axis];
      if (steps >= least && steps % multiple === 0) continue;
      const takes = steps < least ? `${least} or more` : `multiples of ${multiple}`;
      const message = `${name} ends a sequence of ${steps} steps, but the model takes ${takes}`;
      throw new InputError(message, { name, hint: "model.stream() takes a sequence in shorter chunks" });
    }
  }

  /** Refuses counts outside of their axis, and rows that a table does not have. */
  requireNumbers(feeds) {
    if (!this.checksNumbers) return;
    requireCounts(this.counts, feeds, axisSizes(this.inputs, feeds));
    requireTableRows(this.metadata.table_rows ?? {}, feeds);
  }

  /** Warns of NaN or infinity, once: the results may be numbers where PyTorch gives NaN. */
  warnOfNonFinite(feeds) {
    for (const name in feeds) {
      const { type, data } = feeds[name];
      if (!type.startsWith("float")) continue;
      // What a stream of a maximum keeps starts from minus infinity.
      const isRight = Object.hasOwn(this.states, name) ? (number) => !Number.isNaN(number) : Number.isFinite;
      const isBits = data instanceof Uint16Array;
      for (let at = 0; at < data.length; at += 1) {
        if (isRight(isBits ? ofHalf(data[at]) : data[at])) continue;
        const what = "where PyTorch's LSTM gives NaN from this time step on, ONNX Runtime's gives numbers";
        console.warn(`${this.path}: ${name} has a NaN or an infinity; ${what}: replace it before the run`);
        this.hidesNaN = false;
        return;
      }
    }
  }

  async execute(feeds) {
    if (this.hidesNaN) this.warnOfNonFinite(feeds);
    try {
      return await this.session.run(feeds);
    } catch (error) {
      throw new RunError(`ONNX Runtime failed while running: ${error.message ?? error}`, { path: this.path, cause: error });
    }
  }

  /** `feeds` with missing states, and a bare LSTM's missing lengths. */
  completed(feeds) {
    const { inputs, metadata, ort } = this;
    const sizes = axisSizes(inputs, feeds);
    for (const name in this.states) {
      if (Object.hasOwn(feeds, name)) continue;
      const state = initialState(ort, inputs[name], sizes, this.initial[name]);
      if (state !== null) feeds[name] = state; // otherwise it is reported as missing
    }
    const last = metadata.streaming?.last;
    if (last && !Object.hasOwn(feeds, last)) feeds[last] = new ort.Tensor("int64", BigInt64Array.of(1n), [1]);
    if (metadata.spec && inputs.lengths && sizes.has("batch") && sizes.has("time")) {
      feeds.lengths = this.#lengths(feeds.lengths, sizes.get("batch"), sizes.get("time"));
    } else if (metadata.spec && !inputs.lengths && Object.hasOwn(feeds, "lengths")) {
      const hint = "export it again with lengths = true";
      throw new InputError("was exported without lengths", { path: this.path, hint, name: "lengths" });
    }
    return feeds;
  }

  /** A bare LSTM's lengths as int32 (batch,). */
  #lengths(lengths, batch, time) {
    if (lengths === undefined) return new this.ort.Tensor("int32", new Int32Array(batch).fill(time), [batch]);
    const name = "lengths";
    if (!/^u?int/.test(lengths?.type ?? "")) {
      throw new InputError(`lengths has dtype ${lengths?.type}`, { name, hint: "it must be integers" });
    }
    if (lengths.dims.length !== 1 || lengths.dims[0] !== batch) {
      const hint = `it must be (${batch},), one per sequence`;
      throw new InputError(`lengths has shape ${tuple(lengths.dims)}`, { name, hint });
    }
    const numbers = numbersOf(lengths);
    const at = numbers.findIndex((length) => length < 1 || length > time);
    if (at >= 0) {
      const hint = `it must be from 1 to time, ${time}`;
      throw new InputError(`lengths[${at}] is ${numbers[at]}`, { name, hint });
    }
    return new this.ort.Tensor("int32", Int32Array.from(numbers), [batch]);
  }

  /** A stream that carries the states from chunk to chunk, for `batch` sequences at once. */
  stream(options = {}) {
    if (options === null || typeof options !== "object") {
      throw new InputError("stream takes an object of options", { hint: `write stream({ batch: ${options} })` });
    }
    const { batch = 1, check = true } = options;
    return new Stream(this, batch, check);
  }

  /** Releases the session and its memory. */
  async release() {
    await this.session.release();
  }

  /** The name of the batch axis: "batch", or else the one axis name that the states have; null where that is unclear. */
  get batchName() {
    const shared = new Set();
    for (const name in this.inputs) {
      if (!(name in this.states)) this.inputs[name].shape.forEach((dim) => shared.add(dim));
    }
    const names = new Set();
    for (const name in this.states) {
      for (const dim of this.inputs[name].shape) if (typeof dim === "string") dim.match(NAMES)?.forEach((one) => names.add(one));
    }
    if (shared.has(BATCH) || names.has(BATCH)) return BATCH;
    const candidates = names.size === 1 ? [...names] : [...names].filter((name) => shared.has(name));
    return candidates.length === 1 ? candidates[0] : null;
  }

  /** Whether an axis of a state has no name: the batch, since all others are fixed. */
  get hasUnnamedBatch() {
    return Object.keys(this.states).some((name) => this.inputs[name].shape.includes(null));
  }

  /** Refuses a model whose chunks give other numbers than the whole sequence. */
  requireStreamable(check) {
    const { path, metadata } = this;
    if (!Object.keys(this.states).length) {
      const hint = `export it with states="explicit", or name the states that the file does not: load(ort, source, { states })`;
      throw new InputError("has no states to carry from chunk to chunk", { path, hint });
    }
    const hint = "run whole sequences instead";
    if (metadata.spec?.bidirectional) {
      const message = "is bidirectional: its reverse direction starts at the sequence's end, which a stream has not reached";
      throw new InputError(message, { path, hint });
    }
    const same = (pairs) => JSON.stringify(Object.entries(pairs).sort()) === JSON.stringify(Object.entries(this.states).sort());
    const declared = same(metadata.states ?? {});
    if (declared && metadata.not_streamable) {
      throw new InputError(`cannot be streamed: ${metadata.not_streamable}`, { path, hint });
    }
    const known = declared && (metadata.spec ? same(LSTM_STATES) : typeof metadata.not_streamable === "string");
    if (check && (!known || this.isChanged)) {
      const message = known ? "may not be streamed: another tool has changed it since it was written"
        : "does not say whether chunks give what the whole sequence gives";
      throw new InputError(message, { path, hint: "try it in Python, whose stream compares them; stream({ check: false }) opens one" });
    }
  }
}

// --- streams ---------------------------------------------------------------------------------------------------------

/** A model that is run chunk by chunk: however a sequence is divided, the results are those of the whole sequence. */
export class Stream {
  #start = {};
  #states = {};
  #timeAxes = {};
  #still = {};
  #shapes = {};
  #others = {};
  #restored = false;
  #onlyStates = false;
  #last = null;
  #lastCount = 0;
  #feeds = {};
  #ended = false;
  #running = 0;
  #before = null;

  constructor(model, batch, check) {
    model.requireStreamable(check);
    if (!Number.isSafeInteger(batch) || batch < 1) {
      throw new InputError(`batch = ${batch} is not possible`, { name: "batch", hint: "it must be a positive integer" });
    }
    const { states, inputs, ort } = model;
    const sizes = Object.keys(states).flatMap((name) => inputs[name].shape);
    if (batch !== 1 && !sizes.includes(batch) && !sizes.some(isDynamic)) {
      const fixed = Object.keys(states).map((name) => described(inputs[name])).join("; ");
      const message = `cannot take a batch of ${batch}: its states have fixed sizes (${fixed})`;
      throw new InputError(message, { path: model.path, name: "batch" });
    }
    this.model = model;
    this.batch = batch;
    this.streaming = model.metadata.streaming ?? null;
    this.batchName = model.batchName;
    for (const name in states) this.#start[name] = streamInitialState(ort, inputs[name], batch, model.initial[name]);
    this.#states = { ...this.#start };
    this.last = this.streaming?.last ?? null;
    const ends = Object.values(states);
    const own = Object.keys(model.outputs).filter((name) => !ends.includes(name));
    this.outputNames = own.length ? own : Object.keys(model.outputs);
    this.#onlyStates = own.length === 0;
    for (const name of this.outputNames) this.#timeAxes[name] = this.#timeAxisOf(name);
    this.inputNames = Object.keys(inputs).filter((name) => !(name in states) && name !== this.last);
  }

  /** The most steps of an output that come only with `flush`. */
  get delay() {
    return this.streaming?.delay ?? 0;
  }

  /** So many steps of the input always give the same number of steps. */
  get hop() {
    return this.streaming?.hop ?? 1;
  }

  /** A copy of every state by its input's name; JSON.stringify gives what Python's state_from_json reads. */
  get state() {
    this.#requireIdle("state");
    const copies = {};
    for (const [name, tensor] of Object.entries(this.#states)) copies[name] = this.#copy(tensor);
    const toJSON = () => Object.fromEntries(Object.entries(copies).map(([name, tensor]) => [name, packed(tensor)]));
    return Object.defineProperty(copies, "toJSON", { value: toJSON });
  }

  /** Tensors by name, or what JSON.parse gives of a state as JSON. */
  set state(values) {
    this.#requireIdle("state");
    const { inputs, states, ort } = this.model;
    const infos = Object.fromEntries(Object.keys(states).map((name) => [name, inputs[name]]));
    if (values === null || typeof values !== "object") {
      const hint = `it must map ${Object.keys(infos).join(", ")} to tensors`;
      throw new InputError(`state is a ${typeof values}`, { hint });
    }
    const tensors = {};
    for (const [name, value] of Object.entries(values)) {
      tensors[name] = typeof value?.data === "string" ? unpacked(ort, name, value) : value;
    }
    validateFeeds(infos, tensors);
    for (const [name, tensor] of Object.entries(tensors)) {
      if (!ArrayBuffer.isView(tensor.data)) { // what JSON or a worker makes of a tensor
        const hint = "set a state that was read from a stream, or what JSON.parse gives of it";
        throw new InputError(`${name} is a tensor without its numbers`, { name, hint });
      }
      const wanted = tuple(this.#start[name].dims);
      if (tuple(tensor.dims) !== wanted) {
        throw new InputError(`${name} has shape ${tuple(tensor.dims)}`, { name, hint: `this stream's is ${wanted}` });
      }
      tensors[name] = this.#copy(tensor);
    }
    this.#requireOnePlace(tensors);
    this.#restart(tensors);
    const { steps } = this.streaming ?? {};
    this.#restored = !steps || Number(tensors[steps].data[0]) > 0;
  }

  /** Refuses states of sequences that have ended, or cannot be stepped together: a file counts the first one's steps. */
  #requireOnePlace(tensors) {
    const { steps, last, settled, period, positions } = this.streaming ?? {};
    if (!steps) return;
    const counts = [...new Set(Array.from(tensors[steps].data, Number))].sort((one, other) => one - other);
    if (counts.includes(-1)) {
      const message = `${steps} is that of a sequence that has ended, and nothing can follow on its states`;
      const hint = `keep the states before flush; run needs ${last} = 0 before the end`;
      throw new InputError(message, { name: steps, hint });
    }
    const place = (count) => (positions || count < settled ? count : settled + (count - settled) % period);
    if (new Set(counts.map(place)).size < 2) return;
    const after = counts.slice(0, 5).join(", ");
    const message = `${steps} says that the sequences are after ${after} steps; such sequences cannot be stepped together`;
    throw new InputError(message, { name: steps, hint: "open a stream for each" });
  }

  /** Starts a new sequence. */
  reset() {
    this.#requireIdle("reset");
    this.#restart(this.#start);
  }

  /**
   * Runs one chunk: the inputs that are not states, by name.  Returns the outputs that are not states, or all of them
   * where every output is a state.  Calls that are not awaited run in their order, each on the numbers that it was given.
   */
  async run(feeds) {
    const given = held(this.model.ort, feeds);
    return this.#queued(() => this.#run(given));
  }

  /** Ends the sequence: the outputs that were still to come, of at most `delay` steps, possibly none. */
  flush() {
    return this.#queued(() => this.#flush());
  }

  async #run(given) {
    const { model, streaming, last } = this;
    this.#requireOpen();
    if (this.#isLike(given)) { // a chunk as the last one was: nothing but counts has to be checked again
      const feeds = this.#feeds; // one object for all calls, which follow one another: making one takes as long as a small step
      for (const name in given) feeds[name] = given[name];
      for (const name in this.#states) feeds[name] = this.#states[name];
      model.requireNumbers(feeds);
      return this.#step(feeds);
    }
    requireObject(given);
    for (const name in given) {
      if (name in model.states) {
        const hint = "set stream.state to change it";
        throw new InputError(`${name} is a state, which the stream carries itself`, { name, hint });
      }
    }
    let feeds = given;
    if (streaming !== null) {
      if (last !== null) {
        if (Object.hasOwn(given, last)) {
          throw new InputError(`${last} is set by the stream`, { name: last, hint: "stream.flush() ends the sequence" });
        }
        feeds = { ...given, [last]: new model.ort.Tensor("int64", BigInt64Array.of(0n), [1]) };
      }
      if (this.#isEmpty(given)) {
        this.#keepOthers(given);
        await this.#settle();
        return this.#results({});
      }
    }
    this.#requireBatch(feeds);
    feeds = model.completed({ ...feeds, ...this.#states });
    model.validate(feeds);
    const results = await this.#step(feeds);
    this.#feeds = feeds;
    const chunk = Object.entries(given).map(([name, { type, dims }]) => [name, { type, dims: [...dims] }]);
    this.#last = model.metadata.spec && Object.hasOwn(given, "lengths") ? null : Object.fromEntries(chunk); // they are cast
    this.#lastCount = chunk.length;
    return results;
  }

  /** Whether a chunk has the inputs, dtypes and shapes of the last one. */
  #isLike(feeds) {
    const last = this.#last;
    if (last === null) return false;
    let count = 0;
    for (const name in feeds) {
      const known = last[name];
      if (known === undefined || feeds[name]?.type !== known.type || !sameShape(feeds[name].dims, known.dims)) return false;
      count += 1;
    }
    return count === this.#lastCount;
  }

  async #step(feeds) {
    const { streaming } = this;
    const results = await this.model.execute(feeds);
    this.#advance(results);
    if (streaming !== null) this.#keepOthers(feeds);
    for (const name in this.#timeAxes) {
      this.#shapes[name] = results[name].dims;
      if (this.#timeAxes[name] !== null) continue;
      const { type, dims, data } = results[name]; // the caller may write into its own arrays
      this.#still[name] = { type, dims, data: data.slice() };
    }
    return this.#results(results);
  }

  /** Keeps copies of the inputs without a time axis, for the end of the sequence. */
  #keepOthers(feeds) {
    for (const name of this.inputNames) {
      if (!Object.hasOwn(this.streaming.time, name)) this.#others[name] = this.#copy(feeds[name]);
    }
  }

  async #flush() {
    this.#requireOpen();
    const { model, streaming, last } = this;
    const { path } = model;
    let results = {};
    const steps = streaming?.steps ? Number(this.#states[streaming.steps].data[0]) : 0;
    if (streaming !== null && steps % streaming.multiple) {
      const message = `the sequence has ${steps} steps, but the model takes multiples of ${streaming.multiple}`;
      throw new InputError(message, { path, hint: "feed the steps that are missing before flush, or reset the stream" });
    }
    if (streaming !== null && steps > 0 && steps < streaming.least) {
      const message = `the sequence has ${steps} steps, but the model takes ${streaming.least} or more`;
      throw new InputError(message, { path, hint: "feed more steps before flush, or reset the stream" });
    }
    if (last !== null && steps) {
      results = await this.#withoutSteps(1n);
      this.#advance(results);
    } else {
      await this.#settle();
    }
    this.#ended = true;
    return this.#results(results);
  }

  /** Finds the outputs without a time axis where no chunk has been run since a state was set. */
  async #settle() {
    if (!this.#restored) return;
    for (const [name, output] of Object.entries(this.model.states)) this.#still[output] = this.#states[name];
    const unknown = this.outputNames.filter((name) => this.#timeAxes[name] === null && !this.#still[name]);
    if (!unknown.length) return;
    // A GRU that gets no steps ends the process; it gets one where the file has an input `last`.
    const unsafe = this.last === null && this.model.operators.has("GRU");
    let results = null;
    if (!unsafe && this.streaming !== null) {
      try {
        results = await this.#withoutSteps(0n);
      } catch (error) {
        if (!(error instanceof RunError)) throw error; // there is no last step to pick, for one
      }
    }
    const found = results !== null && unknown.every((name) => results[name].dims.every((size) => size > 0));
    // An LSTM or RNN that gets no steps forgets its states, and what it gives is not that of the last step.
    const kept = Object.entries(this.model.states).every(([name, after]) => {
      const data = results?.[after]?.data;
      return data === undefined || data.every((value, index) => Object.is(value, this.#states[name].data[index]));
    });
    if (!found || !kept) throw this.#unknown(unknown[0], "feed a chunk first");
    for (const name of unknown) this.#still[name] = results[name];
  }

  #unknown(name, hint) {
    const message = `${name} is not known: no chunk has been run since the state was set`;
    return new InputError(message, { path: this.model.path, hint, name });
  }

  /** All outputs of a call with a chunk of no steps; `last` is 1 where it ends the sequence. */
  async #withoutSteps(last) {
    const { model, streaming } = this;
    const missing = this.inputNames.find((name) => !Object.hasOwn(streaming.time, name) && !Object.hasOwn(this.#others, name));
    if (missing !== undefined) throw this.#unknown(missing, "feed a chunk first, which may have no steps");
    const feeds = { ...this.#others, ...this.#states };
    if (this.last !== null) feeds[this.last] = new model.ort.Tensor("int64", BigInt64Array.of(last), [1]);
    for (const [name, axis] of Object.entries(streaming.time)) feeds[name] = this.#empty(model.inputs[name], axis);
    return model.execute(feeds);
  }

  /** Takes the states of a call that succeeded. */
  #advance(results) {
    const { path, states } = this.model;
    const after = {};
    for (const name in states) {
      const output = states[name];
      const state = results[output];
      const before = this.#start[name];
      if (state.type !== before.type || !sameShape(state.dims, before.dims)) {
        const found = `its output ${output} is ${state.type} ${tuple(state.dims)}`;
        const wanted = `the state ${name} that it feeds is ${before.type} ${tuple(before.dims)}`;
        throw new RunError(`${found}, but ${wanted}`, { path, name: output });
      }
      after[name] = state;
    }
    this.#states = after;
  }

  /** The outputs that a caller gets; those that are missing have no steps. */
  #results(results) {
    const found = {};
    for (const name of this.outputNames) {
      const result = results[name] ?? this.#nothing(name);
      found[name] = this.#onlyStates ? this.#copy(result) : result; // the stream keeps its states to itself
    }
    return found;
  }

  /** Whether a chunk has no steps; then its other axes are checked here. */
  #isEmpty(feeds) {
    const { model, streaming } = this;
    const times = Object.entries(streaming.time);
    const empty = times.every(([name, axis]) => {
      const dims = feeds[name]?.dims;
      return dims?.length === model.inputs[name].shape.length && dims[axis] === 0;
    });
    if (!empty) return false;
    requireKnownNames(Object.fromEntries(this.inputNames.map((name) => [name, model.inputs[name]])), feeds);
    const missing = this.inputNames.find((name) => !Object.hasOwn(feeds, name));
    if (missing !== undefined) throw new InputError(`missing input: ${described(model.inputs[missing])}`, { name: missing });
    for (const [name, axis] of times) {
      const { dims } = feeds[name];
      this.#empty(model.inputs[name], axis).dims.forEach((wanted, place) => {
        const dim = model.inputs[name].shape[place];
        if (place !== axis && (typeof dim === "number" || dim === this.batchName) && dims[place] !== wanted) {
          throw new InputError(`${name} has shape ${tuple(dims)}`, { name, hint: `axis ${place} must be ${wanted}` });
        }
      });
    }
    return true;
  }

  /** A tensor without steps along `axis`. */
  #empty(info, axis) {
    const sizes = new Map([[this.batchName, this.batch]]);
    const other = this.batchName === null ? this.batch : 1; // the batch may have another name in each input
    const shape = info.shape.map((dim, place) => (place === axis ? 0 : sizeOf(dim, sizes) ?? other));
    const dtype = ARRAYS[info.dtype] ? info.dtype : "float32";
    return new this.model.ort.Tensor(dtype, new ARRAYS[dtype](product(shape)), shape);
  }

  /** An output of a call without steps: no step of it, or what it was at the last one. */
  #nothing(name) {
    const axis = this.#timeAxes[name];
    if (axis === null && this.#still[name]) return this.#copy(this.#still[name]);
    const info = this.model.outputs[name];
    return this.#empty({ ...info, shape: this.#shapes[name] ?? info.shape }, axis);
  }

  /** Of an output, or null: its size follows from that of time, or, as after packed lengths, from no input's. */
  #timeAxisOf(name) {
    if (this.streaming) return this.streaming.outputs[name] ?? null;
    const { inputs, outputs, metadata } = this.model;
    const namesIn = (dim) => (typeof dim === "string" ? dim.match(NAMES) ?? [] : []);
    const times = metadata.time_axes?.length ? metadata.time_axes : ["time"];
    const known = Object.values(inputs).flatMap(({ shape }) => shape.flatMap(namesIn)).filter((dim) => !times.includes(dim));
    const { shape } = outputs[name];
    const axesWhere = (isTime) => [...shape.keys()].filter((axis) => isTime(shape[axis]));
    const unnamed = axesWhere((dim) => dim === null);
    const others = unnamed.length > Number(this.model.hasUnnamedBatch) ? unnamed : []; // not all of them are the batch
    return [...axesWhere((dim) => namesIn(dim).some((one) => !known.includes(one))), ...others][0] ?? null;
  }

  #requireBatch(feeds) {
    const { inputs, hasUnnamedBatch } = this.model;
    const { batchName } = this;
    if (batchName === null && !hasUnnamedBatch) return;
    for (const name in feeds) {
      const shape = inputs[name]?.shape ?? [];
      const dims = feeds[name]?.dims;
      const axis = shape.indexOf(batchName);
      if (axis < 0 || dims?.length !== shape.length) continue;
      if (batchName === null && shape.lastIndexOf(null) !== axis) continue; // time has no name either
      if (dims[axis] !== 0 && dims[axis] !== this.batch) {
        const message = `${name} has shape ${tuple(dims)}, which is ${dims[axis]} sequences, but this stream carries ${this.batch}`;
        throw new InputError(message, { name, hint: `open it with stream({ batch: ${dims[axis]} })` });
      }
    }
  }

  #requireOpen() {
    if (this.#ended) {
      const hint = "stream.reset() starts another";
      throw new InputError("the sequence of this stream has ended", { path: this.model.path, hint });
    }
  }

  #requireIdle(what) {
    if (this.#running) throw new InputError(`${what}: a chunk of this stream is still running`, { hint: "await it first" });
  }

  #restart(states) {
    this.#states = { ...states };
    this.#still = {};
    this.#others = {}; // they were another sequence's
    this.#ended = false;
    this.#restored = false;
  }

  #copy(tensor) {
    return copied(this.model.ort, tensor);
  }

  /** Runs a chunk, or ends the sequence, after the calls that were made before. */
  #queued(work) {
    const before = this.#before;
    this.#running += 1;
    const done = before === null ? this.#call(work) : before.then(() => this.#call(work), () => this.#call(work));
    this.#before = done;
    return done;
  }

  async #call(work) {
    try {
      return await work();
    } finally {
      this.#running -= 1;
      if (this.#running === 0) this.#before = null;
    }
  }
}
