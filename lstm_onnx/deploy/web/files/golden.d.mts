/** Types of golden.mjs. */

import type { Feeds, Model, OnnxRuntime, TensorLike } from "./lstm-onnx.mjs";

/** The inputs and expected outputs in golden.json and golden.bin. */
export interface Golden {
  readonly schema: number;
  readonly content: ArrayBuffer;
  readonly cases: readonly { readonly label: string; readonly kind: "run" | "stream"; readonly batch: number }[];
}

/** The largest error of one output; it passes if that is at most `allowed`. */
export interface OutputResult {
  name: string;
  /** NaN where the output cannot be compared; `problem` says why. */
  error: number;
  allowed: number;
  /** `error / allowed`. */
  share: number;
  passed: boolean;
  problem: string;
}

export interface CaseResult {
  label: string;
  kind: "run" | "stream";
  calls: number;
  passed: boolean;
  /** The message of what was thrown, or "". */
  error: string;
  outputs: OutputResult[];
  milliseconds: number;
}

export interface ProveOptions {
  /** Called after each case, and awaited: its result, its number from 1, and how many cases there are. */
  onCase?: (result: CaseResult, number: number, count: number) => unknown;
}

/** The golden data of two URLs (in Node also paths). */
export function readGolden(json: string | URL, bin: string | URL): Promise<Golden>;

/** Runs `model` on every case; `passed` is whether all passed. */
export function prove<Tensor extends TensorLike>(
  model: Model<Tensor>,
  golden: Golden,
  options?: ProveOptions,
): Promise<{ passed: boolean; cases: CaseResult[] }>;

/** The feeds of one step, or of the smallest chunk that always gives one; of a whole run for a model without streams. */
export function exampleFeeds<Tensor extends TensorLike>(
  model: Model<Tensor>,
  golden: Golden,
): { batch: number; streams: boolean; steps: number | null; feeds: Feeds<Tensor> };

/** Tensors joined along an axis. */
export function concatenate<Tensor extends TensorLike>(
  ort: OnnxRuntime<Tensor>,
  tensors: readonly Tensor[],
  axis: number,
): Tensor;
