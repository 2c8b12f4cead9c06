// A stream of a model that `lstm-onnx serve` serves, for browsers and for Node 22 and later.
//
//   import { openStream } from "http://127.0.0.1:8000/client.mjs";
//   const stream = await openStream("http://127.0.0.1:8000", "model");
//   const { output } = await stream.step({ input: new Float32Array(80) });
//   stream.close();

const ARRAYS = {
  BOOL: Uint8Array,
  UINT8: Uint8Array,
  UINT16: Uint16Array,
  UINT32: Uint32Array,
  UINT64: BigUint64Array,
  INT8: Int8Array,
  INT16: Int16Array,
  INT32: Int32Array,
  INT64: BigInt64Array,
  FP16: Uint16Array, // its bits
  FP32: Float32Array,
  FP64: Float64Array,
};

/**
 * Open a stream.
 *
 * @param {string} server where it is, such as "http://127.0.0.1:8000"
 * @param {string} model the model's name
 * @param {{token?: string}} options a bearer token, where the server asks for one
 * @returns {Promise<Stream>}
 */
export async function openStream(server, model, { token } = {}) {
  const url = new URL(`v2/models/${encodeURIComponent(model)}/stream`, server.endsWith("/") ? server : `${server}/`);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url, token ? ["lstm-onnx", `bearer.${token}`] : ["lstm-onnx"]);
  socket.binaryType = "arraybuffer";
  const stream = new Stream(socket);
  await stream.opened;
  return stream;
}

/** One stream; made by `openStream`. */
export class Stream {
  /** @type {{inputs: {name: string, datatype: string, shape: number[]}[], outputs: object[], elements: object} | null} */
  layout = null;
  #waiting = [];
  #ended = null;

  constructor(socket) {
    this.socket = socket;
    this.opened = new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    socket.addEventListener("message", (event) => this.#received(event.data));
    socket.addEventListener("error", () => this.#end(new Error("the server cannot be reached, or refused the stream")));
    socket.addEventListener("close", (event) =>
      this.#end(new Error(`the stream is closed: ${event.reason || `code ${event.code}`}`)),
    );
  }

  /**
   * The next time steps. Calls are answered in their order, and need not wait for each other.
   *
   * @param {Object<string, ArrayBufferView>} inputs typed arrays by name, in row-major order
   * @returns {Promise<Object<string, ArrayBufferView>>} the outputs by name, flat and in row-major order
   */
  step(inputs) {
    if (this.#ended) return Promise.reject(this.#ended);
    const parts = [];
    let steps = null;
    for (const { name, datatype } of this.layout.inputs) {
      const array = inputs[name];
      if (!(array instanceof ARRAYS[datatype]))
        return Promise.reject(new TypeError(`${name} must be a ${ARRAYS[datatype].name}`));
      // The server sees the bytes of all inputs together, of which there may be as many as of right ones.
      const [first, more] = this.layout.elements[name];
      const own = more ? 1 + (array.length - first) / more : null;
      if (more ? own !== (steps ?? own) || own < 1 || own % 1 : array.length !== first) {
        const [bytes, further] = [first, more].map((count) => count * array.BYTES_PER_ELEMENT);
        const wanted = more ? `${bytes}, and ${further} for each further step, as many as others` : bytes;
        return Promise.reject(new TypeError(`${name} has ${array.byteLength} bytes; it must have ${wanted}`));
      }
      steps ??= own;
      parts.push(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    }
    const unknown = Object.keys(inputs).find((name) => !this.layout.inputs.some((input) => input.name === name));
    if (unknown !== undefined) return Promise.reject(new TypeError(`${unknown} is not an input`));
    const frame = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    let at = 0;
    for (const part of parts) {
      frame.set(part, at);
      at += part.length;
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.socket.send(frame);
    });
  }

  /** End the stream. */
  close() {
    this.socket.close();
  }

  #received(data) {
    const waiting = this.#waiting.shift();
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.error !== undefined) {
        const error = new Error(message.error);
        if (waiting) waiting.reject(error);
        else this.#ended = error; // of the stream itself: the server closes it
        return;
      }
      this.layout = message;
      waiting.resolve(this);
      return;
    }
    waiting.resolve(this.#outputs(data));
  }

  #outputs(data) {
    const outputs = this.layout.outputs;
    const found = {};
    let at = 0;
    for (const { name, datatype } of outputs) {
      let size = data.byteLength;
      if (outputs.length > 1) {
        size = new DataView(data).getUint32(at, true);
        at += 4;
      }
      found[name] = new ARRAYS[datatype](data.slice(at, at + size));
      at += size;
    }
    return found;
  }

  #end(error) {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
  }
}
