/** Types of lstm-onnx.mjs. A tensor is the one of the ONNX Runtime that is passed to `load`. */

export interface TensorLike {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: unknown;
}

/** onnxruntime-web or onnxruntime-node, imported as a whole. */
export interface OnnxRuntime<Tensor extends TensorLike = TensorLike> {
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  Tensor: new (type: any, data: any, dims?: readonly number[]) => Tensor;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  InferenceSession: { create(model: Uint8Array, options?: any): Promise<any> };
}

/** An input or output: a size of an axis is a number, its name or expression, or null. */
export interface ValueInfo {
  name: string;
  dtype: string | null;
  shape: (number | string | null)[];
}

/** A tensor as JSON; `data` is base64 of its little-endian bytes. */
export interface PackedTensor {
  dtype: string;
  shape: number[];
  data: string;
}

export type Feeds<Tensor> = Record<string, Tensor>;
/** Each state by its input's name; JSON.stringify gives what Python's lstm_onnx.state_from_json reads. */
export type State<Tensor> = Record<string, Tensor>;

export interface LoadOptions {
  /** For models of other tools: each state input, and the output that feeds it. */
  states?: Record<string, string>;
  /** What ONNX Runtime's InferenceSession.create takes, such as { executionProviders: ["wasm"] }. */
  sessionOptions?: object;
}

/**
 * Opens a model: a URL, in Node also a path, or the bytes of the file.
 *
 * @throws {ModelError} it cannot be read, or is not a model that can be run.
 */
export function load<Tensor extends TensorLike>(
  ort: OnnxRuntime<Tensor>,
  source: string | URL | ArrayBuffer | ArrayBufferView,
  options?: LoadOptions,
): Promise<Model<Tensor>>;

export class Model<Tensor extends TensorLike = TensorLike> {
  private constructor();
  /** What `load` was given, for messages. */
  readonly path: string;
  readonly inputs: Record<string, ValueInfo>;
  readonly outputs: Record<string, ValueInfo>;
  /** Each state input, and the output that feeds it at the next step. */
  readonly states: Record<string, string>;
  /** The JSON values of the file's metadata `lstm_onnx.*`, by the rest of their names. */
  readonly metadata: Record<string, unknown>;
  /** The ONNX Runtime and its session. */
  readonly ort: OnnxRuntime<Tensor>;
  readonly session: unknown;
  /**
   * Runs the model by the names of its inputs. States that are left out start from the file's initial state or zeros;
   * lengths of a bare LSTM that are left out are those of complete sequences. A call that is not awaited runs on the
   * numbers that it was given.
   *
   * @throws {InputError} something does not fit; the message names it.
   * @throws {RunError} ONNX Runtime failed.
   */
  run(feeds: Feeds<Tensor>): Promise<Record<string, Tensor>>;
  /**
   * A stream that carries the states, of `batch` sequences side by side. `check: false` opens one also for a file that
   * does not say whether chunks give what the whole sequence gives, or that another tool has changed since.
   *
   * @throws {InputError} the model cannot be streamed, with the reason.
   */
  stream(options?: { batch?: number; check?: boolean }): Stream<Tensor>;
  /** Releases the session and its memory. */
  release(): Promise<void>;
}

export class Stream<Tensor extends TensorLike = TensorLike> {
  private constructor();
  readonly model: Model<Tensor>;
  readonly batch: number;
  /** The inputs of `run`, and the outputs that it gives. */
  readonly inputNames: string[];
  readonly outputNames: string[];
  /** The most steps of an output that come only with `flush`. */
  readonly delay: number;
  /** So many steps of the input always give the same number of steps. */
  readonly hop: number;
  /** A copy of every state; may be set, also to what JSON.parse gives of a state as JSON. */
  get state(): State<Tensor>;
  set state(values: Record<string, Tensor | PackedTensor>);
  /**
   * Runs the next steps: the inputs that are not states, by name. Calls that are not awaited run in their order,
   * each on the numbers that it was given.
   *
   * @throws {InputError} something does not fit.
   * @throws {RunError} ONNX Runtime failed; the states are as they were.
   */
  run(feeds: Feeds<Tensor>): Promise<Record<string, Tensor>>;
  /** Ends the sequence: the outputs that were still to come, of at most `delay` steps, possibly none. */
  flush(): Promise<Record<string, Tensor>>;
  /** Starts a new sequence. */
  reset(): void;
}

export class LSTMOnnxError extends Error {
  /** The input, output, state or argument that it is about. */
  readonly input: string | null;
  readonly hint: string | null;
}
export class ModelError extends LSTMOnnxError {}
export class InputError extends LSTMOnnxError {}
export class RunError extends LSTMOnnxError {}
